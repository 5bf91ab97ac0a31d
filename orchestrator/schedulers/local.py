"""The local machine as a scheduler: an adaptor over `orchestrator.localq`.

What it prints is one line a job under a header, so the rules are those of every other adaptor:
an answer without the header, or with a state word that is not in the table, proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from orchestrator.errors import UsageError
from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Found, Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.reading import absent, evidence, unknown
from orchestrator.transports.base import Command, Completion

__all__ = ["Local"]

_ID = re.compile(r"local-\d+-\d+-[0-9a-f]{8}")
_HEADER = ["ID", "STATE", "EXIT", "SIGNAL", "NAME", "SUBMITTED", "STARTED", "ENDED", "REASON"]

# State words of `orchestrator.localq`; its "unknown" (a job of another host) is deliberately not here.
_ALIVE = {"queued": JobState.QUEUED, "running": JobState.RUNNING}
_OVER = {
    "ended": None,  # the exit code decides
    "cancelled": Verdict.CANCELLED,
    "rebooted": Verdict.NODE_FAILURE,
    "vanished": None,  # killed from outside: nobody says how it ended
}

# Exit codes of `orchestrator.localq`.
_USAGE, _THERE_ALREADY, _FAILED, _REFUSED = 2, 3, 4, 5


class Local(Scheduler):
    """Jobs on this machine, one detached keeper each.

    Notes
    -----
    ``options.extra`` names the interpreter (``python``), the staged queue program (``localq``) and
    the folder that holds its records (``spool``).
    """

    name: ClassVar[str] = "local"
    template: ClassVar[str] = "local.sh.j2"
    extras: ClassVar[frozenset[str]] = frozenset({"python", "localq", "spool"})

    def _localq(self, verb: str, *arguments: str) -> Command:
        extra = self.options.extra
        missing = sorted(key for key in self.extras if not extra.get(key))
        if missing:
            raise UsageError(f"the local scheduler was not told its {' and '.join(missing)} (options.extra)")
        # -I and -S: nothing of the user's environment is wanted, and it starts in a third of the time.
        return self.command(extra["python"], "-I", "-S", extra["localq"], verb, "--spool", extra["spool"], *arguments)

    def submit(self, request: SubmitRequest) -> Command:
        """Command line that queues one script."""
        if request.array is not None:
            raise UsageError(
                f"job {request.tag}: the local scheduler has no array jobs", hint="Submit the elements one by one."
            )
        return self._localq(
            "submit",
            *("--name", request.tag),
            *("--gpus", str(request.gpus)),
            *("--output-dir", request.directory),
            *self.options.submit_options,
            request.script,
        )

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read the job's id, which is the only thing on stdout."""
        words = completion.stdout.strip()
        said = evidence(completion)
        match completion.returncode:
            case 0 if _ID.fullmatch(words):
                return Submitted(job_id=words)
            case code if code == _THERE_ALREADY and (before := _ID.findall(completion.stderr)):
                # The tag is unique for ever: the job of that name is this one, taken by an earlier submit.
                return Submitted(job_id=before[-1])
            case code if code == _FAILED:
                return Refused(reason=said, later=True)
            case code if code in {_REFUSED, _USAGE, 126, 127}:
                return Refused(reason=said)
            case _:
                return Unclear(reason=said)

    def query(self, job_ids: Sequence[str]) -> Command:
        """One query for all of ``job_ids``."""
        return self._localq("status", *job_ids)

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Answer for each of ``job_ids``."""
        listed = _listed(completion)
        if listed is None:
            return unknown(job_ids, evidence(completion))
        by_id = {status.job_id: status for status in listed}
        return {job_id: by_id.get(job_id) or absent(job_id, "not in the local queue") for job_id in job_ids}

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:  # noqa: ARG002 the contract's signature
        """None: the query tells of ended jobs too."""
        return None

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Answer for each of ``job_ids``, as `parse_query`."""
        return self.parse_query(completion, job_ids)

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:  # noqa: ARG002 the contract's signature
        """One command line: queue and history are the same records."""
        return (self._localq("find", *tags),)

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Jobs by tag; a name is used once at most."""
        jobs: dict[str, tuple[JobStatus, ...]] = dict.fromkeys(tags, ())
        for completion in completions:
            listed = _listed(completion)
            if listed is None:
                return Found(jobs={}, trusted=False, evidence=evidence(completion))
            for status in listed:
                if status.name in jobs:
                    jobs[status.name] = (*jobs[status.name], status)
        return Found(jobs={tag: found for tag, found in jobs.items() if found}, trusted=bool(completions))

    def cancel(self, job_ids: Sequence[str]) -> Command:
        """Command line that asks the jobs' keepers to end them."""
        return self._localq("cancel", *job_ids)

    def cancelled(self, completion: Completion) -> bool:
        """Whether all of the jobs were asked, or had ended."""
        return completion.returncode == 0


def _listed(completion: Completion) -> list[JobStatus] | None:
    """Read the jobs of an answer; None where it is not one."""
    lines = completion.stdout.splitlines()
    if completion.returncode != 0 or not lines or lines[0].split() != _HEADER:
        return None
    return list(_statuses(lines[1:]))


def _statuses(lines: Sequence[str]) -> Iterator[JobStatus]:
    for line in lines:
        fields = line.split(maxsplit=len(_HEADER) - 1)
        if len(fields) == len(_HEADER) and _ID.fullmatch(fields[0]):
            yield _status(fields, line)


def _status(fields: Sequence[str], line: str) -> JobStatus:
    job_id, word, code, number, name, *times, reason = fields
    reason = "" if reason == "-" else reason
    try:
        submitted, started, ended = (None if text == "-" else float(text) for text in times)
        exit_code, signal = (None if text == "-" else int(text) for text in (code, number))
    except ValueError:
        return JobStatus(job_id=job_id, answer=Answer.UNKNOWN, word=word, name=name, evidence=line)
    end = None
    answer, state = Answer.UNKNOWN, JobState.UNKNOWN
    if word in _ALIVE:
        answer, state = Answer.ALIVE, _ALIVE[word]
    elif word in _OVER:
        answer, state = Answer.ENDED, JobState.ENDED
        verdict = _OVER[word]
        if word == "ended":
            verdict = Verdict.SUCCEEDED if exit_code == 0 else Verdict.FAILED
        end = JobEnd(verdict=verdict, exit_code=exit_code, signal=signal, reason=reason or word)
    return JobStatus(
        job_id=job_id,
        answer=answer,
        state=state,
        word=word,
        reason=reason,
        name=name,
        submitted=submitted,
        started=started,
        ended=ended,
        end=end,
        evidence=line,
    )
