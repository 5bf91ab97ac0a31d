"""Optuna's journal file as a study database, with a tail that mends itself.

Optuna 5 reads a journal whose last line was cut short by a crash or a full disk, but glues the next
record to it, after which the file can never be read again. Here each append first looks, under the
lock, at what it did not write itself, and cuts what is no whole record from the end: that was never
acknowledged. A bad line with good ones behind it is damage, which nobody can mend here.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from orchestrator.errors import Paused
from orchestrator.store.atomic import told_in_words
from orchestrator.store.readers import settled

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MendedJournal", "mend", "open_journal"]

_LOCK_GRACE = 30  # Optuna's own


def open_journal(path: Path) -> JournalStorage:
    """Open (or make) the journal at ``path`` for its one writer, its tail mended under the lock.

    Parameters
    ----------
    path : Path
        Made absolute: Optuna's locks never resolve after a crash on a relative path.

    Raises
    ------
    Paused
        It is damaged where it cannot be mended, or cannot be written.
    """
    path = path.resolve()
    # The lease says that we are the one driver, so a lock here is a dead driver's.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.lock")
    os.close(settled(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path))
    backend = MendedJournal(path)
    backend.append_logs([])
    return JournalStorage(backend)


def mend(path: Path, start: int = 0) -> int:
    """Cut what is no whole record from the end of ``path``; the caller holds the lock.

    The cut bytes are kept in ``<path>.bak``.

    Parameters
    ----------
    start : int
        Where the first line begins that is not known to be good.

    Returns
    -------
    int
        Size of the file now.

    Raises
    ------
    Paused
        A line is no record although records follow it, or the file is shorter than ``start``.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == start:
            return size
        if size < start:
            raise _damaged(path, "it was cut short while it was in use")
        file.seek(start)
        bad: int | None = None
        end = start
        for line in file:
            if not _is_record(line):
                bad = end if bad is None else bad
            elif bad is not None:
                raise _damaged(path, f"what stands at byte {bad} is no record, though records follow it")
            end += len(line)
        if bad is None:
            return size
        file.seek(bad)
        torn = file.read()
        descriptor = os.open(f"{path}.bak", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "ab") as kept:
            kept.write(torn + b"\n")
        file.truncate(bad)
        file.flush()
        os.fsync(file.fileno())
    return bad


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:  # covers UnicodeDecodeError
        return False


def _damaged(path: Path, what: str) -> Paused:
    return Paused(
        f"the journal {path} is damaged: {what}",
        hint="`survey doctor STUDY --rebuild` makes it again from the attempt files; the damaged one is kept aside",
    )


class MendedJournal(JournalFileBackend):
    """A `JournalFileBackend` that never appends to a line that was cut short.

    Parameters
    ----------
    path : Path
        The journal, absolute; it exists.
    grace : int
        Seconds after which the lock of a holder that shows no life is broken.
    """

    def __init__(self, path: Path, grace: int = _LOCK_GRACE) -> None:
        self._path = path
        self._whole = 0  # size up to which the file is known to be good
        self._open_lock = JournalFileOpenLock(str(path), grace_period=grace)
        super().__init__(str(path), lock_obj=self._open_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append ``logs`` as whole lines, synced; what a failed write left is cut again.

        Raises
        ------
        Paused, SurveyError
            As `orchestrator.store.atomic.told_in_words`.
        """
        with told_in_words(self._path):
            self._append_whole(logs)

    def _append_whole(self, logs: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._open_lock.acquire()
        try:
            self._whole = mend(self._path, self._whole)
            if data:
                self._append(data)
                self._whole += len(data)
        finally:
            self._open_lock.release()

    def _append(self, data: bytes) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Whole lines of a record whose write failed must not count either.
            with contextlib.suppress(OSError):
                os.truncate(self._path, self._whole)
            raise
