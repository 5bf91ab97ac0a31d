"""SQLite as a study's database: one writer on any file system, each transition one short transaction.

Optuna's RDB storage serves here as it is, but for the three writes in the life of every trial, which
it makes of dozens of ORM queries and several synced transactions. `SQLiteStorage` writes the same rows
with a few plain statements in one transaction. Anything unusual, and any schema that it was not
written for, goes the way of Optuna's own code.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import StaticPool

from orchestrator.store.readers import settled
from orchestrator.store.trials import parted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

__all__ = ["REVISION", "SQLiteStorage", "connect", "locks_work", "open_sqlite"]

REVISION = "v3.2.0.a"
"""The schema whose rows are written without Optuna: its models as of this revision (optuna 3.2 to 5.0)."""
_BUSY_SECONDS = 10.0

_ATTRIBUTE = (
    "INSERT INTO trial_{kind}_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"
    " ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json"
)


def open_sqlite(path: Path) -> RDBStorage:
    """Open (or make) the database at ``path``, mode 0600, and lock it until it is closed."""
    os.close(settled(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path))
    settings: dict[str, Any] = {
        "creator": lambda: connect(path),
        # One connection for all threads (the mirror lets one in at a time): a second one would wait
        # for ever on the first one's lock.
        "poolclass": StaticPool,
    }
    storage = SQLiteStorage("sqlite://", engine_kwargs=settings)
    if storage.get_current_version() == REVISION:
        return storage
    storage.engine.dispose()
    return RDBStorage("sqlite://", engine_kwargs=settings)


def connect(path: Path) -> sqlite3.Connection:
    """Connect to SQLite as its one writer: rollback journal, full sync, exclusive lock at once.

    Raises
    ------
    sqlite3.Error
        Another program has it open, or it is damaged: that is found before anything is written to it.
    """
    vfs = ""
    if not locks_work(path.parent):
        # The lease says that we are the one driver, so a lock folder here is a dead driver's.
        vfs = "?vfs=unix-dotfile"
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path.with_name(path.name + ".lock"))
    connection = sqlite3.connect(path.as_uri() + vfs, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        # A log that is written ahead needs memory shared by all that have the file open: not over a network.
        # A file that another program left in that mode is brought back from it.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # Takes the lock now rather than at the first trial.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")
    except BaseException:
        connection.close()
        raise
    return connection


def locks_work(folder: Path) -> bool:
    """Say whether POSIX record locks, SQLite's means, are to be had in ``folder``."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}:
                return False
            raise
    return True


class SQLiteStorage(RDBStorage):
    """Optuna's RDB storage with short writes, for the one process that writes."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write a trial whole, in one transaction."""
        trial = template_trial
        if trial is None or trial.state.is_finished() or trial.values is not None or trial.intermediate_values:
            return super().create_new_trial(study_id, template_trial)
        parameters = [
            (name, trial.distributions[name].to_internal_repr(value), distribution_to_json(trial.distributions[name]))
            for name, value in trial.params.items()
        ]
        with self.engine.begin() as connection:
            trial_id: int = connection.exec_driver_sql(
                "INSERT INTO trials (number, study_id, state, datetime_start)"
                " VALUES ((SELECT count(*) FROM trials WHERE study_id = ?), ?, ?, ?) RETURNING trial_id",
                (study_id, study_id, trial.state.name, _utc(trial.datetime_start)),
            ).scalar_one()
            if parameters:
                connection.exec_driver_sql(
                    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                    [(trial_id, *each) for each in parameters],
                )
            _set_attributes(connection, "user", trial_id, trial.user_attrs)
            _set_attributes(connection, "system", trial_id, trial.system_attrs)
        return trial_id

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write one attribute of a running trial."""
        with self.engine.begin() as connection:
            if self._is_running(connection, trial_id):
                _set_attributes(connection, "user", trial_id, {key: value})
                return
        super().set_trial_user_attr(trial_id, key, value)

    def finish_trial(
        self, trial_id: int, attributes: Mapping[str, Any], state: TrialState, values: Sequence[float] | None
    ) -> None:
        """End a running trial: its attributes, values and state in one transaction.

        Raises
        ------
        UpdateFinishedTrialError
            If it has ended before; nothing is written then.
        """
        with self.engine.begin() as connection:
            if self._is_running(connection, trial_id):
                for kind, each in zip(("user", "system"), parted(attributes), strict=True):
                    _set_attributes(connection, kind, trial_id, each)
                connection.exec_driver_sql("DELETE FROM trial_values WHERE trial_id = ?", (trial_id,))
                if values is not None:
                    connection.exec_driver_sql(
                        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
                        [(trial_id, objective, float(value)) for objective, value in enumerate(values)],
                    )
                connection.exec_driver_sql(
                    "UPDATE trials SET state = ?, datetime_complete = ? WHERE trial_id = ?",
                    (state.name, _utc(datetime.now(UTC)), trial_id),
                )
                return
        self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
        super().set_trial_state_values(trial_id, state, values)

    @staticmethod
    def _is_running(connection: Connection, trial_id: int) -> bool:
        found = connection.exec_driver_sql("SELECT state FROM trials WHERE trial_id = ?", (trial_id,)).scalar()
        return found == TrialState.RUNNING.name


def _set_attributes(connection: Connection, kind: str, trial_id: int, attributes: Mapping[str, Any]) -> None:
    if attributes:
        connection.exec_driver_sql(
            _ATTRIBUTE.format(kind=kind), [(trial_id, key, json.dumps(value)) for key, value in attributes.items()]
        )


def _utc(when: datetime | None) -> str | None:
    """Format a time as SQLAlchemy stores it in SQLite; Optuna stores naive UTC."""
    return None if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
