"""``survey status``: where a study stands, without asking the scheduler or disturbing the driver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.output import emit_json, message, print_table
from orchestrator.cli.run import best_lines
from orchestrator.cli.tally import span
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, find_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["clock_time", "status"]


def status(study: StudyArgument = "", root: RootOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Show a study's state, its best trial and what is in flight."""
    from orchestrator.studies.reader import read_study

    record = read_study(find_folder(study, root))
    if as_json:
        emit_json({"study": record.to_json()})
        return
    counts = {word: sum(_word(trial) == word for trial in record.trials) for word in _WORDS}
    shown = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no trials yet"
    now = time.time()
    typer.echo(f"{record.name} on {record.site}: {record.state}{': ' + record.message if record.message else ''}")
    typer.echo(f"{shown}; {record.planned} planned, {record.parallel} in parallel, sampler {record.sampler['name']}")
    typer.echo(f"as of {clock_time(record.updated, now)}{_ahead(record)}")
    if spent := _spent(record):
        typer.echo(spent)
    if record.slow_asks:
        times = "once" if record.slow_asks == 1 else f"{record.slow_asks} times"
        typer.echo(f"a slot has waited for the sampler for more than a second {times}")
    for line in best_lines(record):
        typer.echo(line)
    running = [trial for trial in record.trials if trial.state == "running"]
    if running:
        print_table(
            ("trial", "job", "submitted", "for", "step", "latest"),
            [row for trial in running for row in _rows(trial, now)],
        )
    if paused := [trial for trial in record.trials if trial.state == "paused"]:
        typer.echo(f"paused, to go on if they turn out to be among the best: {_aside(paused)}")
    for trial in running:
        if trial.reason:
            typer.echo(f"trial {trial.number} waits for something that may never come: {trial.reason}")
    failed = [trial for trial in record.trials if trial.state == "failed"]
    for trial in failed[-_FAILURES:]:
        typer.echo(f"trial {trial.number} failed: {trial.verdict}: {trial.reason}")
    if record.state in {"interrupted", "paused"}:
        message(f"survey resume {record.root} goes on with it")


_WORDS = ("complete", "infeasible", "pruned", "failed", "running", "paused", "not submitted yet", "waiting")
_FAILURES = 5
_PAUSED = 8
_LATEST = 20


def _word(trial: TrialRecord) -> str:
    """A trial's state; one that breaks a constraint is infeasible, and one that a driver has begun is not running before its job is there."""
    if trial.state == "complete" and not trial.feasible:
        return "infeasible"
    return "not submitted yet" if trial.state == "running" and not trial.job_id else trial.state


def _aside(paused: Sequence[TrialRecord]) -> str:
    """The trials that are set aside, each with its latest report."""
    words = [
        f"{trial.number} (step {max(trial.steps)}: {trial.steps[max(trial.steps)]:.4g})"
        for trial in paused
        if trial.steps
    ]
    return ", ".join(words[:_PAUSED]) + (f" and {len(paused) - _PAUSED} more" if len(paused) > _PAUSED else "")


def _rows(trial: TrialRecord, now: float) -> Iterator[tuple[str, ...]]:
    """A trial in flight, or each of its runs: its job, since when, and the latest report."""
    for run in trial.runs or (None,):
        job = trial if run is None else run
        step = "-" if not trial.steps else str(max(trial.steps))
        latest = "-" if not trial.steps else f"{trial.steps[max(trial.steps)]:.4g}"
        if run is not None and run.verdict is not None:
            latest = run.verdict
        yield (
            f"{trial.number}" if run is None else f"{trial.number} run {run.run}",
            job.job_id or "-",
            clock_time(job.submitted, now),
            span((job.ended or now) - job.submitted) if job.submitted else "-",
            step,
            latest,
        )


def _ahead(record: StudyRecord) -> str:
    """The end in sight: trials to come, by the mean time from submit to end of the latest, N at a time."""
    ended = record.finished
    spans = [trial.ended - trial.submitted for trial in ended[-_LATEST:] if trial.ended and trial.submitted]
    left = record.planned - len(ended) - _count_paused(record)
    if record.state != "running" or not spans or left < 1:
        return ""
    # The runs of a trial go side by side.
    width = max(1.0, record.parallel / max([1, *(len(trial.runs) for trial in ended)]))
    return f", about {span(sum(spans) / len(spans) * max(1.0, left / width))} to go"


def _count_paused(record: StudyRecord) -> int:
    return sum(trial.state == "paused" for trial in record.trials)


def _spent(record: StudyRecord) -> str:
    """What the study has used, and what it comes to at this rate; empty where nothing has ended."""
    kinds = {"GPU-hours": record.used.get("gpu_hours", 0.0), "node-hours": record.used.get("node_hours", 0.0)}
    used = {name: hours for name, hours in kinds.items() if hours > 0}
    if not used:
        return ""
    words = "used " + ", ".join(f"{hours:.3g} {name}" for name, hours in used.items())
    ended = len(record.finished) + _count_paused(record)  # most of these have used what they will use
    if record.state == "done" or not ended or ended >= record.planned:
        return words
    ahead = ", ".join(f"{hours * record.planned / ended:.3g} {name}" for name, hours in used.items())
    return f"{words}; at this rate {ahead} in all"


def clock_time(when: float | None, now: float) -> str:
    """A time of day where the reader is, with the date if that is another day."""
    if when is None:
        return "-"
    there, here = (datetime.fromtimestamp(each).astimezone() for each in (when, now))
    return there.strftime("%H:%M:%S" if there.date() == here.date() else "%Y-%m-%d %H:%M:%S")
