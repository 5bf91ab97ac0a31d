"""Time that passes only where it is waited for."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.clock import SystemClock

__all__ = ["JumpingClock"]


class JumpingClock(SystemClock):
    """Nothing takes time but sleeps, which are written down; ``before_wake`` is called at the end of each."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.before_wake: Callable[[], None] = lambda: None

    def now(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.before_wake()
