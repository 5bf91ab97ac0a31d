"""What a transport does: run a command and move files, on this machine or on a login node.

A transport never judges what a command says; it only tells whether the command ran to its end.
All paths are absolute POSIX paths on the site's side.

A remote transport has ``one_exec = True`` (a query should go with the look), and any of its methods may
raise `orchestrator.errors.Paused` where only a person can help (`orchestrator.transports.trouble`);
then a command was not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Command", "Completion", "Transport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line with its deadline in seconds."""

    argv: tuple[str, ...]
    stdin: str = ""
    timeout: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How a command ended; ``returncode`` is None if that is not known (deadline, connection cut).

    127 with a message on stderr stands for a command that does not exist.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str = ""
    stderr: str = ""


class Transport(Protocol):
    """Commands and files on one site."""

    name: str

    async def run(self, command: Command) -> Completion:
        """Run ``command``; never raises for what the command does, nor for a deadline."""
        ...

    async def put(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> None:
        """Write ``files`` (path to content), each whole by rename, missing folders made, private modes."""
        ...

    async def get(self, path: str, *, limit: int | None = None) -> bytes | None:
        """Content of ``path`` (its last ``limit`` bytes), or None where there is no such file."""
        ...

    async def look(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """`orchestrator.agent.look` on the site's side; None if the site gave no trustworthy answer."""
        ...

    async def revoke(self, directory: str, tag: str) -> bool:
        """`orchestrator.agent.revoke` on the site's side: True if no agent can claim the attempt any more."""
        ...

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove files and whole folders; what is not there, or cannot be removed, stays without a word."""
        ...

    async def close(self) -> None:
        """Let go of connections; once more does no harm."""
        ...
