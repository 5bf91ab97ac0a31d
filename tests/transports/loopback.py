"""A link to this machine by way of its shells: what a login shell does to a request, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jumping_clock import JumpingClock

from orchestrator.errors import SurveyError
from orchestrator.transports.remote import Exchange, RemoteTransport

__all__ = ["Loopback", "loopback_transport"]


class Loopback:
    """Runs the command line by ``shell -c``, as sshd would.

    Attributes
    ----------
    made_by_others : bool
        Whether a test may set ``up`` in a person's place.
    failures : list of SurveyError or None
        What the next attempts to connect raise.
    spoil : callable
        Changes what came back.
    """

    def __init__(self, shell: str = "/bin/sh", noise: str = "") -> None:
        self.shell = shell
        self.noise = noise
        self.connections = 0
        self.up = False
        self.made_by_others = False
        self.failures: list[SurveyError | None] = []
        self.spoil: Callable[[Exchange], Exchange] = lambda exchange: exchange
        self.cut_stdin: int | None = None

    async def alive(self) -> bool:
        return self.up

    async def connect(self) -> None:
        self.connections += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.up = True

    async def exchange(self, line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        process = await asyncio.create_subprocess_exec(
            self.shell, "-c", f"{self.noise}{line}", stdin=-1, stdout=-1, stderr=-1
        )
        out, err = await process.communicate(stdin[: self.cut_stdin])
        return self.spoil(Exchange(returncode=process.returncode, stdout=out, stderr=err))

    async def drop(self) -> None:
        self.up = False

    async def close(self) -> None:
        self.up = False


def loopback_transport(link: Loopback, clock: JumpingClock | None = None) -> RemoteTransport:
    """Make a transport over ``link`` that never really sleeps."""
    return RemoteTransport(link, clock or JumpingClock(), name="loopback", site="there")
