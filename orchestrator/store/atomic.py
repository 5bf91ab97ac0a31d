"""Files that are there whole or not at all, private to their owner, and still there after a power cut.

A file is written under a temporary name in its own folder, synced, closed (network file systems
report a full disk or quota only there), renamed, and the folder is synced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Paused, SurveyError, UsageError
from orchestrator.store.readers import settled, settled_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "create_exclusive",
    "encode",
    "make_directory",
    "read_bytes",
    "read_in_words",
    "read_json",
    "sync_directory",
    "told_in_words",
    "write_bytes",
    "write_json",
]

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: a login shell's `ulimit -f`
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP}
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL, errno.EXDEV}
_PASSING = {errno.ESTALE, errno.EIO}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


@contextlib.contextmanager
def told_in_words(path: Path) -> Iterator[None]:
    """Turn an OSError of writing ``path`` into an error that says what to do.

    Raises
    ------
    Paused
        No space or no quota left: nothing is lost, and running again goes on.
    UsageError
        The folder cannot be written by this user.
    SurveyError
        Anything else that the operating system reports.
    """
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _NO_SPACE:
            raise Paused(
                f"cannot write {path}: {why}",
                hint="free space or quota there (the file before the write is intact), then run the study again",
            ) from error
        if error.errno in _NOT_ALLOWED:
            raise UsageError(
                f"cannot write {path}: {why}",
                hint="choose a root folder that you may write to, or mend its permissions",
            ) from error
        raise SurveyError(f"cannot write {path}: {why}", hint="see whether its file system is well") from error


def make_directory(path: Path) -> Path:
    """Make ``path`` and what is missing above it, each new folder with mode 0700."""
    with told_in_words(path):
        missing = []
        folder = path
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, DIRECTORY_MODE)
                settled_folder(each)
                sync_directory(each.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` durable, where the file system knows how to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON with a newline at its end.

    Non-finite numbers become ``NaN`` and ``Infinity``, which Python reads back: a program may well
    report a loss that is not a number, and a record must not fail on it.
    """
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _write_synced(path: Path, data: bytes) -> None:
    """Create ``path`` and write ``data`` through to the disk; raises FileExistsError where it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = settled(os.open(path, flags, FILE_MODE), path)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, whole, synced, mode 0600.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `told_in_words`; ``path`` then still has its old content.
    """
    with told_in_words(path):
        temporary = _temporary(path)
        try:
            _write_synced(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON; see `write_bytes`."""
    write_bytes(path, encode(value))


def create_exclusive(path: Path, data: bytes) -> bool:
    """Create ``path`` with ``data``, whole and synced; False where it exists already.

    Of several processes on several machines exactly one gets True. A hard link from a finished
    temporary file makes the name appear with its content; file systems without hard links get
    ``O_EXCL``, where a crash can leave a file that is cut short.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `told_in_words`.
    """
    with told_in_words(path):
        temporary = _temporary(path)
        _write_synced(temporary, data)
        try:
            created = _link(temporary, path, data)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        sync_directory(path.parent)
    return created


def _link(temporary: Path, path: Path, data: bytes) -> bool:
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        # NFS may repeat a request whose answer was lost, and then report our own success as a
        # failure: the link count tells.
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            _write_synced(path, data)
        except FileExistsError:
            return False
    return True


def read_bytes(path: Path) -> bytes | None:
    """Read ``path``; None where there is no such file.

    Raises
    ------
    OSError
        If the file is there and cannot be read.
    """
    for pause in (0.0, 0.1, None):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            # The file was replaced while an NFS client held the old one, or its server hiccuped: look
            # the name up afresh.
            if error.errno not in _PASSING or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def read_in_words(path: Path) -> Any | None:
    """Read the JSON file ``path``, as `read_json`; what the operating system reports is told in words.

    Raises
    ------
    SurveyError
        If the file is there and cannot be read.
    """
    try:
        return read_json(path)
    except OSError as error:
        raise SurveyError(
            f"cannot read {path}: {error.strerror}",
            hint="see whether its file system is well and the file is yours, then try again; nothing was changed",
        ) from error


def read_json(path: Path) -> Any | None:
    """Read the JSON file ``path``; None where it is missing or torn.

    Raises
    ------
    OSError
        If the file is there and cannot be read.
    """
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:  # covers UnicodeDecodeError
        return None
