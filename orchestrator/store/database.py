"""Where the trials are kept: SQLite by default, a server by URL, or Optuna's journal file.

SQLite is opened for the case that every real user has, a network file system: one writer, one
connection, and an exclusive lock that is held until `close_storage`. As long as a driver runs, nothing in its process may open and close ``study.db`` by other means:
POSIX locks are lost with the first descriptor of the file that a process closes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Paused, SurveyError, UsageError
from orchestrator.store.atomic import make_directory, sync_directory, told_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import BaseStorage, RDBStorage

__all__ = ["backup", "close_storage", "describe", "explained", "open_for_reading", "open_storage", "redact"]

DATABASE = "study.db"
BACKUP = "study.db.backup"  # does not end in .db, so that no tool takes it for a second study

_CONNECT_SECONDS = 15
_JOURNAL = "journal:"

_USERINFO = re.compile(r"(://[^:/@\s]*):\S*@")
_SECRET = re.compile(r"(?i)\b((?:ssl)?(?:password|passwd|pwd|passphrase|secret|token)=)[^&;\s'\"]*")


def redact(text: str) -> str:
    """``text`` with the passwords of the URLs in it replaced by ``***``, in userinfo and in queries.

    Hides too much rather than too little: after an unescaped ``@`` in a password nothing is trusted.
    """
    return _SECRET.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


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
            return (root / Path(name).expanduser()).resolve()
    return None


def open_storage(url: str | None, root: Path) -> BaseStorage:
    """Open the study database for the one process that writes it.

    Parameters
    ----------
    url : str or None
        None for SQLite in ``root``; ``sqlite:///file``, ``journal:file`` (relative to ``root``),
        ``postgresql://...`` or ``mysql://...``.
    root : Path
        The study's folder.

    Raises
    ------
    UsageError
        The URL is of no known kind, its driver is not installed, or the folder is not writable.
    Paused
        The database cannot be reached or written; the message has the URL without its password.
    SurveyError
        The database is gone and only its backup is left.
    """
    path = local_file(url, root)
    place = describe(url, root)
    if path is None:
        assert url is not None
        return _open_server(url, place)
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
        server = _open_server(url, place)
        try:
            yield server
        finally:
            close_storage(server)
        return
    if not path.is_file():
        raise SurveyError(f"there is no study database {path}", hint="`survey run` makes it")
    with tempfile.TemporaryDirectory(prefix="survey-") as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-journal"):
            source = path.with_name(path.name + suffix)
            if source.is_file():
                shutil.copyfile(source, copy.with_name(copy.name + suffix))
        storage = open_storage(f"{_JOURNAL if (url or '').startswith(_JOURNAL) else 'sqlite:///'}{copy}", Path(folder))
        try:
            yield storage
        finally:
            close_storage(storage)


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
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
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


@contextlib.contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what Optuna, SQLAlchemy or SQLite raise about the database at ``place`` into words.

    Raises
    ------
    Paused
        The database is full, locked, unreachable or reports an input/output error.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (StorageInternalError, DBAPIError, sqlite3.Error) as error:
        cause: BaseException = error
        while isinstance(cause, (StorageInternalError, DBAPIError)):
            deeper = cause.orig if isinstance(cause, DBAPIError) else cause.__cause__
            if deeper is None:
                break
            cause = deeper
        why = redact(" ".join(str(cause).split()))
        raise Paused(f"the study database {place} cannot be used: {why}", hint=_advice(why)) from error


def _advice(why: str) -> str:
    if "full" in why:
        return "free space or quota there, then run the study again; nothing that was recorded is lost"
    if "locked" in why:
        return "another program has it open: end that (a dashboard, a second driver), then run the study again"
    if "I/O error" in why or "readonly" in why:
        return "see whether its file system is well, writable and within quota, then run the study again"
    if "malformed" in why or "not a database" in why:
        return f"put {BACKUP} in its place, then run the study again: results on disk are collected anew"
    return "see that the server is up and that the URL, the user and the password are right, then run the study again"


_SERVERS = {
    # scheme: (SQLAlchemy dialect and driver, extra)
    "postgresql": ("postgresql+psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "mysql"),
}


def _open_server(url: str, place: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    scheme, _, rest = url.partition("://")
    family, _, driver = scheme.partition("+")
    if not rest or family not in _SERVERS:
        raise UsageError(
            f"the database URL {place!r} is of no known kind",
            hint="known: sqlite:///file, journal:file, postgresql://user@host/name, mysql://user@host/name",
        )
    dialect, extra = _SERVERS[family]
    full = f"{scheme if driver else dialect}://{rest}"
    connect_args: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    with explained(place):
        try:
            # Optuna takes the URL for a format string.
            return RDBStorage(
                full.replace("{", "{{").replace("}", "}}"),
                engine_kwargs={"pool_pre_ping": True, "pool_size": 1, "max_overflow": 1, "connect_args": connect_args},
            )
        except ImportError as error:
            raise UsageError(
                f"the database {place} needs a driver that is not installed",
                hint=f"pip install 'survey-orchestrator[{extra}]'",
            ) from error
