"""Time as a thing that is handed in, so that tests and simulations can have their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Clock", "SystemClock"]

T = TypeVar("T")


class Clock(Protocol):
    """What the driver asks of time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...

    async def blocking(self, function: Callable[[], T]) -> T:
        """Run something that blocks (a GP fit, a database write) without stopping the event loop."""
        ...


class SystemClock:
    """Real time; blocking work goes to a thread."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        await asyncio.sleep(seconds)

    async def blocking(self, function: Callable[[], T]) -> T:
        """Run ``function`` in a thread and return what it returns."""
        return await asyncio.to_thread(function)
