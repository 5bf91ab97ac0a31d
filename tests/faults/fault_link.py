"""A connection to this machine by way of its shell, that can be cut in the middle of a transfer or closed when idle."""

from __future__ import annotations

import asyncio

from jumping_clock import JumpingClock

from orchestrator.errors import SurveyError
from orchestrator.transports.remote import Exchange, RemoteTransport

__all__ = ["FragileLink", "far_transport"]


class FragileLink:
    """A link that is lost by plan.

    Attributes
    ----------
    uploads, downloads : list of float
        The part of the next requests, and of the next replies, that comes through before the connection is cut.
    refusals : list of SurveyError
        What the next attempts to connect meet.
    connected : list of float
        When a connection was tried.
    """

    made_by_others = False

    def __init__(self, clock: JumpingClock) -> None:
        self.clock = clock
        self.up = False
        self.uploads: list[float] = []
        self.downloads: list[float] = []
        self.refusals: list[SurveyError] = []
        self.connected: list[float] = []

    async def alive(self) -> bool:
        return self.up

    async def connect(self) -> None:
        self.connected.append(self.clock.now())
        if self.refusals:
            raise self.refusals.pop(0)
        self.up = True

    async def exchange(self, line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        sent = int(len(stdin) * self.uploads.pop(0)) if self.uploads else None
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", line, stdin=-1, stdout=-1, stderr=-1)
        out, err = await asyncio.wait_for(process.communicate(stdin[:sent]), timeout)
        received = int(len(out) * self.downloads.pop(0)) if self.downloads else None
        if sent is None and received is None:
            return Exchange(returncode=process.returncode, stdout=out, stderr=err)
        self.up = False
        return Exchange(returncode=None, stdout=b"" if sent is not None else out[:received])

    async def drop(self) -> None:
        self.up = False

    async def close(self) -> None:
        self.up = False


def far_transport(link: FragileLink) -> RemoteTransport:
    """A transport over ``link``."""
    return RemoteTransport(link, link.clock, name="there", site="there")
