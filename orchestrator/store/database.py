"""Where the trials are kept: SQLite by default, a server by URL, or Optuna's journal file.

SQLite is opened for the case that every real user has, a network file system: one writer, one
connection, and an exclusive lock that is held until `close_storage`. As long as a driver runs, nothing in
its process may open and close ``study.db`` by other means: POSIX locks are lost with the first descriptor
of the file that a process closes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Paused, SurveyError, UsageError
from orchestrator.store.atomic import make_directory, sync_directory, told_in_words
from orchestrator.store.readers import settled
from orchestrator.store.trouble import explained, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.storages import BaseStorage

__all__ = [
    "backup",
    "close_storage",
    "describe",
    "explained",
    "open_for_reading",
    "open_storage",
    "redact",
    "watched",
]

DATABASE = "study.db"
BACKUP = "study.db.backup"  # does not end in .db, so that no tool takes it for a second study

_JOURNAL = "journal:"


def describe(url: str | None, root: Path) -> str:
    """Say where the database is, in words that may be shown: a path, or a URL without its password."""
    path = local_file(url, root)
    return redact(url) if path is None and url is not None else str(path)


def local_file(url: str | None, root: Path) -> Path | None:
    """Find the file that holds the database, None if a server does; relative paths are the root's."""
    if url is None:
        return root.resolve() / DATABASE
    for prefix in (_JOURNAL, "sqlite:///"):
        if url.startswith(prefix):
            name = url.removeprefix(prefix)
            if not name:
                raise UsageError(f"the database URL {url!r} names no file")
            if "?" in name:  # what follows may be a password: it must not become a file's name, nor be shown
                raise UsageError(
                    f"the database URL {url.partition('?')[0]}?... has options, and a file takes none",
                    hint="leave out what begins with the question mark",
                )
            return (root / Path(name).expanduser()).resolve()
    return None


def open_storage(url: str | None, root: Path, *, study: str = "") -> BaseStorage:
    """Open the study database for the one process that writes it.

    Parameters
    ----------
    url : str or None
        None for SQLite in ``root``; ``sqlite:///file``, ``journal:file`` (relative to ``root``),
        ``postgresql://...`` or ``mysql://...``.
    root : Path
        The study's folder.
    study : str
        The study that is written: on a server its name is what is locked.

    Raises
    ------
    UsageError
        The URL is of no known kind, its driver is not installed, or the folder is not writable.
    HeldByAnother
        A driver from elsewhere works on this study of the server.
    Paused
        The database cannot be reached or written; the message has the URL without its password.
    SurveyError
        The database is gone and only its backup is left.
    """
    path = local_file(url, root)
    place = describe(url, root)
    if path is None:
        assert url is not None
        from orchestrator.store.server import open_server

        return open_server(url, place, study)
    make_directory(path.parent)
    with explained(place), told_in_words(path):
        if url is not None and url.startswith(_JOURNAL):
            from orchestrator.store.journal import open_journal

            return open_journal(path)
        spare = path.with_name(BACKUP)
        if path.name == DATABASE and not path.exists() and spare.exists():
            raise SurveyError(
                f"the study database {path} is gone, but its backup {spare} is there",
                hint=f"copy the backup to {path.name} to go on from it, or move it away to begin anew",
            )
        from orchestrator.store.sqlite import open_sqlite

        return open_sqlite(path)


@contextlib.contextmanager
def open_for_reading(url: str | None, root: Path) -> Iterator[BaseStorage]:
    """Open the study database to read it, without disturbing anything.

    A file is copied into a temporary folder and opened there, so that neither a lock nor the
    rollback of a killed driver's transaction ever touches the study's own file. Only for studies
    that no live driver holds: a copy of a file that is being written may be torn.

    Raises
    ------
    SurveyError
        There is no database.
    """
    path = local_file(url, root)
    place = describe(url, root)
    if path is None:
        assert url is not None
        from orchestrator.store.server import read_server

        server = read_server(url, place)
        try:
            yield server
        finally:
            close_storage(server)
        return
    if not path.is_file():
        raise SurveyError(f"there is no study database {path}", hint="`survey run` makes it")
    with tempfile.TemporaryDirectory(prefix="survey-") as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-journal", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.is_file():
                shutil.copyfile(source, copy.with_name(copy.name + suffix))
        storage = open_storage(f"{_JOURNAL if (url or '').startswith(_JOURNAL) else 'sqlite:///'}{copy}", Path(folder))
        try:
            yield storage
        finally:
            close_storage(storage)


def watched(path: Path | None) -> Callable[[], None]:
    """Make a check that the file ``path``, which is open now, is still the one of that name.

    SQLite goes on writing into a file that was removed or replaced under it, and all of that is lost.
    The check raises Paused; without a path (a server) it does nothing.
    """
    if path is None:
        return lambda: None

    def identity() -> tuple[int, int] | None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SurveyError(f"cannot look at the study database {path}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    opened = identity()

    def check() -> None:
        if identity() != opened:
            raise Paused(
                f"the study database {path} was removed or replaced while this driver ran; nothing more is written",
                hint="put the right file back and run the study again, or `survey doctor STUDY --rebuild`",
            )

    return check


def close_storage(storage: BaseStorage) -> None:
    """Let go of the database and of its lock."""
    storage.remove_session()
    engine = getattr(storage, "engine", None)
    if engine is not None:
        engine.dispose()


def backup(storage: BaseStorage, root: Path) -> Path | None:
    """Write a consistent copy of an SQLite database beside it, whole, as ``study.db.backup``.

    Uses SQLite's own online backup through the connection that holds the lock.

    Returns
    -------
    Path or None
        The copy; None where the database is not SQLite (a server has its own means).
    """
    engine = getattr(storage, "engine", None)
    if engine is None or engine.dialect.name != "sqlite":
        return None
    target = root.resolve() / BACKUP
    temporary = target.with_name(f".{BACKUP}.{os.getpid()}.tmp")
    with explained(str(target)), told_in_words(target):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(settled(os.open(temporary, flags, 0o600), temporary))
            source = engine.raw_connection()
            try:
                with contextlib.closing(sqlite3.connect(temporary)) as copy:
                    source.driver_connection.backup(copy)
            finally:
                source.close()
            descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
            sync_directory(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return target
