"""The study database made again from the attempt files, where it was lost or damaged.

The ledger knows every trial that was ever submitted: its parameters, its attempts, how they ended and
what they measured. The last snapshot fills in what it never saw: when a trial was asked for, its
intermediate values, a trial that was asked for and not planned yet. What nobody knows of is asked for
again, under its old number.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import SurveyError
from orchestrator.store.database import describe
from orchestrator.store.definition import find_or_make
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger
from orchestrator.store.replacing import put_in_place
from orchestrator.store.snapshot import published
from orchestrator.store.trials import (
    CONSTRAINTS,
    FIXED,
    RETRY_OF,
    SEAL,
    SPREAD,
    STATES,
    USED,
    WORDS,
    Ending,
    last_value,
    new_trial,
    parted,
    run_name,
    utc,
)

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from orchestrator.model import Attempt, Json
    from orchestrator.store.record import TrialRecord

__all__ = ["Rebuilt", "rebuild"]

_ENDED = {"complete", "pruned", "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What `rebuild` made.

    Attributes
    ----------
    place : str
        The new database, in words that may be shown.
    kept : str
        Where the old one is; empty if there was none.
    trials : Counter
        Number of trials by state, in the words of `TrialRecord.state`.
    unknown : tuple of int
        Trials of which nothing is known but that they were: they wait to be asked for again.
    """

    place: str
    kept: str
    trials: Counter[str]
    unknown: tuple[int, ...]


def rebuild(
    root: Path,
    *,
    name: str,
    directions: Sequence[str],
    definition: Mapping[str, Json],
    suggest: Callable[[Any], Mapping[str, Json]],
    ended: Callable[[Mapping[str, Sequence[Attempt]], bool], Ending | None],
    url: str | None = None,
    clock: Clock | None = None,
) -> Rebuilt:
    """Make the database of the study in ``root`` again; the old one is never opened, and kept by another name.

    The new one is made beside the old one and takes its place at the end, so that a stop at any point
    loses nothing and this can be done again.

    Parameters
    ----------
    name, directions, definition, url :
        As for `orchestrator.store.studydb.StudyDatabase.open`.
    suggest : callable
        As for `orchestrator.store.studydb.StudyDatabase.ask`: it says how each parameter is distributed.
    ended : callable
        Told the attempts of a trial's runs, in order, by the runs' keys, and whether readers have seen its end;
        says how it ended, None if it has not, or if a driver is to decide that.

    Raises
    ------
    HeldByAnother
        A driver works on the study.
    SurveyError
        An attempt file cannot be read, or does not fit the study.
    Paused, UsageError
        The new database cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clock = clock or SystemClock()
    with Lease.acquire(root, clock):
        trials = _trials(root, suggest, ended, clock.now())
        mark = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock.now()))

        def fill(storage: BaseStorage, called: str, place: str, *, alone: bool) -> None:
            study_id = find_or_make(storage, called, list(directions), definition, place, alone=alone)
            for trial in trials:
                storage.create_new_trial(study_id, template_trial=trial)

        kept = put_in_place(url, root, name, mark, fill)
    return Rebuilt(
        place=describe(url, root),
        kept=kept,
        trials=Counter(WORDS[trial.state] for trial in trials),
        unknown=tuple(trial.number for trial in trials if trial.system_attrs.get(FIXED) == {}),
    )


# --- what is known


def _trials(
    root: Path,
    suggest: Callable[[Any], Mapping[str, Json]],
    ended: Callable[[Mapping[str, Sequence[Attempt]], bool], Ending | None],
    now: float,
) -> list[FrozenTrial]:
    ledger = Ledger(root)
    keys: dict[int, list[str]] = {}
    for key in ledger.keys():  # noqa: SIM118 - a ledger is no dict
        head = key.partition("/")[0]
        if head.isdecimal():
            keys.setdefault(int(head), []).append(key)
    snapshot = published(root)
    shown = {} if snapshot is None else {trial.number: trial for trial in snapshot.trials}
    trials = []
    for number in range(1 + max([*keys, *shown], default=-1)):
        of = keys.get(number, [])
        record = shown.get(number)
        if of:
            runs = {key: ledger.attempts(key) for key in of}
            every = [attempt for attempts in runs.values() for attempt in attempts]
            trial = _asked(number, ledger.params(of[0]), suggest, record, min(attempt.planned for attempt in every))
            for key, attempts in runs.items():
                _note_job(trial, key.partition("/")[2] or "job", attempts)
            seen = record is not None and record.state in _ENDED
            if (ending := ended(runs, seen)) is not None:
                last = [attempt.outcome.ended for attempt in every if attempt.outcome and attempt.outcome.ended]
                _end(trial, ending, max(last, default=None), now)
        elif record is not None and record.state != "waiting" and record.params:
            trial = _asked(number, record.params, suggest, record, now)
            if record.state in _ENDED:
                _end(trial, _shown_ending(record), record.ended, now)
        else:
            trial = _waiting(number, {} if record is None else record.params)
            if record is not None and record.retry_of is not None:
                trial.user_attrs[RETRY_OF] = record.retry_of
        trials.append(trial)
    return trials


def _asked(
    number: int,
    params: Mapping[str, Json],
    suggest: Callable[[Any], Mapping[str, Json]],
    record: TrialRecord | None,
    planned: float,
) -> FrozenTrial:
    """A running trial, as the ask had left it."""
    fixed = FixedTrial(dict(params), number=number)
    try:
        found = dict(suggest(fixed))
    except (KeyError, ValueError) as error:
        raise SurveyError(
            f"trial {number} has parameters that do not fit the study: {dict(params)} ({error})",
            hint="see whether study.yaml in the study's folder is the one that it was begun with",
        ) from error
    created = planned if record is None or record.created is None else record.created
    trial = new_trial(number, created)
    trial.distributions = dict(fixed.distributions)
    trial.params = {each: params[each] for each in trial.distributions}
    survey: dict[str, Json] = {"created": created}
    if found != trial.params:
        survey["params"] = found
    if record is not None:
        if record.retry_of is not None:
            trial.user_attrs[RETRY_OF] = record.retry_of
        if record.ask_seconds is not None:
            trial.user_attrs["ask_seconds"] = record.ask_seconds
        trial.intermediate_values = dict(record.steps)
    trial.user_attrs[SEAL] = survey
    return trial


def _waiting(number: int, params: Mapping[str, Json]) -> FrozenTrial:
    """A trial that the next ask takes up; what ``params`` leave out is sampled."""
    trial = new_trial(number, 0.0)
    trial.state = TrialState.WAITING
    trial.datetime_start = None
    trial.system_attrs = {FIXED: dict(params)}
    return trial


def _note_job(trial: FrozenTrial, name: str, attempts: Sequence[Attempt]) -> None:
    for attempt in reversed(attempts):
        if attempt.job_id is not None:
            trial.user_attrs[name] = {
                "job_id": attempt.job_id,
                "attempt": attempt.number,
                "submitted": attempt.submitted,
            }
            return


def _end(trial: FrozenTrial, ending: Ending, ended: float | None, now: float) -> None:
    trial.state = STATES[ending.state]
    trial.values = None if ending.values is None else [float(value) for value in ending.values]
    if ending.state == "pruned" and ending.values is None and (last := last_value(trial)) is not None:
        trial.values = [last]
    trial.datetime_complete = utc(now if ended is None else ended)
    user, system = parted(ending.attributes)
    trial.user_attrs.update({each: value for each, value in user.items() if value not in (None, "", {}, [])})
    trial.system_attrs.update(system)


def _shown_ending(record: TrialRecord) -> Ending:
    """The ending of a trial whose attempt files were removed, as readers saw it."""
    outcome: dict[str, Json] = {
        "verdict": record.verdict,
        "reason": record.reason,
        "attempts": record.attempts,
        "job_id": record.job_id,
        "host": record.host,
        "gpus": list(record.gpus),
        "max_rss": record.max_rss,
        "gpu_memory": record.gpu_memory,
        "submitted": record.submitted,
        "started": record.started,
        "ended": record.ended,
        "directory": record.directory,
    }
    attributes: dict[str, Json] = {
        "outcome": outcome,
        "metrics": dict(record.metrics),
        "info": dict(record.info),
        USED: dict(record.used),
        SPREAD: dict(record.spread),
        **{run_name(run.run): dataclasses.asdict(run) for run in record.runs},
    }
    attributes[CONSTRAINTS] = dict(record.constraints)
    return Ending(state=record.state, values=record.values, attributes=attributes)
