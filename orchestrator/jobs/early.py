"""An attempt that is to end early: pruned for good, or paused to go on later from its checkpoint.

The wish is a note in the ledger before the program hears of it, so that a driver that takes the attempt
over knows what its end means.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.model import Attempt, Outcome, Verdict

__all__ = ["Early", "Wish", "granted", "wish_of"]


class Early(StrEnum):
    """How an attempt is to end early."""

    PRUNE = "pruned"
    """Nobody wants to know more of its trial."""

    PAUSE = "paused"
    """It makes room for others; its trial may go on in another attempt."""


# Ends by which a program obeys, and those that took its place before it could.
_OBEYED = {Verdict.STOPPED, Verdict.REQUEUE_REQUESTED}
_OVERTAKEN = {Verdict.TIMEOUT, Verdict.PREEMPTED, Verdict.NODE_FAILURE, Verdict.LOST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted, and why in words: ``at step 3: 0.9 is above the median``."""

    how: Early
    words: str

    def __str__(self) -> str:
        return f"{self.how} {self.words}"


def wish_of(attempt: Attempt) -> Wish | None:
    """The wish that was noted with an attempt; None if it may run to its end."""
    for note in attempt.notes:
        how, _, words = note.partition(" ")
        if words and how in set(Early):
            return Wish(how=Early(how), words=words)
    return None


def granted(wish: Wish, outcome: Outcome) -> Outcome:
    """The outcome of an attempt of which ``wish`` was noted.

    A program that came to its own end before it heard of the wish has succeeded all the same. One
    that was to be pruned is not run again, whatever ended it: nobody waits for its result.
    """
    if outcome.succeeded:
        return outcome
    obeyed = outcome.verdict in _OBEYED or (outcome.verdict is Verdict.FAILED and outcome.exit_code == 0)
    reason = str(wish) if obeyed else f"{wish}; then it ended as {outcome.verdict}: {outcome.reason}"
    if wish.how is Early.PRUNE:
        return dataclasses.replace(outcome, verdict=Verdict.STOPPED, reason=reason)
    if obeyed or outcome.verdict in _OVERTAKEN:
        return dataclasses.replace(outcome, verdict=Verdict.PAUSED, reason=reason)
    return outcome
