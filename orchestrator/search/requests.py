"""A request that a study's driver end, left in the study's folder for it to find.

So a driver can be asked from any machine that sees the folder, and no process but the one that
holds the lease ever acts on it: the request names the lease that it is meant for.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.store.atomic import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Stop", "StopRequest", "ask_to_stop", "is_taken", "pending_request", "take_request", "withdraw_request"]

_FILE = "stop"


class Stop(StrEnum):
    """How a driver is to end."""

    DRAIN = "drain"
    """No new trials; those in flight finish."""

    LEAVE = "leave"
    """At once; jobs in flight run on."""

    CANCEL = "cancel"
    """Jobs in flight are cancelled; their trials stay unfinished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """Who asks for what, of the driver with which lease; the file ``stop``."""

    how: Stop
    token: int
    by: str
    time: float


def ask_to_stop(root: Path, how: Stop, token: int, *, now: float) -> None:
    """Ask the driver that holds the lease ``token`` of the study in ``root`` to end.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `orchestrator.store.atomic.write_bytes`.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        user = str(os.getuid())
    request = StopRequest(how=how, token=token, by=f"{user} on {socket.gethostname()}", time=now)
    write_json(root / _FILE, asdict(request))


def take_request(root: Path, token: int) -> StopRequest | None:
    """Take what the driver that holds the lease ``token`` is asked for; None if nobody asks it for anything.

    A request to an earlier driver is void.
    """
    if is_taken(root):
        return None
    request = pending_request(root)
    with contextlib.suppress(OSError):  # a file system that has a bad moment is looked at again
        withdraw_request(root)
        return request if request is not None and request.token == token else None
    return None


def pending_request(root: Path) -> StopRequest | None:
    """What a driver is asked for and has not taken yet; None if that is nothing, or makes no sense."""
    try:
        data: Any = read_json(root / _FILE)
        return StopRequest(
            how=Stop(data["how"]), token=int(data["token"]), by=str(data["by"]), time=float(data["time"])
        )
    except (OSError, KeyError, TypeError, ValueError):
        return None


def withdraw_request(root: Path) -> None:
    """Remove a request that nobody has taken."""
    (root / _FILE).unlink(missing_ok=True)


def is_taken(root: Path) -> bool:
    """Whether no request lies there (any more)."""
    return not (root / _FILE).exists()
