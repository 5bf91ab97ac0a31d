"""An SSH server in this process that lets in who gives the right one-time password, and counts who tries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncssh

__all__ = ["PASSWORD", "OtpServer", "serve"]

PASSWORD = "314159"


class OtpServer(asyncssh.SSHServer):
    """Asks for a one-time password, whoever comes."""

    attempts: list[str]
    connections: list[asyncssh.SSHServerConnection]

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "Two factors", "", [("One-time password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        self.attempts.append(username)
        return list(responses) == [PASSWORD]


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command or "true", stdin=-1, stdout=-1, stderr=-1
    )
    out, err = await child.communicate(await process.stdin.read())
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode or 0)


@asynccontextmanager
async def serve() -> AsyncIterator[tuple[int, str, list[str]]]:
    """Serve on a port of this machine; port, line for known_hosts, and the users who answered."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    attempts: list[str] = []
    connections: list[asyncssh.SSHServerConnection] = []

    def make() -> OtpServer:
        server = OtpServer()
        server.attempts, server.connections = attempts, connections
        return server

    listener = await asyncssh.create_server(
        make, "127.0.0.1", 0, server_host_keys=[key], process_factory=_run, encoding=None
    )
    port = listener.get_port()
    public = key.export_public_key().decode().strip()
    try:
        yield port, f"[127.0.0.1]:{port} {' '.join(public.split()[:2])}\n", attempts
    finally:
        listener.close()
        await listener.wait_closed()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
