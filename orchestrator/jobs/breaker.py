"""A study that only fails stops: submits that come to nothing, attempts that die as soon as they begin.

A wrong path or a broken node would else spend a whole budget in a minute. Limits of a queue are no
failures: whoever is told "later" waits.
"""

from __future__ import annotations

from orchestrator.errors import Paused
from orchestrator.model import Attempt, Outcome, Verdict

__all__ = ["INSTANT", "Breaker"]

INSTANT = 10.0
"""An attempt that fails within so many seconds of its start has died at once."""

_FAULTS = {Verdict.FAILED, Verdict.NODE_FAILURE, Verdict.OUT_OF_MEMORY, Verdict.LOST}
_RESULTS = {Verdict.SUCCEEDED, Verdict.STOPPED, Verdict.PAUSED}


class Breaker:
    """Counts failures in a row on one site; once there are too many, nothing more begins.

    Parameters
    ----------
    submits : int
        Submits in a row that come to nothing; those that were under way together count once. 0: no limit.
    deaths : int
        Attempts in a row that die at once; 0: no limit.
    """

    def __init__(self, *, submits: int = 5, deaths: int = 0) -> None:
        self._most_submits = submits
        self._most_deaths = deaths
        self._submits = 0
        self._deaths = 0
        self._vain_since = float("-inf")
        self._words = ""

    def accepted(self) -> None:
        """The scheduler has taken a job."""
        self._submits = 0

    def in_vain(self, attempt: Attempt, reason: str, now: float) -> None:
        """The submit of ``attempt`` was seen to have come to nothing."""
        if attempt.planned < self._vain_since:
            return  # its submit was under way when the last failure was not known yet
        self._submits += 1
        self._vain_since = now
        self._words = reason

    def ended(self, outcome: Outcome) -> None:
        """An attempt has ended."""
        if outcome.verdict in _RESULTS:
            self._deaths = 0
        elif outcome.verdict in _FAULTS and (seconds := _ran(outcome)) is not None:
            self._deaths = self._deaths + 1 if seconds < INSTANT else 0
            self._words = f"{outcome.key}: {outcome.reason}, in {outcome.directory}"

    def check(self) -> None:
        """Let the next attempt begin.

        Raises
        ------
        Paused
            If there were too many failures in a row.
        """
        if 0 < self._most_submits <= self._submits:
            raise Paused(
                f"{self._submits} submits in a row came to nothing; the last one: {self._words}",
                hint="see with the scheduler's own commands what is wrong, then `survey run` goes on; nothing was lost",
            )
        if 0 < self._most_deaths <= self._deaths:
            raise Paused(
                f"{self._deaths} attempts in a row died within {INSTANT:.0f} s of their start;"
                f" the last one: {self._words}",
                hint="mend the cause, then `survey run` goes on; `survey retry TRIAL...` runs failed trials again",
            )


def _ran(outcome: Outcome) -> float | None:
    """Seconds that the program ran; None where nobody can tell."""
    if outcome.started is not None and outcome.ended is not None:
        return outcome.ended - outcome.started
    # A job that failed before its agent began; one that vanished may have run for hours.
    return 0.0 if outcome.verdict is Verdict.FAILED else None
