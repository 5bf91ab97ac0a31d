"""Commands and files on a site that is reached over a connection, whatever makes the connection.

A `Link` carries bytes; here is what holds for every link: how often it may be opened, which requests
may be sent twice, and what an answer that does not come means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from orchestrator.clock import Clock
from orchestrator.errors import SurveyError, UsageError
from orchestrator.transports.base import Command, Completion
from orchestrator.transports.framing import NO_PYTHON, TOO_OLD, Reply, Request, agent_source, command_line, parse_reply
from orchestrator.transports.trouble import LoginNeeded, SiteUnusable, Unreachable, file_trouble

__all__ = ["Exchange", "Greeting", "Link", "RemoteTransport"]

_SLACK = 30.0  # seconds for the way there and back, beyond what the command itself may take
_TRANSFER = 120.0  # seconds that a transfer may take, and one more for each of these bytes:
_SLOWEST = 100_000
_TRIES = 4  # of a request that may be sent twice
_LONGEST_PAUSE = 300.0  # seconds between attempts to connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What came back from one request.

    Attributes
    ----------
    returncode : int or None
        None if the connection was cut or the deadline passed.
    refused : bool
        The connection is well, and certainly did not take the request (too many sessions).
    """

    returncode: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    refused: bool = False


class Link(Protocol):
    """A connection to one host that can be lost and made again.

    Attributes
    ----------
    made_by_others : bool
        Whether a person, or another driver, can make it from outside this process.
    """

    made_by_others: bool

    async def alive(self) -> bool:
        """Whether it is there now, as far as can be told without asking the other side."""
        ...

    async def connect(self) -> None:
        """Make it; raises `orchestrator.errors.SurveyError` (see `orchestrator.transports.trouble`)."""
        ...

    async def exchange(self, line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - the link ends what it began
        """Run ``line`` there; never raises for what becomes of it."""
        ...

    async def drop(self) -> None:
        """Cut it: it does not answer."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """Who and where we are on the site's side."""

    host: str
    user: str
    home: str
    python: str
    now: float


class RemoteTransport:
    """A transport over a `Link`.

    A request that may not be sent twice (a command) is sent once; where its answer does not come, its
    outcome is unknown. One that may (`put`, `get`, `remove`) is sent again over a new connection. While
    there is no connection, all but `look` wait for it. Connections are made ``interval`` seconds apart at
    the least, ever more slowly while they fail. After `orchestrator.transports.trouble.LoginNeeded`, or
    any other refusal that only a person can mend, none is made at all: every call raises it again until
    the link is alive by that person's doing. A login that is needed once more, of a link that others can make,
    is waited for instead (``on_login`` hears of it): nothing but a question to this machine is asked meanwhile.

    Parameters
    ----------
    name : str
        Kind of the transport.
    site : str
        The site's name, for messages.
    interval : float
        Least seconds between two connections.
    channels : int
        Requests under way at a time.
    """

    one_exec = True
    """A query that goes with the look saves a request."""

    def __init__(
        self,
        link: Link,
        clock: Clock,
        *,
        name: str,
        site: str,
        shell: str = "/bin/sh",
        python: str = "python3",
        interval: float = 15.0,
        channels: int = 3,
    ) -> None:
        self.name = name
        self.trouble = ""
        """Why there is no connection now, for people; empty while there is one."""
        self.requests = 0
        """How many were sent."""
        self.on_login: Callable[[LoginNeeded | None], None] = lambda _error: None
        """Called when a person has to log in for things to go on, and with None once somebody has."""
        self._link = link
        self._clock = clock
        self._site = site
        self._python = python
        self._line = command_line(shell, python)
        self._interval = interval
        self._channels = asyncio.Semaphore(channels)
        self._gate = asyncio.Lock()
        self._not_before = float("-inf")
        self._failures = 0
        self._met = False
        self._refusal: SurveyError | None = None
        self._unwanted: dict[str, None] = {}

    # --- the protocol ---------------------------------------------------------------------------------

    async def open(self) -> Greeting:
        """Connect and see that the site's side can serve us; does not wait for a network that is down.

        Raises
        ------
        SurveyError
            What is wrong and what to do: `orchestrator.transports.trouble`, or a UsageError for what is
            wrong in the site file or in ~/.ssh/config.
        """
        await self._connected(patient=False)
        reply = await self._again("hello", {}, limit=_SLACK)
        return Greeting(**reply.data)

    async def run(self, command: Command) -> Completion:
        """Run ``command`` once; the outcome is unknown if the connection is cut before its answer is here."""
        return await self.put_and_run({}, command)

    async def put_and_run(
        self, files: Mapping[str, bytes], command: Command, *, executable: Sequence[str] = ()
    ) -> Completion:
        """Write ``files`` as `put` does and run ``command``, in one request."""
        listed, content = _listed(files, executable)
        order = {"argv": list(command.argv), "timeout": command.timeout, "files": listed}
        body = content + command.stdin.encode()
        reply, words = await self._once("run", order, body, limit=command.timeout + _SLACK + len(body) / _SLOWEST)
        if reply is None:
            return Completion(argv=command.argv, returncode=None, stderr=words)
        self._raise_file_trouble(reply)
        end = reply.data["stdout"]
        return Completion(
            argv=command.argv,
            returncode=reply.data["returncode"],
            stdout=reply.body[:end].decode("utf-8", "replace"),
            stderr=reply.body[end:].decode("utf-8", "replace"),
        )

    async def put(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> None:
        """Write ``files`` in one request, each whole by rename; folders 0700, files 0600 (0700 if executable)."""
        listed, body = _listed(files, executable)
        reply = await self._again("put", {"files": listed}, body, limit=_TRANSFER + len(body) / _SLOWEST)
        self._raise_file_trouble(reply)

    async def get(self, path: str, *, limit: int | None = None) -> bytes | None:
        """Content of ``path`` (its last ``limit`` bytes), or None where there is no such file."""
        size = _SLOWEST * _TRANSFER * 9 if limit is None else limit
        reply = await self._again("get", {"path": path, "limit": limit}, limit=_TRANSFER + size / _SLOWEST)
        self._raise_file_trouble(reply)
        return reply.body if reply.data["found"] else None

    async def look(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """`orchestrator.agent.look` there, its query included, as one request."""
        query = request.get("query") or {}
        limit = float(query.get("timeout") or 60.0) + _SLACK + 60.0
        try:
            reply, _ = await self._once("look", {"request": request}, agent_source(), limit=limit, patient=False)
        except Unreachable:
            return None
        if reply is None or "error" in reply.data:
            return None
        seen: Mapping[str, Any] = reply.data["look"]
        return seen

    async def revoke(self, directory: str, tag: str) -> bool:
        """`orchestrator.agent.revoke` there; False if no answer says that the claim is ours."""
        order = {"directory": directory, "tag": tag}
        reply, _ = await self._once("revoke", order, agent_source(), limit=_TRANSFER)
        return reply is not None and bool(reply.data.get("revoked"))

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove files and whole folders there, without following links."""
        await self._again("remove", {"paths": list(paths)}, limit=10 * _TRANSFER)

    def remove_later(self, paths: Sequence[str]) -> None:
        """As `remove`, along with a later request, or before the connection is let go of if there is one then."""
        self._unwanted |= dict.fromkeys(paths)

    async def tree(self, path: str) -> Mapping[str, int] | None:
        """Files below a folder, by their names in it, with their sizes; None where there is no such folder."""
        reply = await self._again("tree", {"path": path}, limit=_TRANSFER)
        self._raise_file_trouble(reply)
        files: Mapping[str, int] = reply.data["files"]
        return files if reply.data["there"] else None

    async def read(self, pieces: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Pieces of files, each a path, an offset (from the end where negative) and a length; None: no such file."""
        most = sum(length for _, _, length in pieces)
        reply = await self._again("read", {"pieces": list(pieces)}, limit=_TRANSFER + most / _SLOWEST)
        self._raise_file_trouble(reply)
        found: list[bytes | None] = []
        begin = 0
        for length in reply.data["lengths"]:
            found.append(None if length is None else reply.body[begin : begin + length])
            begin += length or 0
        return found

    async def close(self) -> None:
        """Let go of the connection."""
        if self._unwanted and await self._link.alive():
            with contextlib.suppress(SurveyError):
                await self._once("remove", {"paths": []}, limit=_TRANSFER, patient=False)
        await self._link.close()

    # --- requests -------------------------------------------------------------------------------------

    async def _again(self, verb: str, order: Mapping[str, Any], body: bytes = b"", *, limit: float) -> Reply:
        """Send a request that may be sent twice until it is answered."""
        words = ""
        for _ in range(_TRIES):
            reply, words = await self._once(verb, order, body, limit=limit)
            if reply is not None:
                return reply
        raise Unreachable(f"site {self._site}: {words} ({_TRIES} times)", hint="Look at what the login node is doing.")

    async def _once(
        self, verb: str, order: Mapping[str, Any], body: bytes = b"", *, limit: float, patient: bool = True
    ) -> tuple[Reply | None, str]:
        """Send a request at most once over a connection that took it; its reply, or None and why there is none."""
        async with self._channels:
            while True:
                await self._connected(patient=patient)
                unwanted = list(self._unwanted)
                request = Request.make(verb, {**order, "unwanted": unwanted} if unwanted else order, body)
                self.requests += 1
                exchange = await self._link.exchange(self._line, request.stdin, limit)
                reply = parse_reply(exchange.stdout, request.marker)
                if reply is not None:
                    for path in unwanted:
                        self._unwanted.pop(path, None)
                    return reply, ""
                self._refuse_what_cannot_be_served(exchange)
                if exchange.refused:
                    await self._clock.sleep(self._interval)
                    continue
                said = _last_line(exchange.stderr)
                if exchange.returncode is None:
                    # Whatever else is under way there is as unknown: nothing of a dead connection is waited for.
                    await self._link.drop()
                    return None, said or f"no answer within {limit:g} s; the connection was closed"
                return None, f"no reply that can be read (exit code {exchange.returncode}: {said or 'not a word'})"

    def _refuse_what_cannot_be_served(self, exchange: Exchange) -> None:
        words = exchange.stderr.decode("utf-8", "replace")
        old = exchange.returncode == TOO_OLD or "Unknown option: -I" in words  # Python 2 knows no -I
        if NO_PYTHON in words or old:
            raise SiteUnusable(
                f"site {self._site}: the login node has no {self._python} that is Python 3.6 or newer",
                hint="Set `transport: python:` in the site file to its path there, "
                "or `transport: shell: /bin/bash -l` where only the login files put it on PATH.",
            )

    def _raise_file_trouble(self, reply: Reply) -> None:
        if error := reply.data.get("error"):
            raise file_trouble(self._site, error["errno"], error["message"], error["path"])

    # --- the connection -------------------------------------------------------------------------------

    async def _connected(self, *, patient: bool) -> None:
        """Return once there is a connection; raises where only a person can help, or at once if not ``patient``."""
        if not patient and self._gate.locked():
            raise Unreachable(f"site {self._site}: {self.trouble or 'the connection is being made'}")
        async with self._gate:
            while not await self._link.alive():
                if self._refusal is not None:
                    if not self._waits_for(self._refusal):
                        raise self._refusal
                    if not patient:
                        raise Unreachable(self._refusal.message)
                    await self._clock.sleep(self._interval)
                    continue
                pause = self._not_before - self._clock.now()
                if pause > 0:
                    if not patient:
                        raise Unreachable(
                            f"site {self._site}: {self.trouble or 'connection lost'}; next try in {pause:.0f} s"
                        )
                    await self._clock.sleep(pause)
                try:
                    await self._link.connect()
                except Unreachable as error:
                    self._failures += 1
                    self.trouble = error.message
                    if not patient:
                        raise
                except SurveyError as error:
                    self.trouble = error.message
                    if self._waits_for(error):
                        self._refusal = error
                        self.on_login(error)
                        continue
                    if not (self._met and isinstance(error, UsageError)):
                        self._refusal = error
                        raise
                    # What has worked before is no mistake of the user's: a laptop without a network knows no host.
                    self._failures += 1
                    if not patient:
                        raise Unreachable(error.message) from error
                else:
                    self._failures = 0
                finally:
                    grown = self._interval * 2.0 ** min(self._failures, 10)
                    self._not_before = self._clock.now() + min(grown, max(_LONGEST_PAUSE, self._interval))
            if self._refusal is not None and self._waits_for(self._refusal):
                self.on_login(None)
            self._refusal, self.trouble, self._met = None, "", True

    def _waits_for(self, error: SurveyError) -> TypeGuard[LoginNeeded]:
        return isinstance(error, LoginNeeded) and self._met and self._link.made_by_others


def _listed(files: Mapping[str, bytes], executable: Sequence[str]) -> tuple[list[tuple[str, int, int]], bytes]:
    listed = [(path, len(content), 0o700 if path in executable else 0o600) for path, content in files.items()]
    return listed, b"".join(files.values())


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
