"""Commands and files on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator import agent
from orchestrator.clock import Clock, SystemClock
from orchestrator.transports.base import Command, Completion
from orchestrator.transports.trouble import file_trouble

__all__ = ["LocalTransport", "kill_group", "settle"]

_LAST_WORDS = 2.0  # seconds that a killed command's output may still take


class LocalTransport:
    """Runs commands as child processes and moves files on mounted file systems.

    Parameters
    ----------
    clock : Clock, optional
        File work goes through its ``blocking``, so that a file system that hangs stops no one else.
    """

    name = "local"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()

    async def run(self, command: Command) -> Completion:
        """Run ``command`` in a process group of its own, which is killed at the deadline."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            return Completion(argv=command.argv, returncode=code, stderr=f"{command.argv[0]}: {error.strerror}")
        talk = asyncio.ensure_future(process.communicate(command.stdin.encode()))
        try:
            done, _ = await asyncio.wait({talk}, timeout=command.timeout)
        except asyncio.CancelledError:
            kill_group(process)
            await settle(process, talk)
            raise
        if not done:
            kill_group(process)
            out, err = await settle(process, talk)
            words = f"{_text(err)}no answer within {command.timeout:g} s; killed".strip()
            return Completion(argv=command.argv, returncode=None, stdout=_text(out), stderr=words)
        out, err = talk.result()
        return Completion(argv=command.argv, returncode=process.returncode, stdout=_text(out), stderr=_text(err))

    async def put(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> None:
        """Write ``files``, each whole by rename; folders are made 0700, files 0600 (0700 if executable).

        Nothing is fsynced: what is staged is read through the same file system, and after a crash of
        the machine the driver stages again or plans a new attempt.
        """

        def write() -> None:
            for path, content in files.items():
                _put(path, content, 0o700 if path in executable else 0o600)

        with _told_in_words(os.path.dirname(next(iter(files), ""))):
            await self._clock.blocking(write)

    async def get(self, path: str, *, limit: int | None = None) -> bytes | None:
        """Content of ``path`` (its last ``limit`` bytes), or None where there is no such file."""
        return await self._clock.blocking(lambda: _get(path, limit))

    async def look(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """`orchestrator.agent.look`, in this process but for the query's command."""
        query = request.get("query")
        answer = None
        if query is not None:
            done = await self.run(
                Command(argv=tuple(query["argv"]), stdin=query.get("stdin", ""), timeout=query.get("timeout", 60.0))
            )
            answer = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        # After the query, as the agent does it: the files are never older than the scheduler's answer.
        reply = await self._clock.blocking(lambda: agent.look({**request, "query": None}))
        return {**reply, "query": answer}

    async def revoke(self, directory: str, tag: str) -> bool:
        """`orchestrator.agent.revoke`, in this process."""
        with _told_in_words(directory):
            return await self._clock.blocking(lambda: agent.revoke(directory, tag))

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove files and whole folders, without following links."""

        def remove() -> None:
            for path in paths:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(path)

        await self._clock.blocking(remove)

    async def close(self) -> None:
        """Do nothing: there is no connection."""


@contextlib.contextmanager
def _told_in_words(folder: str) -> Iterator[None]:
    """Say what a file system refuses as a remote transport does."""
    try:
        yield
    except OSError as error:
        raise file_trouble("", error.errno, error.strerror or str(error), str(error.filename or folder)) from error


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def settle(process: asyncio.subprocess.Process, talk: asyncio.Future[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Collect a killed command's last words; what has left its group may hold the pipes open for ever."""
    done, _ = await asyncio.wait({talk}, timeout=_LAST_WORDS)
    if done:
        return talk.result()
    talk.cancel()
    await asyncio.gather(talk, return_exceptions=True)
    # There is no public way to let go of pipes that something else keeps open.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 no public way, see above
    return b"", b""


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _put(path: str, content: bytes, mode: int) -> None:
    folder, name = os.path.split(path)
    _make_folders(folder)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
        os.rename(temporary, path)  # replaces a symbolic link, never what it points to
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _make_folders(folder: str) -> None:
    if os.path.isdir(folder):
        return
    _make_folders(os.path.dirname(folder))
    with contextlib.suppress(FileExistsError):  # another driver of the same root was faster
        os.mkdir(folder, 0o700)


def _get(path: str, limit: int | None) -> bytes | None:
    for last in (False, True):
        try:
            return _read(path, limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            # Replaced on another node meanwhile: the new file is found by its name.
            if error.errno != errno.ESTALE or last:
                raise
    return None


def _read(path: str, limit: int | None) -> bytes:
    with open(path, "rb") as stream:
        if limit is not None:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - limit))
        return stream.read()
