"""Failed trials that are asked for again: a new trial each, in the same place of the budget.

The new one waits in the database with the failed one's parameters, and names it. From that one write on
the failed one counts no more, and the next ask takes the new one up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from orchestrator.errors import UsageError
from orchestrator.store.trials import WORDS, retries

if TYPE_CHECKING:
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["failed_trials", "retry_trials"]


def failed_trials(database: StudyDatabase) -> tuple[int, ...]:
    """Numbers of the failed trials that nobody has asked for again."""
    trials = database.trials()
    again = retries(trials)
    return tuple(trial.number for trial in trials if trial.state == TrialState.FAIL and trial.number not in again)


def retry_trials(database: StudyDatabase, numbers: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Ask for failed trials again, all of them or none.

    Returns
    -------
    list of (int, int)
        Each trial, and the one that takes its place.

    Raises
    ------
    UsageError
        If one of them is not there, has not failed, or was asked for again already.
    """
    numbers = list(dict.fromkeys(numbers))
    trials = {trial.number: trial for trial in database.trials()}
    again = retries(trials.values())
    for number in numbers:
        if number not in trials:
            hint = f"its trials are 0 to {len(trials) - 1}" if trials else "it has none yet"
            raise UsageError(f"the study has no trial {number}", hint=hint)
        if number in again:
            raise UsageError(
                f"trial {number} was asked for again already, as trial {again[number]}",
                hint="`survey run` takes it up; if that one fails too, name it in its turn",
            )
        if trials[number].state != TrialState.FAIL:
            raise UsageError(
                f"trial {number} is {WORDS[trials[number].state]}",
                hint="only a failed trial is asked for again; see `survey status`",
            )
    return [(number, database.enqueue(trials[number].params, retry_of=number)) for number in numbers]
