"""What goes wrong with a scheduler's commands, by plan: at a call's number, in a span of time, or by chance.

A fault is named for what the driver meets. Those of the first group happen instead of the command's
work, those of the second spoil the answer of work that was done.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UsageError

__all__ = ["FAULTS", "INSTEAD", "Fault", "FaultPlan"]

INSTEAD = {
    "hang": "no answer at all, and nothing done",
    "down": "the server is down, in its own words",
    "busy": "refused for now: the server is overloaded",
    "limit": "refused for now: the user's queue limit",
    "refused": "refused for good",
    "fails": "a return code and a message that no table has",
}
_SPOILED = {
    "reply-lost": "the work is done and no answer comes",
    "timed-out": "the work is done and the answer is the scheduler's own time-out message",
    "banner": "the answer is right, with a site's notices before and after it, and a warning on stderr",
    "silent": "return code 0 and not a word",
    "garbage": "return code 0 and noise",
    "cut": "return code 0 and the first half of the answer",
    "lost-code": "the answer is right, but its return code is not known",
    "missing-job": "one running job is missing from the list",
    "half-list": "every second job is missing from the list, which is whole otherwise",
    "odd-word": "each state is a word that no manual has",
    "bad-json": "PBS's JSON as deployed versions print it: bare leading zeros, bad escapes",
    "torn-json": "PBS's JSON with an unescaped quote: nothing mends it",
}
FAULTS = {**INSTEAD, **_SPOILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault, and when it happens.

    Attributes
    ----------
    command : str
        The program (``sacct``) or its role: ``submit``, ``query``, ``history``, ``find``, ``cancel``,
        or ``any``.
    kind : str
        A name in `FAULTS`.
    calls : collection of int or None
        Numbers (from 1) of the calls of this command that it hits; None for all.
    since, until : float
        Seconds after the cluster's beginning between which it happens.
    chance : float
        Probability for each call that it could hit.
    """

    command: str
    kind: str
    calls: Collection[int] | None = None
    since: float = 0.0
    until: float = float("inf")
    chance: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            close = difflib.get_close_matches(self.kind, FAULTS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(FAULTS)}."
            raise UsageError(f"there is no fault {self.kind!r}", hint=hint)


@dataclass(slots=True)
class FaultPlan:
    """The faults of one cluster, drawn from one seed.

    Attributes
    ----------
    happened : Counter
        How often each ``(command, kind)`` has happened.
    """

    faults: Sequence[Fault] = ()
    seed: int = 0
    happened: Counter[tuple[str, str]] = field(default_factory=Counter)
    _calls: Counter[str] = field(default_factory=Counter)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def pick(self, program: str, roles: Collection[str], elapsed: float) -> str | None:
        """The fault of this call, the first in the plan that applies; None if there is none.

        Parameters
        ----------
        roles : collection of str
            What the program does here.
        elapsed : float
            Seconds since the cluster's beginning.
        """
        names = (program, *roles, "any")
        for name in names:
            self._calls[name] += 1
        for fault in self.faults:
            if fault.command not in names or not fault.since <= elapsed < fault.until:
                continue
            if fault.calls is not None and self._calls[fault.command] not in fault.calls:
                continue
            if fault.chance < 1.0 and self._rng.random() >= fault.chance:
                continue
            self.happened[fault.command, fault.kind] += 1
            return fault.kind
        return None

    def calls(self, command: str) -> int:
        """How often a program, or one of a role, was called."""
        return self._calls[command]
