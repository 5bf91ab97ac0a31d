"""How a driver comes to its end before its study does: it drains, leaves, cancels, or was there for one pass only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.search.assignment import cancel_in_flight
from orchestrator.search.requests import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.clock import Clock
    from orchestrator.config.study import Study
    from orchestrator.jobs.fleet import Fleet
    from orchestrator.search.requests import StopRequest

__all__ = ["Departure"]

_PASS_LOOK = 0.5


class Departure:
    """What is wished of a driver's end.

    Attributes
    ----------
    draining : bool
        No new trials are to be begun.
    cancelling : bool
        Jobs in flight are to be cancelled when the driver leaves.
    requested : bool
        Whether a request in the study's folder has asked for the end.
    patience : float or None
        The driver leaves after one pass, and in any case after so many seconds.
    """

    def __init__(self) -> None:
        self.draining = False
        self.cancelling = False
        self.requested = False
        self.patience: float | None = None
        self._leaving = asyncio.Event()

    @property
    def leaving(self) -> bool:
        """Whether the driver is to leave now, with jobs in flight."""
        return self._leaving.is_set()

    def leave(self) -> None:
        """Leave now."""
        self._leaving.set()

    def obey(self, request: StopRequest) -> None:
        """Take a request that was found in the study's folder."""
        self.requested = True
        match request.how:
            case Stop.DRAIN:
                self.draining = True
            case Stop.LEAVE:
                self.leave()
            case Stop.CANCEL:
                self.cancelling = True
                self.leave()

    async def wait(self, clock: Clock, nothing_to_do: Callable[[], bool]) -> None:
        """Wait until the driver is to leave; if it is here for one pass, that is when there is ``nothing_to_do``."""
        if self.patience is not None:
            give_up = clock.now() + self.patience
            while not self.leaving and clock.now() < give_up and not nothing_to_do():
                await clock.sleep(_PASS_LOOK)
            self.leave()
        await self._leaving.wait()

    async def cancel(self, study: Study, root: Path, fleet: Fleet) -> list[str]:
        """Cancel what the ledger in ``root`` has in flight; another wish to leave ends the wait for it.

        Returns
        -------
        list of str
            Keys of the jobs that were cancelled; empty if that was not waited for.
        """
        self._leaving.clear()
        leaving = asyncio.create_task(self._leaving.wait(), name="leave")
        cancelling = asyncio.create_task(cancel_in_flight(study, root, fleet), name="cancel")
        try:
            done, _ = await asyncio.wait({cancelling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return cancelling.result() if cancelling in done else []
        finally:
            for task in (cancelling, leaving):
                task.cancel()
            await asyncio.gather(cancelling, leaving, return_exceptions=True)
