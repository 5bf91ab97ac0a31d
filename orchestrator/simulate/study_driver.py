"""The study driver for studies that nobody watches: its database is in memory, and it writes for no reader.

What it asks, submits, waits for and tells is the driver's own code. `BatchDriver` is what most programs
do instead: it asks for N trials, waits for all of them, and asks for the next N.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.clock import Clock
from orchestrator.config.site import Site
from orchestrator.config.study import Study
from orchestrator.search.agenda import Item
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.driver import StudyDriver
from orchestrator.search.slots import Slots
from orchestrator.store.studydb import StudyDatabase
from orchestrator.transports.base import Transport

if TYPE_CHECKING:
    from orchestrator.jobs.session import Event
    from orchestrator.store.record import StudyRecord

__all__ = ["BatchDriver", "VirtualDriver"]


class _Unread(Chronicle):
    """Makes the record when the driver insists, at the beginning and at the end; writes no events."""

    def write(self, event: Event) -> None:
        """Hand the event to the listener alone."""
        self._listener(event)

    async def publish(self, state: str, *, force: bool = False) -> StudyRecord:
        """Publish what is forced, and nothing else."""
        return await super().publish(state, force=True) if force else self.record

    async def keep_shown(self) -> None:
        """Show nothing in between."""
        await _for_ever()


class VirtualDriver(StudyDriver):
    """Drives a study in virtual time.

    Parameters
    ----------
    root : Path
        A folder for the ledger, for as long as the study runs.
    """

    def __init__(
        self,
        study: Study,
        site: Site,
        root: Path,
        *,
        clock: Clock,
        transport: Transport,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        super().__init__(study, site, root, origin=root, clock=clock, transport=transport, on_event=on_event)
        self._chronicle = _Unread(self.folder, study, site=site.name, clock=clock, listener=on_event)

    def _open(self) -> StudyDatabase:
        from optuna.storages import InMemoryStorage

        return StudyDatabase.open(
            self.folder.root,
            name=self.study.name,
            directions=[item.direction for item in self.study.targets],
            definition=self.study.frozen(),
            guard=self._lease.check,
            now=self.clock.now,
            storage=InMemoryStorage(),
        )

    async def _keep(self) -> None:
        # Nobody else has this folder: a lease of virtual weeks would be renewed ten thousand times for nothing.
        await _for_ever()


class _Batches(Slots):
    """Slots that wait for each other before any of them asks again."""

    _arrived = 0
    _gate: asyncio.Event | None = None

    async def _next(self) -> Item | None:
        if not self._agenda.ready and self._asker.planned < self._asker.budget:
            await self._all_slots()
        return await super()._next()

    async def _all_slots(self) -> None:
        """Wait until no slot has a trial any more."""
        gate = self._gate = self._gate or asyncio.Event()
        self._arrived += 1
        if self._arrived == self._study.parallel:
            self._arrived, self._gate = 0, None
            gate.set()
        await gate.wait()


class BatchDriver(VirtualDriver):
    """Asks for the next trials when all of the last ones have ended."""

    slots = _Batches


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
