"""SSH by paramiko: keys, the agent, jump hosts; a person at a terminal for the first login.

No password and no one-time password is kept anywhere. The agent is never forwarded. One thread makes
and ends the connection; each request has a channel of its own, read by a thread of a small pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import itertools
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paramiko

from orchestrator.errors import UsageError
from orchestrator.transports.host_keys import KnownHosts
from orchestrator.transports.remote import Exchange
from orchestrator.transports.route import Hop, route
from orchestrator.transports.settings import SiteSettings
from orchestrator.transports.trouble import LoginNeeded, Unreachable

__all__ = ["ParamikoLink", "ask_on_terminal"]

_MOST_KEYS = 5  # OpenSSH's server hangs up after 6 tries
_KEEP_ALIVE = 15
_SETTLE = 5.0  # seconds for a thread to notice that its connection was closed

Prompts = Sequence[tuple[str, bool]]

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its threads' tracebacks are no messages for users


def ask_on_terminal(title: str, instructions: str, prompts: Prompts) -> list[str]:
    """Ask a person what the server asks; answers are neither shown (unless it wants so), kept, nor logged."""
    for words in (title, instructions):
        if words.strip():
            print(words.strip(), file=sys.stderr)  # noqa: T201 - a conversation on the terminal
    answers = []
    for prompt, echo in prompts:
        if echo:
            print(prompt, end="", file=sys.stderr, flush=True)  # noqa: T201 - as above
            answers.append(sys.stdin.readline().rstrip("\n"))
        else:
            answers.append(getpass.getpass(prompt))
    return answers


class ParamikoLink:
    """A chain of SSH connections, one for each hop, the last to the login node.

    Parameters
    ----------
    site : SiteSettings
        With a transport of the kind ``paramiko``.
    ask : callable, optional
        Answers keyboard-interactive prompts; the terminal, where there is one. It is used for the first
        connection alone: later ones are made at times when nobody expects a question.
    """

    made_by_others = False

    def __init__(self, site: SiteSettings, *, ask: Callable[[str, str, Prompts], list[str]] | None = None) -> None:
        self._site = site
        self._timeout = site.transport.connect_timeout
        self._ask = ask or (ask_on_terminal if sys.stdin is not None and sys.stdin.isatty() else None)
        self._chain: list[paramiko.Transport] = []
        self._closed = False
        self._owner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ssh-owner")
        # More threads than channels: one whose connection was closed may take a moment to notice.
        self._readers = ThreadPoolExecutor(max_workers=2 * site.transport.channels, thread_name_prefix="ssh-channel")

    async def alive(self) -> bool:
        """Whether every hop's connection is there, as far as this side knows."""
        return bool(self._chain) and all(hop.is_active() for hop in self._chain)

    async def connect(self) -> None:
        """Connect and log in, hop after hop."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._owner, self._connect)
        self._ask = None

    async def exchange(self, line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        """Run ``line`` in a channel of its own."""
        if not self._chain:
            return Exchange(returncode=None, refused=True, stderr=b"the connection is closed")
        loop, end = asyncio.get_running_loop(), time.monotonic() + timeout
        last = self._chain[-1]
        work = loop.run_in_executor(self._readers, lambda: _exchange(last, line, stdin, end))
        done, _ = await asyncio.wait({work}, timeout=timeout + _SETTLE)
        return work.result() if done else Exchange(returncode=None)

    async def drop(self) -> None:
        """Close all hops' connections; who reads from them ends."""
        await asyncio.get_running_loop().run_in_executor(self._owner, self._close)

    async def close(self) -> None:
        """Close the connection, for good; once more does no harm."""
        if self._closed:
            return
        self._closed = True
        await self.drop()
        self._owner.shutdown(wait=False)
        self._readers.shutdown(wait=False, cancel_futures=True)

    # --- in the owner's thread ------------------------------------------------------------------------

    def _close(self) -> None:
        while self._chain:
            self._chain.pop().close()

    def _connect(self) -> None:
        self._close()
        try:
            for hop in route(self._site):
                with self._in_words(hop):
                    self._chain.append(self._join(hop))
        except BaseException:
            self._close()
            raise

    def _join(self, hop: Hop) -> paramiko.Transport:
        """Connect to ``hop`` through the hops before it, see who it is, log in."""
        known = KnownHosts(self._site.name, hop, self._site.transport.accepted_host_keys)
        through: Any
        if self._chain:
            there = (hop.address, hop.port)
            through = self._chain[-1].open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=self._timeout)
        else:
            through = socket.create_connection((hop.address, hop.port), timeout=self._timeout)
        try:
            transport = paramiko.Transport(through)
        except BaseException:
            through.close()
            raise
        try:
            options = transport.get_security_options()
            options.key_types = known.preferred(options.key_types)
            transport.start_client(timeout=self._timeout)
            known.check(transport.get_remote_server_key())
            self._log_in(transport, hop)
        except BaseException:
            transport.close()
            through.close()
            raise
        transport.set_keepalive(_KEEP_ALIVE)
        return transport

    def _log_in(self, transport: paramiko.Transport, hop: Hop) -> None:
        """Offer keys, few of them, each once; then let a person answer, if there is one."""
        notes: list[str] = []
        methods: Sequence[str] = ()
        tried = 0
        with contextlib.closing(paramiko.Agent()) as agent:
            for name, key in self._keys(hop, agent, notes):
                if tried == _MOST_KEYS or not transport.is_active():
                    break
                tried += 1
                try:
                    methods = transport.auth_publickey(hop.user, key)
                except paramiko.BadAuthenticationType as error:
                    methods = error.allowed_types
                    break
                except paramiko.AuthenticationException:
                    notes.append(f"{name} was refused")
                    continue
                if transport.is_authenticated():
                    return
                break  # the key was right, and is not enough
        asks = "keyboard-interactive" in methods or not methods
        if asks and self._ask is not None and transport.is_active():
            with contextlib.suppress(paramiko.AuthenticationException):
                transport.auth_interactive(hop.user, self._answer)
            if transport.is_authenticated():
                return
            notes.append("the answers were refused")
        raise self._login_needed(hop, notes, asks=asks)

    def _answer(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        assert self._ask is not None
        return self._ask(title, instructions, prompts) if prompts else []

    def _keys(self, hop: Hop, agent: paramiko.Agent, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
        """Keys to offer: named files, the agent's, then ssh's default files."""
        if hop.explicit:
            yield from _load(hop.keys, notes)
        for key in agent.get_keys():
            yield f"the agent's key {key.name}", key
        if not hop.explicit:
            yield from _load(hop.keys, notes)

    def _login_needed(self, hop: Hop, notes: Sequence[str], *, asks: bool) -> LoginNeeded:
        said = "; ".join(notes) or "there is no key to offer"
        if asks:
            said += "; it may ask questions, such as for a one-time password"
            hint = (
                "Load your key (ssh-add) or set transport.identity_file. If the site asks for a one-time password, start the study in a terminal, or set `transport: kind: openssh` in the site file and type: "
                f"survey login --site {self._site.name}"
            )
        else:
            hint = "Put your public key there (ssh-copy-id), load its private key (ssh-add), or set transport.identity_file."
        return LoginNeeded(f"site {self._site.name}: {hop.name} does not let {hop.user} in ({said})", hint=hint)

    @contextlib.contextmanager
    def _in_words(self, hop: Hop) -> Iterator[None]:
        """Say of what goes wrong with a hop which one it is, and whether waiting may help."""
        site, where = self._site.name, f"{hop.name} ({hop.known_as})" if hop.name != hop.address else hop.known_as
        news = "Look at the network, the VPN, and at the site's news."
        try:
            yield
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise Unreachable(f"site {site}: {where}: {error.strerror}", hint=news) from error
            raise UsageError(
                f"site {site}: there is no host {hop.address!r} ({error.strerror})",
                hint="Look at transport.host and transport.jump of the site file, and at HostName in ~/.ssh/config.",
            ) from error
        except paramiko.ChannelException as error:
            raise Unreachable(
                f"site {site}: {self._before(hop)} makes no connection to {where}: {error.text}",
                hint="Look at ProxyJump in ~/.ssh/config, or at `jump:` of the site file.",
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unreachable(f"site {site}: no connection to {where}: {error}", hint=news) from error

    def _before(self, hop: Hop) -> str:
        hops = route(self._site)
        return next((one.name for one, after in itertools.pairwise(hops) if after == hop), "this machine")


def _load(paths: Sequence[str], notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    for path in paths:
        try:
            yield path, paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            notes.append(f"{path} has a passphrase: load it with ssh-add")
        except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:  # type: ignore[attr-defined]
            notes.append(f"{path} cannot be read: {error}")


def _exchange(transport: paramiko.Transport, line: str, stdin: bytes, end: float) -> Exchange:
    """Run ``line`` in a channel, until ``end`` of the monotonic clock."""

    def left() -> float:
        return max(0.01, end - time.monotonic())

    try:
        channel = transport.open_session(timeout=left())
    except paramiko.ChannelException as error:
        return Exchange(returncode=None, refused=True, stderr=str(error.text).encode())
    except (OSError, EOFError, paramiko.SSHException) as error:
        return Exchange(returncode=None, stderr=str(error).encode())
    out, err = bytearray(), bytearray()
    try:
        channel.settimeout(left())
        channel.exec_command(line)
        with contextlib.suppress(BrokenPipeError, ConnectionError, _Closed):
            _send(channel, stdin, left)
        for buffer, receive in ((out, channel.recv), (err, channel.recv_stderr)):
            channel.settimeout(left())
            while piece := receive(1 << 16):
                buffer.extend(piece)
                channel.settimeout(left())
        channel.status_event.wait(left())
        status = channel.exit_status if channel.status_event.is_set() else -1
    except (OSError, EOFError, paramiko.SSHException) as error:
        return Exchange(returncode=None, stdout=bytes(out), stderr=bytes(err) + str(error).encode())
    finally:
        channel.close()
    return Exchange(returncode=None if status < 0 else status, stdout=bytes(out), stderr=bytes(err))


class _Closed(Exception):
    """The other side takes no more of our input."""


def _send(channel: paramiko.Channel, content: bytes, left: Callable[[], float]) -> None:
    sent = 0
    while sent < len(content):
        channel.settimeout(left())
        try:
            sent += channel.send(content[sent : sent + (1 << 20)])
        except TimeoutError:
            raise
        except OSError as error:  # paramiko's own "Socket is closed": what it ended with is still to be read
            raise _Closed from error
    channel.shutdown_write()
