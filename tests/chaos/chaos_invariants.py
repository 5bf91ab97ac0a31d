"""What holds after every fault, once a driver has run again and the cluster has drained.

Each invariant is a function from the `Evidence` to its violations in words. What jobs did is counted
on their side, in a list that neither the driver nor the study's folder can reach.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import SurveyError
from orchestrator.jobs.life import ABORTED
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.model import Attempt, Verdict
from orchestrator.search.layout import trial_key
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import TrialRecord
from orchestrator.store.studydb import read_trials

__all__ = ["INVARIANTS", "Evidence", "History", "Ran", "history", "metrics_of", "violations"]

History = Sequence[tuple[int, str, Mapping[str, Any], Sequence[float] | None]]

_WORTH_ANOTHER = {
    Verdict.NODE_FAILURE,
    Verdict.PREEMPTED,
    Verdict.LOST,
    Verdict.TIMEOUT,
    Verdict.OUT_OF_MEMORY,
    Verdict.REQUEUE_REQUESTED,
    Verdict.REJECTED,
    Verdict.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Ran:
    """One start of a trial's program; ``whole``: it came to its end by itself."""

    tag: str
    job: str
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is left of a study, and what the world outside it has seen.

    Attributes
    ----------
    root : Path
        The study's folder.
    trials : int
        The budget.
    executions : sequence of Ran
        All starts of the program in their order, counted by the jobs or by the cluster.
    results : mapping
        The metrics that each execution wrote, by tag; what wrote none is missing.
    queue : sequence of str
        Jobs of the study that are still in the queue, or run.
    harmed : sequence of str
        Jobs of others that somebody has cancelled.
    undisturbed : History or None
        Where the faults must be invisible: the history of a study that met none.
    secret : str
        What must be in no file.
    elsewhere : mapping
        Content of the study's files outside its folder, by name.
    commands, hours : float
        Commands that the scheduler was given, and for how long drivers lived.
    """

    root: Path
    trials: int
    executions: Sequence[Ran]
    results: Mapping[str, Mapping[str, Any]]
    name: str = "chaos"
    url: str | None = None
    objective: str = "m"
    queue: Sequence[str] = ()
    harmed: Sequence[str] = ()
    undisturbed: History | None = None
    secret: str = ""
    elsewhere: Mapping[str, bytes] = field(default_factory=dict)
    commands: float = 0.0
    hours: float = 0.0

    def told(self) -> tuple[TrialRecord, ...]:
        """The trials in the study's database."""
        return read_trials(self.root, name=self.name, url=self.url)

    def attempts(self, number: int) -> tuple[Attempt, ...]:
        """The attempts of a trial in the ledger."""
        return Ledger(self.root).attempts(trial_key(number))


def history(trials: Sequence[TrialRecord]) -> History:
    """What a study comes to, without the times and places of it."""
    return [(trial.number, trial.state, dict(trial.params), trial.values) for trial in trials]


def violations(evidence: Evidence) -> list[str]:
    """All that is wrong, each with the invariant that says so."""
    try:
        trials = evidence.told()
    except SurveyError as error:
        return [f"INV7: {error.message}"]
    return [f"{name}: {words}" for name, broken in INVARIANTS.items() for words in broken(evidence, trials)]


Trials = Sequence[TrialRecord]


def every_trial_has_an_end(_evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV1: every trial asked for ends complete, pruned or failed with a reason."""
    for trial in trials:
        if trial.state not in {"complete", "pruned", "failed"}:
            yield f"trial {trial.number} is {trial.state}"
        elif trial.state == "failed" and not (trial.reason and trial.verdict):
            yield f"trial {trial.number} failed without a reason"


def one_value_and_the_right_one(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV2: at most one complete per trial, its value that of the attempt that was current."""
    if len({trial.number for trial in trials}) < len(trials):
        yield "two trials have one number"
    for trial in trials:
        attempts = evidence.attempts(trial.number)
        sound = [each for each in attempts if each.outcome is not None and each.outcome.succeeded]
        if len(sound) != int(trial.state == "complete"):
            yield f"trial {trial.number} is {trial.state}, and {len(sound)} of its attempts succeeded"
        if trial.state != "complete" or not sound:
            continue
        if sound[0] is not attempts[-1]:
            yield f"trial {trial.number} is complete by attempt {sound[0].number} of {len(attempts)}"
        wrote = evidence.results.get(sound[0].tag)
        if wrote is None:
            yield f"trial {trial.number} is complete, and its attempt {sound[0].tag} wrote no result"
        elif trial.values != (wrote[evidence.objective],) or any(
            trial.metrics.get(name) != value for name, value in wrote.items()
        ):
            yield f"trial {trial.number} has {trial.values}, {dict(trial.metrics)}; its attempt wrote {dict(wrote)}"


def nothing_is_left_open(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV3: no trial is left running or waiting, no attempt without an outcome."""
    for trial in trials:
        if trial.state in {"running", "waiting", "paused"}:
            yield f"trial {trial.number} is left {trial.state}"
        for attempt in evidence.attempts(trial.number):
            if attempt.outcome is None:
                yield f"attempt {attempt.number} of trial {trial.number} has no outcome"


def the_budget_is_exact(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV4: N trials asked for are N trials."""
    if [trial.number for trial in trials] != list(range(evidence.trials)):
        yield f"{len(trials)} trials for a budget of {evidence.trials}: {[trial.number for trial in trials]}"
    planned = {key for key in Ledger(evidence.root).keys()}  # noqa: SIM118, C416  a ledger is no dict
    if strange := planned - {trial_key(number) for number in range(evidence.trials)}:
        yield f"the ledger has attempts of {sorted(strange)}"


def no_orphan_and_no_harm(evidence: Evidence, _trials: Trials) -> Iterator[str]:
    """INV5: no orphan of ours in the queue, no job of others touched."""
    yield from (f"left in the queue: {job}" for job in evidence.queue)
    yield from (f"a job of others was cancelled: {job}" for job in evidence.harmed)


def nothing_ran_twice(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV6: executions never exceed what the attempt files record, and are 1 where no retry was due."""
    starts: dict[str, list[Ran]] = {}
    for ran in evidence.executions:
        starts.setdefault(ran.tag, []).append(ran)
    known: set[str] = set()
    for trial in trials:
        attempts = evidence.attempts(trial.number)
        known.update(attempt.tag for attempt in attempts)
        for before, attempt in itertools.pairwise(attempts):
            if not _another_was_due(before):
                yield f"attempt {attempt.number} of trial {trial.number} was not due: {_how(before)}"
        for attempt in attempts:
            runs = starts.get(attempt.tag, [])
            if NEVER_RAN in attempt.notes and runs:
                yield f"{attempt.tag} counts as never run, and ran {len(runs)} times"
            if any(ran.whole for ran in runs[:-1]) or len({ran.job for ran in runs}) > 1:
                yield f"{attempt.tag} ran {len(runs)} times, and not because its scheduler lost it: {runs}"
        to_the_end = [each for each in attempts if each.outcome is None or each.outcome.verdict is not Verdict.PAUSED]
        useful = [each.tag for each in to_the_end if any(ran.whole for ran in starts.get(each.tag, ()))]
        useful = [tag for tag in useful if evidence.objective in evidence.results.get(tag, ())]
        if len(useful) > 1:
            yield f"trial {trial.number} came to a result more than once: {useful}"
        if trial.state == "complete" and not starts.get(attempts[-1].tag if attempts else ""):
            yield f"trial {trial.number} is complete, and nobody saw it run"
    if strange := starts.keys() - known:
        yield f"programs ran that the ledger knows nothing of: {sorted(strange)}"


def _another_was_due(attempt: Attempt) -> bool:
    outcome = attempt.outcome
    by_itself = outcome is not None and outcome.verdict in _WORTH_ANOTHER
    return by_itself or not {NEVER_RAN, ABORTED}.isdisjoint(attempt.notes)


def _how(attempt: Attempt) -> str:
    return "the one before has no outcome" if attempt.outcome is None else f"the one before {attempt.outcome.verdict}"


def the_database_opens_again(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV7: the database opens twice, whole; ``chaos_fresh.py`` does it in fresh processes."""
    if history(evidence.told()) != history(trials):
        yield "the database says something else when it is opened again"
    if evidence.url is None:
        with sqlite3.connect(f"file:{evidence.root / 'study.db'}?mode=ro", uri=True) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        if found != "ok":
            yield f"SQLite finds: {found}"


def the_history_is_the_same(evidence: Evidence, trials: Trials) -> Iterator[str]:
    """INV8: where the faults must be invisible, the same history as the undisturbed study of that seed."""
    if evidence.undisturbed is None:
        return
    for here, there in zip(history(trials), evidence.undisturbed, strict=False):
        if here != there:
            yield f"trial {here[0]} is {here[1:]}, undisturbed it is {there[1:]}"


def nothing_is_shown(evidence: Evidence, _trials: Trials) -> Iterator[str]:
    """INV9: no secret in any file or log; what the driver makes is its user's alone."""
    secret = evidence.secret.encode()
    for folder, folders, files in os.walk(evidence.root):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            if status.st_mode & 0o077:
                yield f"{path.relative_to(evidence.root)} has mode {status.st_mode & 0o777:04o}"
            if secret and path.is_file() and secret in path.read_bytes():
                yield f"the secret is in {path.relative_to(evidence.root)}"
    if secret:
        yield from (f"the secret is in {name}" for name, content in evidence.elsewhere.items() if secret in content)


def it_is_bounded(evidence: Evidence, _trials: Trials) -> Iterator[str]:
    """INV10: drivers do not wear the scheduler out, however they came to their end."""
    most = 60.0 + 40.0 * evidence.trials + 600.0 * evidence.hours
    if evidence.commands > most:
        yield f"{evidence.commands:g} commands in {evidence.hours:.1f} h, more than {most:.0f}"


INVARIANTS: Mapping[str, Callable[[Evidence, Trials], Iterator[str]]] = {
    "INV1": every_trial_has_an_end,
    "INV2": one_value_and_the_right_one,
    "INV3": nothing_is_left_open,
    "INV4": the_budget_is_exact,
    "INV5": no_orphan_and_no_harm,
    "INV6": nothing_ran_twice,
    "INV7": the_database_opens_again,
    "INV8": the_history_is_the_same,
    "INV9": nothing_is_shown,
    "INV10": it_is_bounded,
}
"""The invariants by name, each with its violations in words."""


def metrics_of(text: bytes | None) -> Mapping[str, Any] | None:
    """The metrics in a result.json; None where there is none, or none that is whole."""
    try:
        data = json.loads(text or b"")
    except ValueError:
        return None
    found = data.get("metrics") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else None
