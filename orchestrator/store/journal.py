"""Optuna's journal file as a study database, with a tail that mends itself.

Optuna 5 reads a journal whose last line was cut short by a crash or a full disk, but glues the next
record to it, after which the file can never be read again. Here each append first looks at the last
byte, under the lock, and cuts what no newline ended: that record was never acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from orchestrator.store.atomic import told_in_words

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MendedJournal", "open_journal", "repair_tail"]

_LOCK_GRACE = 30  # Optuna's own


def open_journal(path: Path) -> JournalStorage:
    """Open (or make) the journal at ``path`` for its one writer, its tail mended under the lock.

    Parameters
    ----------
    path : Path
        Made absolute: Optuna's locks never resolve after a crash on a relative path.
    """
    path = path.resolve()
    # The lease says that we are the one driver, so a lock here is a dead driver's.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.lock")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    backend = MendedJournal(path)
    backend.append_logs([])
    return JournalStorage(backend)


def repair_tail(path: Path) -> int:
    """Cut what stands behind the last newline of ``path``; the caller holds the lock.

    The cut bytes are kept in ``<path>.bak``.

    Returns
    -------
    int
        Number of bytes cut, mostly 0.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return 0
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return 0
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.seek(end)
        torn = file.read()
        descriptor = os.open(f"{path}.bak", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "ab") as kept:
            kept.write(torn + b"\n")
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
    return len(torn)


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
            repair_tail(self._path)
            if data:
                self._append(data)
        finally:
            self._open_lock.release()

    def _append(self, data: bytes) -> None:
        size = self._path.stat().st_size
        try:
            with self._path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Whole lines of a record whose write failed must not count either.
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)
            raise
