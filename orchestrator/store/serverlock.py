"""One driver per study on a database server: a lock that the server gives to a session and takes back with it.

The lease of a study's folder cannot see a driver that works on the same database from another folder.
This lock can, and it is on the connection that writes: a driver whose session ended has to take the
lock again before it can write again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import HeldByAnother

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

__all__ = ["DRIVER", "StudyLock"]

DRIVER = "driver"
"""The study's user attribute that says who drives it, for whoever is refused."""

# A server needs a moment to see that a killed driver is gone.
_LOOKS = 20
_PAUSE = 0.25


class StudyLock:
    """The lock of one study; `taken_by` goes to the ``connect`` event of an engine with one connection.

    Parameters
    ----------
    dialect : str
        ``postgresql`` or ``mysql``.
    database : str
        Name of the database: MySQL's locks are the whole server's.
    place : str
        The database, for messages.
    """

    def __init__(self, dialect: str, database: str, study: str, place: str) -> None:
        self._study = study
        self._place = place
        self._session: int | None = None
        digest = hashlib.sha256(f"{database}\0{study}".encode()).digest()
        if dialect == "postgresql":
            names: tuple[Any, ...] = struct.unpack(">ii", digest[:8])
            self._names = names
            self._take = "SELECT pg_try_advisory_lock(%s, %s)"
            self._myself = "SELECT pg_backend_pid()"
            self._holder = (
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND classid::bigint = %s::bigint & 4294967295 AND objid::bigint = %s::bigint & 4294967295"
            )
            self._end = "SELECT pg_terminate_backend(%s)"
            self._quote = '"'
        else:
            self._names = (f"survey-{digest.hex()[:40]}",)
            self._take = "SELECT GET_LOCK(%s, 0)"
            self._myself = "SELECT CONNECTION_ID()"
            self._holder = "SELECT IS_USED_LOCK(%s)"
            self._end = "KILL %s"
            self._quote = "`"

    def taken_by(self, connection: DBAPIConnection, _record: object = None) -> None:
        """Take the lock for a connection that was just made.

        Raises
        ------
        HeldByAnother
            Another session has it; the pool closes the connection then.
        """
        cursor = connection.cursor()
        self._take_for(cursor)
        connection.commit()
        cursor.close()

    def _take_for(self, cursor: DBAPICursor) -> None:
        holder = None
        for _ in range(_LOOKS):
            if self._ask(cursor, self._take, *self._names):
                self._session = self._ask(cursor, self._myself)
                return
            holder = self._ask(cursor, self._holder, *self._names)
            if holder is not None and holder == self._session:
                # Our own session, whose connection broke before the server saw it.
                self._ask(cursor, self._end, holder)
            time.sleep(_PAUSE)
        end = self._end.replace("%s", str(holder))
        raise HeldByAnother(
            f"study {self._study!r} in {self._place} is driven by {self._who(cursor)} (session {holder} of the server)",
            hint=f"wait for it, or end it there; if that machine is gone for good, end its session: {end}",
        )

    @staticmethod
    def _ask(cursor: DBAPICursor, statement: str, *values: Any) -> Any:
        cursor.execute(statement, values)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _who(self, cursor: DBAPICursor) -> str:
        key = f"{self._quote}key{self._quote}"
        with contextlib.suppress(Exception):  # it has not said so yet
            told = self._ask(
                cursor,
                "SELECT value_json FROM study_user_attributes JOIN studies USING (study_id)"  # noqa: S608 - constants
                f" WHERE study_name = %s AND {key} = %s",
                self._study,
                DRIVER,
            )
            return str(json.loads(told))
        return "another driver"
