"""What a driver does beside its slots: notes, reports and the like, which nobody waits for but a trial's end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from orchestrator.errors import SurveyError

__all__ = ["Chores"]


class Chores:
    """Tasks in the background.

    Parameters
    ----------
    blocking : callable
        Runs a function that blocks, and may be awaited for its result.
    """

    def __init__(self, blocking: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._blocking = blocking
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

    async def of(self, number: int) -> None:
        """Wait for what is left to write of one trial."""
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
