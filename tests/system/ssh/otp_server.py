"""An SSH server in this process that lets in who gives the right one-time password, and counts who tries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncssh

__all__ = ["PASSWORD", "OtpServer", "Serving", "serve"]

PASSWORD = "314159"


class OtpServer(asyncssh.SSHServer):
    """Asks for a one-time password, whoever comes."""

    serving: Serving

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.serving.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        self.serving.begun.append(username)
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "Two factors", "", [("One-time password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        self.serving.answered.append(username)
        return list(responses) == [PASSWORD]


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command or "true", stdin=-1, stdout=-1, stderr=-1
    )
    out, err = await child.communicate(await process.stdin.read())
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode or 0)


@dataclass
class Serving:
    """A server that listens.

    Attributes
    ----------
    answered : list of str
        The users who answered its question.
    begun : list of str
        The users who came to its door.
    """

    port: int
    known_hosts_line: str
    answered: list[str]
    begun: list[str]
    connections: list[asyncssh.SSHServerConnection]

    async def cut(self) -> None:
        """Cut all connections."""
        while self.connections:
            connection = self.connections.pop()
            connection.abort()
            await connection.wait_closed()


@asynccontextmanager
async def serve() -> AsyncIterator[Serving]:
    """Serve on a port of this machine."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    serving = Serving(0, "", [], [], [])

    def make() -> OtpServer:
        server = OtpServer()
        server.serving = serving
        return server

    listener = await asyncssh.create_server(
        make, "127.0.0.1", 0, server_host_keys=[key], process_factory=_run, encoding=None
    )
    serving.port = listener.get_port()
    public = key.export_public_key().decode().split()[:2]
    serving.known_hosts_line = f"[127.0.0.1]:{serving.port} {' '.join(public)}\n"
    try:
        yield serving
    finally:
        listener.close()
        await listener.wait_closed()
        await serving.cut()
