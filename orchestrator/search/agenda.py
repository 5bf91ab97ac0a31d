"""What is to be run next: the runs of trials that were asked for, in the order in which slots take them.

A trial has one run, or several (`repeats`), each a job of its own. It is over when all its runs have ended well,
or as soon as one has not: then those that nobody has begun are struck off, and the others are to be ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.model import Json, Outcome

__all__ = ["Agenda", "Item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One run of a trial; ``run`` counts from 1, and attempts up to ``beyond`` that were paused are no end of it."""

    number: int
    params: Mapping[str, Json]
    run: int = 1
    beyond: int = 0


@dataclass(slots=True, eq=False)
class _Open:
    """A trial that is not over: its runs that slots have, and how the others ended."""

    taken: dict[int, Item] = field(default_factory=dict)
    ended: dict[int, Outcome] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        return any(not outcome.succeeded for outcome in self.ended.values())


class Agenda:
    """The runs that are to be begun, and those in flight.

    Parameters
    ----------
    runs : int
        How many each trial has.
    """

    def __init__(self, runs: int = 1) -> None:
        self._runs = range(1, runs + 1)
        self._ready: deque[Item] = deque()
        self._open: dict[int, _Open] = {}

    @property
    def ready(self) -> Sequence[Item]:
        """What waits for a slot, the next one first."""
        return tuple(self._ready)

    def add(self, number: int, params: Mapping[str, Json], ended: Mapping[int, Outcome] | None = None) -> None:
        """Put a trial's runs at the end, but for those that have ended already."""
        trial = self._open[number] = _Open(ended=dict(ended or {}))
        self._ready.extend(Item(number=number, params=params, run=run) for run in self._runs if run not in trial.ended)

    def go_on(self, number: int, params: Mapping[str, Json], beyond: int) -> None:
        """Put a trial of one run at the end whose attempt ``beyond`` was paused."""
        self._open[number] = _Open()
        self._ready.append(Item(number=number, params=params, beyond=beyond))

    def set_aside(self, item: Item) -> None:
        """Let go of a trial of one run that has neither ended nor is to be run now."""
        del self._open[item.number]

    def take(self) -> Item | None:
        """The next run, for the slot that runs it; None where nothing waits."""
        if not self._ready:
            return None
        item = self._ready.popleft()
        self._open[item.number].taken[item.run] = item
        return item

    def strike(self, number: int, *, but: Sequence[int] = ()) -> None:
        """Have those runs of a trial that no slot has taken never begin, ``but`` these."""
        self._ready = deque(item for item in self._ready if item.number != number or item.run in but)

    def ended(self, item: Item, outcome: Outcome) -> None:
        """A run has ended."""
        trial = self._open[item.number]
        trial.taken.pop(item.run, None)
        trial.ended[item.run] = outcome
        if trial.lost:
            self.strike(item.number)

    def lost(self, number: int) -> bool:
        """Whether one of a trial's runs has ended without a result, so that the others are for nothing."""
        return self._open[number].lost

    def in_flight(self, number: int) -> tuple[Item, ...]:
        """A trial's runs that slots have taken and that have not ended."""
        return tuple(self._open[number].taken.values())

    def close(self, number: int) -> Mapping[int, Outcome] | None:
        """How a trial's runs have ended, by run, once that is all of them; None while some are to come."""
        trial = self._open[number]
        if trial.taken or any(item.number == number for item in self._ready):
            return None
        del self._open[number]
        return dict(sorted(trial.ended.items()))
