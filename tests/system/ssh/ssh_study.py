"""A study whose site is reached by SSH: its driver in this process, or as one that can be killed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from login_node import LoginNode
from slurm_cluster import Cluster
from slurm_place import Place

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site, load_site
from orchestrator.config.study import Study
from orchestrator.search import places
from orchestrator.search.driver import StudyDriver
from orchestrator.store.record import StudyRecord
from orchestrator.transports.paramiko_ import ParamikoLink
from orchestrator.transports.registry import make_transport
from orchestrator.transports.remote import RemoteTransport

__all__ = ["SECOND_WAY_SLOW", "FarStudy", "MakeStudy", "until"]

# Of what is the driver's, whichever way a connection is made: the second way in `make test-slow`.
SECOND_WAY_SLOW = pytest.mark.parametrize(
    "kind", ["openssh", pytest.param("paramiko", marks=pytest.mark.slow)], indirect=True
)

_SOON = 0.1  # seconds between connections, where a site has 15 at least


class _NoScheduler:
    """The driver's machine knows nothing of the cluster."""

    environment: Mapping[str, str] = {}


class FarStudy(Place):
    """`Place` with its site behind a login node.

    Parameters
    ----------
    transport : mapping
        The ``transport:`` part of the site file.
    """

    def __init__(self, root: Path, transport: Mapping[str, object], *, trials: int, **keys: Any) -> None:
        site = {
            "transport": dict(transport),
            "work_root": str(root / "work root"),
            "settle": 0.2,
            **keys.pop("site", {}),
        }
        super().__init__(root, cast("Cluster", _NoScheduler()), trials=trials, site=site, **keys)
        self.said_so_far: list[str] = []
        self.transports: list[RemoteTransport] = []

    @property
    def profile(self) -> Site:
        """The site."""
        return load_site(str(self.site))

    async def drive(
        self, *, ask: Callable[[str, str, Sequence[tuple[str, bool]]], list[str]] | None = None
    ) -> StudyRecord:
        """Run the driver in this process; connections may follow each other quickly."""
        profile = self.profile
        transport = self._transport(profile)
        if ask is not None:
            transport._link = ParamikoLink(profile, ask=ask)
        return await self._drive(profile, transport=transport)

    async def drive_everywhere(self) -> StudyRecord:
        """As `drive`, on all the sites that the study names."""
        named = places.places_of(Study.load(self.study), self.root)
        return await self._drive([dataclasses.replace(each, transport=self._transport(each.site)) for each in named])

    def _transport(self, site: Site) -> RemoteTransport:
        transport = make_transport(site, SystemClock())
        assert isinstance(transport, RemoteTransport)
        transport._interval = _SOON
        self.transports.append(transport)
        return transport

    async def _drive(self, where: Site | Sequence[places.Place], **keys: Any) -> StudyRecord:
        def listen(event: Mapping[str, Any]) -> None:
            self.said_so_far.append(str(event.get("message", "")))

        study = Study.load(self.study)
        return await StudyDriver(study, where, self.root / "runs", origin=self.root, on_event=listen, **keys).run()


MakeStudy = Callable[..., tuple[FarStudy, LoginNode]]
"""Make a study and its login node; ``trials``, and what `FarStudy` takes."""


async def until(happened: Callable[[], bool], what: str) -> None:
    """Wait, while the driver goes on in the same loop."""
    for _ in range(1200):
        if happened():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"gave up waiting for {what}")
