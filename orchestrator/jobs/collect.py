"""From what an attempt left behind to its verdict: pure functions over file contents.

The result file is the truth for values, the agent's report for how the program ended, the
scheduler's word for why there is neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ResultError
from orchestrator.model import Attempt, ExitReport, Job, JobEnd, Json, Outcome, Verdict

__all__ = ["REQUEUE_EXIT_CODE", "Remains", "Result", "judge", "parse_report", "parse_result"]

REQUEUE_EXIT_CODE = 85

_CAUSES = {
    "timeout": Verdict.TIMEOUT,
    "out-of-memory": Verdict.OUT_OF_MEMORY,
    "no-gpu": Verdict.FAILED,
    "cannot-start": Verdict.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result file that was read and found sound.

    Attributes
    ----------
    stopped : bool or None
        Whether the program says that it has ended early on request; None: it says nothing.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Json] = field(default_factory=dict)
    stopped: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is known of an attempt that has ended.

    Attributes
    ----------
    report : mapping or None
        ``exit.json`` as the agent wrote it.
    result : str or None
        ``result.json`` as text.
    trouble : str
        Why ``result`` is None although there is a file.
    end : JobEnd or None
        What the scheduler says, where it says anything.
    restarts : int
        How often the scheduler had started the job again when it ended, as far as it says.
    claimed : bool
        Whether an agent ever claimed the attempt.
    stopped : bool
        Whether the program was asked to stop early.
    """

    report: Mapping[str, Any] | None = None
    result: str | None = None
    trouble: str = ""
    end: JobEnd | None = None
    restarts: int = 0
    claimed: bool = False
    stopped: bool = False


def parse_result(text: str | None, tag: str) -> Result:
    """Read ``result.json``.

    Raises
    ------
    ResultError
        If there is none, it is torn or not of the agreed form (a name that stands in it twice included), or it
        carries another attempt's tag.
    """
    if text is None:
        raise ResultError("the program wrote no result.json")
    if not text.strip():
        raise ResultError("result.json is empty")
    try:
        data = json.loads(text, object_pairs_hook=_each_once)
    except ValueError as error:
        raise ResultError(f"result.json is not whole JSON ({error})") from error
    if not isinstance(data, dict):
        raise ResultError(f'result.json holds {_kind(data)}, expected {{"metrics": {{...}}}}')
    if data.get("tag", tag) != tag:
        raise ResultError(f"result.json is of another attempt ({data['tag']}, this one is {tag})")
    metrics = data.get("metrics")
    if not isinstance(metrics, dict):
        raise ResultError('result.json has no "metrics" object')
    info = data.get("info") or {}
    numbers: dict[str, float] = {}
    notes: dict[str, Json] = dict(info) if isinstance(info, dict) else {"info": info}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            notes[name] = value
        elif math.isfinite(value):
            numbers[name] = float(value)
        else:
            notes[name] = str(float(value))
    stopped = data.get("stopped")
    return Result(metrics=numbers, info=notes, stopped=stopped if isinstance(stopped, bool) else None)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object: of two values under one name neither is more right than the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ResultError(f"result.json has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def parse_report(data: Mapping[str, Any]) -> ExitReport:
    """Read ``exit.json``'s fields; what is missing or odd is left at its default."""
    usage = data.get("max_rss")
    gpu_memory = data.get("gpu_memory")
    return ExitReport(
        tag=str(data.get("tag", "")),
        exit_code=_whole(data.get("exit_code")),
        signal=_whole(data.get("signal")),
        host=str(data.get("host", "")),
        started=float(data.get("started") or 0.0),
        ended=float(data.get("ended") or 0.0),
        max_rss=float(usage) if isinstance(usage, int | float) else None,
        gpus=tuple(str(name) for name in data.get("gpus") or ()),
        gpu_memory=float(gpu_memory) if isinstance(gpu_memory, int | float) else None,
        cause=str(data.get("cause") or ""),
        message=str(data.get("message") or ""),
        job_id=str(data.get("job_id") or ""),
        restarts=_whole(data.get("restarts")) or 0,
    )


def judge(job: Job, attempt: Attempt, remains: Remains, *, directory: str, now: float) -> Outcome:
    """Verdict and metrics of an ended attempt.

    A sound result with every metric that the job needs is a success even where the program
    crashed afterwards (the reason says so); anything less never is.
    """
    report = parse_report(remains.report) if remains.report is not None else None
    if report is not None and report.tag != attempt.tag:
        report = None
    verdict, reason, result = _decide(job, attempt, remains, report)
    return Outcome(
        key=job.key,
        verdict=verdict,
        reason=reason,
        metrics=result.metrics,
        info=result.info,
        attempts=attempt.number,
        tag=attempt.tag,
        job_id=attempt.job_id or (report.job_id if report else ""),
        host=report.host if report else "",
        submitted=attempt.submitted,
        started=report.started if report else None,
        ended=report.ended if report else now,
        exit_code=report.exit_code if report else (remains.end.exit_code if remains.end else None),
        signal=report.signal if report else (remains.end.signal if remains.end else None),
        max_rss=report.max_rss if report else None,
        gpus=report.gpus if report else (),
        gpu_memory=report.gpu_memory if report else None,
        directory=directory,
    )


def _decide(job: Job, attempt: Attempt, remains: Remains, report: ExitReport | None) -> tuple[Verdict, str, Result]:
    result, complaint = _result(job, attempt, remains)
    if result is not None and not complaint:
        # A program that had done its work before it was asked has a result like any other.
        if remains.stopped and result.stopped is not False:
            return Verdict.STOPPED, "stopped early on request", result
        return Verdict.SUCCEEDED, _aftermath(report), result
    kept = result or Result()
    if report is None:
        return *_without_report(remains, complaint), kept
    if report.exit_code == REQUEUE_EXIT_CODE:
        return Verdict.REQUEUE_REQUESTED, "the program asked to be run again (exit code 85)", kept
    if report.cause == "timeout":
        return Verdict.TIMEOUT, _words("the walltime was over", report), kept
    if report.cause in _CAUSES:
        return _CAUSES[report.cause], report.message or report.cause, kept
    if report.cause == "signalled":
        end = remains.end
        said = end.verdict if end else None
        if remains.restarts > report.restarts and said in {None, Verdict.SUCCEEDED, Verdict.FAILED}:
            words = "the scheduler started the job again, and that start ended before its agent began"
            return Verdict.LOST, f"{words}{_quoted(end)}", kept
        from_outside = Verdict.CANCELLED if said in {None, Verdict.SUCCEEDED, Verdict.FAILED} else said
        return from_outside or Verdict.CANCELLED, _words("the job was ended from outside", report, end), kept
    if report.signal:
        return Verdict.FAILED, _words(f"the program was killed by signal {report.signal}", report), kept
    if report.exit_code:
        return Verdict.FAILED, _words(f"the program ended with exit code {report.exit_code}", report), kept
    return Verdict.FAILED, _words(f"the program ended with exit code 0, but {complaint}", report), kept


def _result(job: Job, attempt: Attempt, remains: Remains) -> tuple[Result | None, str]:
    """The usable part of the result, and what is wrong with it ("" if nothing)."""
    if remains.trouble:
        return None, remains.trouble
    try:
        result = parse_result(remains.result, attempt.tag)
    except ResultError as error:
        read = (remains.report or {}).get("metrics")
        if remains.result is not None or not isinstance(read, dict) or not read:
            return None, error.message
        text = json.dumps({"metrics": read})
        result = parse_result(text, attempt.tag)
    for name in job.metrics:
        if name in result.metrics:
            continue
        if name in result.info:
            return result, f"metric {name!r} is {result.info[name]}, not a finite number"
        have = ", ".join(sorted(result.metrics)) or "none"
        return result, f"the result has no metric {name!r} (it has: {have})"
    return result, ""


def _without_report(remains: Remains, complaint: str) -> tuple[Verdict, str]:
    end = remains.end
    if end is None:
        return Verdict.LOST, "the job is gone, and left neither a result nor a report"
    said = _quoted(end)
    if end.verdict in {None, Verdict.SUCCEEDED}:
        if not remains.claimed:
            return Verdict.FAILED, f"the job ended before its agent started{said}; see job.log beside stdout"
        return Verdict.LOST, f"the job ended without a report, and {complaint}{said}"
    return end.verdict or Verdict.LOST, f"{end.verdict}{said}"


def _quoted(end: JobEnd | None) -> str:
    return f" (scheduler: {end.reason})" if end is not None and end.reason else ""


def _aftermath(report: ExitReport | None) -> str:
    if report is None:
        return "the result is whole; the agent's report is missing"
    if report.signal:
        return f"the result is whole; afterwards the program was killed by signal {report.signal}"
    if report.exit_code:
        return f"the result is whole; afterwards the program ended with exit code {report.exit_code}"
    return ""


def _words(text: str, report: ExitReport, end: JobEnd | None = None) -> str:
    extra = [part for part in (report.message, end.reason if end else "") if part]
    return f"{text}: {'; '.join(extra)}" if extra else text


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
