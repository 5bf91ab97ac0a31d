"""When an attempt that did not succeed is followed by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.model import Attempt, Verdict

__all__ = ["NEVER_RAN", "RetryPolicy"]

NEVER_RAN = "never-ran"
"""Note on an attempt whose claim the driver took: it cost nothing and does not count."""

_DEFAULTS = {
    Verdict.NODE_FAILURE: 3,
    Verdict.PREEMPTED: 5,
    Verdict.LOST: 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How many further attempts each verdict is worth; a verdict without a number is worth none."""

    limits: Mapping[Verdict, int] = field(default_factory=lambda: dict(_DEFAULTS))

    def again(self, attempts: Sequence[Attempt]) -> bool:
        """Whether the job is to run again after ``attempts``, the last of which has just ended."""
        last = attempts[-1].outcome
        if last is None or last.verdict in {Verdict.SUCCEEDED, Verdict.STOPPED}:
            return False
        if NEVER_RAN in attempts[-1].notes:
            return True
        same = [
            attempt
            for attempt in attempts
            if attempt.outcome is not None
            and attempt.outcome.verdict is last.verdict
            and NEVER_RAN not in attempt.notes
        ]
        return len(same) <= self.limits.get(last.verdict, 0)
