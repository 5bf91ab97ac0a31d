"""Where the tests log in to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssh_server import Sshd

__all__ = ["Place"]


@dataclass
class Place:
    """A server, and the files of someone who goes there."""

    server: Sshd
    key: Path
    config: Path
    known_hosts: Path
    socket: Path

    def know(self, *lines: str) -> None:
        """Let these be all the known hosts."""
        self.known_hosts.write_text("".join(lines))

    def configure(self, *lines: str) -> None:
        """Write ~/.ssh/config's place-holder anew."""
        common = ("Host *", f"  UserKnownHostsFile {self.known_hosts}", "  GlobalKnownHostsFile /dev/null")
        self.config.write_text("\n".join((*lines, *common, "  IdentitiesOnly yes", "")))
