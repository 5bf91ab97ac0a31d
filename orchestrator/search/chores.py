"""What a driver does beside its slots: notes, reports and the like, which nobody waits for but a trial's end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SurveyError

if TYPE_CHECKING:
    from orchestrator.clock import Clock
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["Chores"]

_REPORT_PAUSE = 1.0


class Chores:
    """Tasks in the background.

    Parameters
    ----------
    blocking : callable
        Runs a function that blocks, and may be awaited for its result.
    runs : int
        How many runs a trial has.
    """

    def __init__(self, clock: Clock, blocking: Callable[[Callable[[], None]], Awaitable[None]], *, runs: int) -> None:
        self._clock = clock
        self._blocking = blocking
        self._runs = runs
        self._steps: dict[int, dict[int, dict[int, float]]] = {}  # of trials in flight: values by step and run
        self._reported: dict[int, float] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    def add(self, work: Coroutine[Any, Any, object], name: str | None = None) -> None:
        """Begin ``work``."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def later(self, number: int, write: Callable[[], None]) -> None:
        """Write something of a running trial without making anybody wait; its end comes after it (see `of`)."""

        async def written() -> None:
            await self._blocking(write)

        self.add(written(), name=str(number))

    def report(self, database: StudyDatabase, number: int, run: int, step: int, value: float) -> None:
        """Write an intermediate value, of several runs their mean once all of them have come to that step.

        Of a program that reports ten thousand steps not all are written.
        """
        if self._runs > 1:
            of_step = self._steps.setdefault(number, {}).setdefault(step, {})
            of_step[run] = value
            if len(of_step) < self._runs:
                return
            value = fmean(of_step.values())
        now = self._clock.now()
        if now - self._reported.get(number, -1e9) < _REPORT_PAUSE:
            return
        self._reported[number] = now
        self.later(number, lambda: database.report(number, step, value))

    def steps(self, number: int, run: int) -> dict[str, float]:
        """What one of a trial's several runs has reported so far, by step."""
        return {str(step): of_step[run] for step, of_step in self._steps.get(number, {}).items() if run in of_step}

    def take_up(self, number: int, run: int, steps: Mapping[str, float]) -> None:
        """What a run has reported to an earlier driver, as `steps` gave it."""
        for step, value in steps.items():
            self._steps.setdefault(number, {}).setdefault(int(step), {})[run] = value

    async def of(self, number: int) -> None:
        """Wait for what is left to write of one trial, which has ended."""
        self._steps.pop(number, None)
        await asyncio.gather(*[task for task in self._tasks if task.get_name() == str(number)])

    async def done(self) -> None:
        """Wait for all of them, whatever becomes of them."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, chore: asyncio.Task[object]) -> None:
        self._tasks.discard(chore)
        error = None if chore.cancelled() else chore.exception()
        # What is told in words stops the next write too, and is told then; only a bug is for asyncio to show.
        if isinstance(error, Exception) and not isinstance(error, SurveyError):
            chore.get_loop().call_exception_handler({"message": "a chore of the driver failed", "exception": error})
