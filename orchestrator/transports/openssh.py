"""The system's ssh, with one connection for all requests.

A control master holds the connection; each request is a session of it. Whoever makes the master
logs in, once: the driver by key or agent, or a person in a terminal (`login`) where the site wants a
one-time password. Requests go through the master's socket or not at all, so that none of them can
start a login of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.transports.local import kill_group, settle
from orchestrator.transports.remote import Exchange
from orchestrator.transports.settings import SiteSettings
from orchestrator.transports.trouble import LoginNeeded, Unreachable, ssh_trouble

__all__ = ["OpenSSHLink", "login"]

_LONGEST_PATH = 80  # of a socket: 104 bytes on some systems, and ssh adds 17 while it makes one
_CHECK = 15.0  # seconds for a word to the master on this machine

# Nothing of ours or of the user's is opened towards the site but the one session.
_CLOSED = (
    *("-a", "-x", "-T"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),
)
# Nobody is there to be asked.
_ALONE = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
# A master that goes to the background keeps these words short, and a jump host's words to itself.
_UNSAID = ("Host key verification failed", "Connection closed by UNKNOWN")
_NOT_TAKEN = (
    b"Session open refused by peer",
    b"session request failed",
    b"Connection closed by UNKNOWN",
    b"Control socket connect",
)


class OpenSSHLink:
    """One control master and its sessions.

    Parameters
    ----------
    site : SiteSettings
        With a transport of the kind ``openssh``.
    """

    made_by_others = True

    def __init__(self, site: SiteSettings) -> None:
        self._site = site
        self._host = site.transport.host or ""
        self._socket = control_path(site)
        self._ssh = _ssh(site, self._socket)
        self._met = False

    async def alive(self) -> bool:
        """Whether a master listens on the socket; a question to this machine alone, before each request."""
        return _listens(self._socket)

    async def connect(self) -> None:
        """Make the master without asking anyone anything."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)  # a dead master's
        argv = [*self._ssh, *_master(self._site), *_ALONE]
        # The master keeps stderr open for as long as it lives: a pipe would never end.
        with tempfile.TemporaryFile() as words:
            process = await asyncio.create_subprocess_exec(
                *argv,
                *("--", self._host),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=words,
                env=_environment(),
                start_new_session=True,
            )
            limit = 2.0 * self._site.transport.connect_timeout
            ended = await _wait(process, limit)
            words.seek(0)
            said = words.read().decode("utf-8", "replace")
        if not ended:
            raise Unreachable(f"site {self._site.name}: no connection to {self._host} within {limit:g} s")
        if process.returncode == 0:
            self._met = True
            return
        # Of a connection that was there before, only what keeps it away for good is worth another one.
        unsaid = _UNSAID[:1] if self._met else _UNSAID
        if any(words in said for words in unsaid):
            more = await self._all_words(limit)
            # Another node behind the same name may have answered this time, and says nothing of that one.
            said = more if _UNSAID[0] in more or _UNSAID[0] not in said else said
        raise ssh_trouble(self._site.name, self._host, said)

    async def _all_words(self, limit: float) -> str:
        """Let ssh say everything of a connection that fails: which key it saw, what a jump host said."""
        alone = [*_ssh(self._site, "none"), *_jump(self._site), *_ALONE, "-o", "PreferredAuthentications=none"]
        done = await self._call([*alone, "-v", "--", self._host, "true"], timeout=limit)
        return done.stderr.decode("utf-8", "replace")

    async def exchange(self, line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        """Run ``line`` in a session of the master."""
        # A proxy that fails is what keeps ssh from a connection of its own where the master is gone.
        through = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes")
        done = await self._call([*self._ssh, *through, "--", self._host, line], stdin=stdin, timeout=timeout)
        if done.returncode == 255:  # ssh's own failures
            refused = any(words in done.stderr for words in _NOT_TAKEN)
            return Exchange(returncode=None, stdout=done.stdout, stderr=done.stderr, refused=refused)
        return done

    async def drop(self) -> None:
        """End the master."""
        await self._call([*self._ssh, "-O", "exit", "--", self._host], timeout=_CHECK)

    async def close(self) -> None:
        """Leave the master, which other drivers may use and which a person may have logged in for."""

    async def _call(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        talk = asyncio.ensure_future(process.communicate(stdin))
        try:
            done, _ = await asyncio.wait({talk}, timeout=timeout)
        except asyncio.CancelledError:
            kill_group(process)
            await settle(process, talk)
            raise
        if not done:
            kill_group(process)
            out, err = await settle(process, talk)  # the master has our pipes too, and may keep them
            return Exchange(returncode=None, stdout=out, stderr=err)
        out, err = talk.result()
        return Exchange(returncode=process.returncode, stdout=out, stderr=err)


def login(site: SiteSettings) -> None:
    """Make the master in this terminal, where a person answers whatever the site asks; returns once it is there.

    Raises
    ------
    UsageError
        Without a terminal, or for a transport of another kind.
    LoginNeeded
        If ssh did not get in; its own words are on the terminal.
    """
    if site.transport.kind != "openssh":
        raise UsageError(
            f"site {site.name}: its transport is {site.transport.kind}, which has no login that stays",
            hint="Set `transport: kind: openssh` in the site file.",
        )
    if not sys.stdin.isatty():
        raise UsageError("a login needs a terminal", hint=f"Type `survey login --site {site.name}` in one.")
    path, host = control_path(site), site.transport.host or ""
    ssh = _ssh(site, path)
    if os.path.exists(path):
        if _listens(path):
            return
        os.unlink(path)
    done = subprocess.run([*ssh, *_master(site), "-o", "StrictHostKeyChecking=ask", "--", host], check=False)
    if done.returncode != 0:
        raise LoginNeeded(
            f"site {site.name}: no login to {host}; ssh's own words are above", hint="Try again; `ssh -v` says more."
        )


def control_path(site: SiteSettings) -> str:
    """Socket of the master: one for each way to a host, in a folder of our own."""
    transport = site.transport
    if transport.control_path is not None:
        path = os.path.expanduser(transport.control_path)
        _make_private(os.path.dirname(path))
    else:
        way = repr(
            (
                transport.host,
                transport.user,
                transport.port,
                transport.jump,
                transport.identity_file,
                transport.config_file,
            )
        )
        path = os.path.join(_runtime_folder(), hashlib.sha256(way.encode()).hexdigest()[:16])
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise UsageError(f"the path of the control socket is too long: {path}", hint="Set transport.control_path.")
    return path


def _listens(path: str) -> bool:
    """What ``ssh -O check`` says, without a process."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # a master with more to do than it can take
        except OSError:
            return False
    return True


def _runtime_folder() -> str:
    folder = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), "survey-orchestrator")
    if (
        not os.path.isabs(folder)
        or len(os.fsencode(folder)) > _LONGEST_PATH - 17
        or not os.path.isdir(os.path.dirname(folder))
    ):
        folder = f"/tmp/survey-{os.getuid()}"  # noqa: S108 - owner and mode are looked at
    _make_private(folder)
    return folder


def _make_private(folder: str) -> None:
    """See to it that nobody else can reach into ``folder``: who has the socket has the connection."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise UsageError(
            f"{folder} must be a folder of yours that nobody else can enter",
            hint="chmod 700 it, or set transport.control_path to a path in another folder.",
        )


def _ssh(site: SiteSettings, path: str) -> list[str]:
    transport = site.transport
    argv = ["ssh", "-S", path, *_CLOSED]
    for flag, value in (("-F", transport.config_file), ("-i", transport.identity_file)):
        if value is not None:
            argv += [flag, str(Path(value).expanduser())]
    if transport.user is not None:
        argv += ["-l", transport.user]
    if transport.port is not None:
        argv += ["-p", str(transport.port)]
    return argv


def _master(site: SiteSettings) -> list[str]:
    transport = site.transport
    options = {
        "ControlMaster": "yes",
        "ControlPersist": f"{transport.control_persist:.0f}",
        "ConnectTimeout": f"{transport.connect_timeout:.0f}",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    argv = ["-f", "-N", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    return [*argv, *_jump(site)]


def _jump(site: SiteSettings) -> list[str]:
    return ["-J", ",".join(site.transport.jump)] if site.transport.jump else []


def _environment() -> Mapping[str, str]:
    """Ours, but with messages that can be read, and without windows that ask for passwords."""
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


async def _wait(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Whether the process ended in time; it is killed where it did not."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        kill_group(process)
        await process.wait()
        return False
    except asyncio.CancelledError:
        kill_group(process)
        await process.wait()
        raise
    return True
