"""PostgreSQL, MySQL and MariaDB as study databases: a trial's birth and its end are one transaction each.

The one connection that writes holds the study's lock on the server (`orchestrator.store.serverlock`).
A connection that broke is replaced before the next step; a step that broke with it is the caller's to
repeat, who looks first what became of it: Optuna's own storage would blindly write a second trial.
"""

from __future__ import annotations

import json
import logging
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table, delete, func, insert, inspect, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from orchestrator.errors import SurveyError, UsageError
from orchestrator.store.serverlock import StudyLock
from orchestrator.store.sqlite import REVISION
from orchestrator.store.trouble import explained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.storages import BaseStorage
    from sqlalchemy import Connection

__all__ = ["ServerStorage", "open_server", "read_server", "rename_studies"]

_FAMILIES = {
    # scheme: (SQLAlchemy dialect and driver, extra)
    "postgresql": ("postgresql+psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "mysql"),
}
# A server that has fallen silent is given up after two minutes, and one that lost us sees it as soon.
_PATIENCE: dict[str, dict[str, Any]] = {
    "postgresql+psycopg": {
        "connect_timeout": 15,
        "keepalives_idle": 60,
        "keepalives_interval": 10,
        "keepalives_count": 6,
        "tcp_user_timeout": 120_000,
        "options": "-c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6",
    },
    "mysql+pymysql": {
        "connect_timeout": 15,
        "read_timeout": 120,
        "write_timeout": 120,
        # A driver may have nothing to say for days; its lock must not go with an idle session.
        "init_command": "SET SESSION wait_timeout = 31536000",
    },
}
_SETUPS = 3
_MYSQL_TEXT = 65_535  # bytes of a TEXT column, which Optuna keeps attributes in


def open_server(url: str, place: str, study: str) -> RDBStorage:
    """Open the database at ``url`` to write ``study``, with its lock; tables are made if there are none.

    Raises
    ------
    UsageError
        The URL cannot be used, or its driver is not installed.
    HeldByAnother
        Another session drives this study.
    ServerAway, Paused
        The server cannot be reached, or refuses us.
    """
    # A read that a cut connection ended is one that Optuna tries in another way, with a page of SQL on stderr.
    logging.getLogger(RDBStorage.__module__).setLevel(logging.ERROR)
    full = _readable(url, place)
    lock = StudyLock(full.get_backend_name(), full.database or "", study, place)
    with explained(place):
        plain = _connected(full, place, poolclass=NullPool)
        revision = plain.get_current_version()
        plain.engine.dispose()
        kind = ServerStorage if revision == REVISION else RDBStorage
        return kind(
            _spelled(full),
            # Of one connection at most: what writes is what holds the lock.
            engine_kwargs={
                **_settings(full),
                "poolclass": QueuePool,
                "pool_size": 1,
                "max_overflow": 0,
                "pool_pre_ping": True,
                "pool_events": [(lock.taken_by, "connect")],
            },
            skip_compatibility_check=True,
            skip_table_creation=True,
        )


def read_server(url: str, place: str) -> RDBStorage:
    """Open the database at ``url`` to read it, without a lock; nothing is made.

    Raises
    ------
    SurveyError
        There are no tables of studies in it.
    UsageError, ServerAway, Paused
        As `open_server`.
    """
    full = _readable(url, place)
    with explained(place):
        return _connected(full, place, poolclass=NullPool, reading=True)


def rename_studies(storage: BaseStorage, names: Mapping[str, str]) -> set[str]:
    """Give studies other names, all in one transaction, in this order; those that were there."""
    assert isinstance(storage, RDBStorage)
    table = _table(models.StudyModel)
    found = set()
    with storage.engine.begin() as connection:
        for old, new in names.items():
            if connection.execute(update(table).where(table.c.study_name == old).values(study_name=new)).rowcount:
                found.add(old)
    return found


def _readable(url: str, place: str) -> URL:
    scheme, _, rest = url.partition("://")
    family, _, driver = scheme.partition("+")
    if not rest or family not in _FAMILIES:
        raise UsageError(
            f"the database URL {place!r} is of no known kind",
            hint="known: sqlite:///file, journal:file, postgresql://user@host/name, mysql://user@host/name",
        )
    try:
        full = make_url(f"{scheme if driver else _FAMILIES[family][0]}://{rest}")
    except (ArgumentError, ValueError):
        # What could not be read may be a part of the password: it is neither shown nor chained.
        raise UsageError(
            f"the database URL {place!r} cannot be read",
            hint="in a user's name or a password, write %40 for @, %2F for /, %3A for :, %25 for %",
        ) from None
    if not full.database:
        raise UsageError(f"the database URL {place!r} names no database", hint="postgresql://user@host/NAME")
    for name in ("passfile", "read_default_file"):
        if isinstance(path := full.query.get(name), str):
            _refuse_open_file(Path(path).expanduser())
    return full


def _refuse_open_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"the password file {path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"the password file {path} can be read by others", hint=f"chmod 600 {path}")


def _spelled(url: URL) -> str:
    # Optuna takes a URL for a format string.
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _settings(url: URL) -> dict[str, Any]:
    defaults = _PATIENCE.get(url.drivername, {})
    return {"connect_args": {name: value for name, value in defaults.items() if name not in url.query}}


def _connected(url: URL, place: str, *, reading: bool = False, **engine: Any) -> RDBStorage:
    """Open the database as Optuna does, which checks its version; with ``reading`` nothing is made."""
    from sqlalchemy import create_engine

    settings = {**_settings(url), **engine}
    for left in reversed(range(_SETUPS)):
        try:
            if reading:
                probe = create_engine(url, **settings)
                try:
                    found = inspect(probe).has_table("studies")
                finally:
                    probe.dispose()
                if not found:
                    raise SurveyError(f"there are no studies in {place}", hint="`survey run` makes them")
            return RDBStorage(_spelled(url), engine_kwargs=settings, skip_table_creation=reading)
        except ImportError as error:
            family = url.get_backend_name()
            raise UsageError(
                f"the database {place} needs a driver that is not installed",
                hint=f"pip install 'survey-orchestrator[{_FAMILIES[family][1]}]'",
            ) from error
        except RuntimeError as error:
            # Optuna's word on tables of another version.
            raise UsageError(f"the database {place} cannot be used by this Optuna: {error}") from error
        except DBAPIError as error:
            # Two studies that make the tables at the same time: one of them finds them there, next time.
            if not left or not any(word in str(error.orig) for word in ("already exists", "duplicate", "Duplicate")):
                raise
            time.sleep(1.0)
    raise AssertionError


class ServerStorage(RDBStorage):
    """Optuna's RDB storage with short writes, for the one process that writes."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write a trial whole, in one transaction, once: a write that failed is not repeated blindly."""
        trial = template_trial
        if trial is None or trial.state.is_finished() or trial.values is not None or trial.intermediate_values:
            return super().create_new_trial(study_id, template_trial)
        with self.engine.begin() as connection:
            studies, trials = _table(models.StudyModel), _table(models.TrialModel)
            connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update()).one()
            count = select(func.count()).select_from(trials).where(trials.c.study_id == study_id)
            row = {
                "number": connection.execute(count).scalar_one(),
                "study_id": study_id,
                "state": trial.state,
                "datetime_start": _utc(trial.datetime_start),
            }
            key = connection.execute(insert(trials).values(row)).inserted_primary_key
            assert key is not None
            trial_id = int(key[0])
            parameters = [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for name, value in trial.params.items()
            ]
            if parameters:
                connection.execute(insert(_table(models.TrialParamModel)), parameters)
            self._set_attributes(connection, models.TrialUserAttributeModel, trial_id, trial.user_attrs)
            self._set_attributes(connection, models.TrialSystemAttributeModel, trial_id, trial.system_attrs)
        return trial_id

    def finish_trial(
        self, trial_id: int, attributes: Mapping[str, Any], state: TrialState, values: Sequence[float] | None
    ) -> None:
        """End a running trial: its attributes, values and state in one transaction.

        Raises
        ------
        UpdateFinishedTrialError
            If it has ended before; nothing is written then.
        """
        trials, finals = _table(models.TrialModel), _table(models.TrialValueModel)
        with self.engine.begin() as connection:
            known = select(trials.c.state).where(trials.c.trial_id == trial_id).with_for_update()
            self.check_trial_is_updatable(trial_id, connection.execute(known).scalar_one())
            self._set_attributes(connection, models.TrialUserAttributeModel, trial_id, attributes)
            connection.execute(delete(finals).where(finals.c.trial_id == trial_id))
            if values is not None:
                kind = models.TrialValueModel.TrialValueType.FINITE
                connection.execute(
                    insert(finals),
                    [
                        {"trial_id": trial_id, "objective": objective, "value": float(value), "value_type": kind}
                        for objective, value in enumerate(values)
                    ],
                )
            ended = {"state": state, "datetime_complete": _utc(datetime.now(UTC))}
            connection.execute(update(trials).where(trials.c.trial_id == trial_id).values(ended))

    def _set_attributes(self, connection: Connection, kind: type, trial_id: int, attributes: Mapping[str, Any]) -> None:
        if not attributes:
            return
        table = _table(kind)
        connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key.in_(list(attributes))))
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": self._fitting(key, json.dumps(value))}
            for key, value in attributes.items()
        ]
        connection.execute(insert(table), rows)

    def _fitting(self, key: str, text: str) -> str:
        """Keep a program's free words from stopping a study whose server has no room for them in a column."""
        if key == "info" and self.engine.dialect.name == "mysql" and len(text) > _MYSQL_TEXT:
            return json.dumps({"cut": f"{len(text)} bytes do not fit this server's column: see result.json"})
        return text


def _table(model: Any) -> Table:
    table: Table = model.__table__
    return table


def _utc(when: datetime | None) -> datetime | None:
    """Optuna stores naive UTC."""
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None)
