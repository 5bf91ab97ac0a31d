"""An event loop whose time jumps to the next timer, so that a week of queueing takes a moment.

Nothing real may be waited for in it (no sockets, no processes): such a wait would last for ever, and
is refused. Blocking work runs inline, or the clock would run away while a thread works.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualClock", "run_virtual"]

T = TypeVar("T")

_EPOCH = 1_800_000_000.0


class _Jumping(selectors.DefaultSelector):
    """A selector that lets time pass instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready files, if any; else jump over ``timeout``."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("virtual time stands still: every task waits for something that no timer brings")
            self.elapsed += max(0.0, timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.elapsed


class VirtualClock:
    """A `Clock` in the virtual loop; to be used inside `run_virtual`."""

    def now(self) -> float:
        """Virtual seconds since the epoch."""
        return _EPOCH + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass."""
        await asyncio.sleep(seconds)

    async def blocking(self, function: Callable[[], T]) -> T:
        """Run ``function`` inline; other tasks get their turn before it."""
        await asyncio.sleep(0)
        return function()


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end in virtual time."""
    loop = _Loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        for task in (tasks := asyncio.all_tasks(loop)):
            task.cancel()
        # Half-way through its work a coroutine still has things to let go of.
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
