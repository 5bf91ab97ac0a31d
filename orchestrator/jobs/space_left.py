"""Room on the site's file system: looked for before an attempt is staged, and waited for where there is none.

A file system that is full takes a job's files and loses its result. What `statvfs` tells is asked first;
a quota that it does not tell of is met by the write. Nothing more is submitted then, jobs in flight run
on, and it goes on by itself. A site that is reached over ssh says so at the submit, which pauses the study.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.clock import Clock
from orchestrator.transports.base import Transport
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.trouble import SiteUnusable

__all__ = ["NEEDED", "SpaceLeft"]

T = TypeVar("T")

NEEDED = 100 * 2**20
"""Bytes that must be free before a trial begins: its logs, its checkpoint, its model."""
_FILES = 1_000
_PAUSE = 60.0


class SpaceLeft:
    """Lets writes to the site's work root wait for room.

    Parameters
    ----------
    folder : str
        The study's work root, which exists.
    on_room : callable
        Told in words that there is no room (and True), and that there is some again (and False).
    """

    def __init__(
        self, transport: Transport, folder: str, clock: Clock, *, on_room: Callable[[str, bool], None]
    ) -> None:
        self._is_mounted = isinstance(transport, LocalTransport)
        self._folder = folder
        self._clock = clock
        self._on_room = on_room
        self._lacking = False

    async def before(
        self, write: Callable[[], Awaitable[T]], *, unwanted: Callable[[], bool] = lambda: False
    ) -> T | None:
        """Do ``write`` once there is room; None if nobody wants it any more before there is."""
        while True:
            words = await self._clock.blocking(self._look) if self._is_mounted else ""
            if not words:
                try:
                    done = await write()
                except SiteUnusable as full:
                    if not self._is_mounted:
                        raise
                    words = full.message
                else:
                    if self._lacking:
                        self._lacking = False
                        self._on_room(f"there is room again on {self._folder}: going on", False)
                    return done
            self._lacking = True
            self._on_room(f"{words}; trials wait, jobs run on, and it goes on by itself once there is room", True)
            if unwanted():
                return None
            await self._clock.sleep(_PAUSE)

    def _look(self) -> str:
        """Say what is lacking; nothing where there is enough, or nobody knows."""
        try:
            facts = os.statvfs(self._folder)
        except OSError:
            return ""  # the write will say it better
        free = facts.f_bavail * facts.f_frsize
        if free < NEEDED:
            return f"no space left on {self._folder}: {_mb(free)} free, {_mb(NEEDED)} needed"
        if facts.f_files and facts.f_favail < _FILES:  # file systems that make inodes as they go have no number
            return f"no space left on {self._folder}: room for {facts.f_favail} files, {_FILES} needed"
        return ""


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f} MB"
