"""What Optuna, SQLAlchemy and the databases raise, in words: what happened, where, what to do; never a password."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING

from orchestrator.errors import Paused

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServerAway", "explained", "redact"]

# Up to the end of the word, a quoted one to its closing quote: a password may hold any character.
_USERINFO = re.compile(r"(://[^:/@\s]*):\S*@")
_SECRET = re.compile(
    r"(?i)\b((?:ssl)?(?:password|passwd|passphrase|pwd|secret|token)\s*=\s*)(?:'[^']*'|\"[^\"]*\"|[^&;\s'\"]*)"
)


class ServerAway(Paused):
    """The database server cannot be reached at the moment, or ended the connection; it may well be back soon."""


def redact(text: str) -> str:
    """``text`` with the passwords of the URLs in it replaced by ``***``, in userinfo and in queries.

    Hides too much rather than too little: after an unescaped ``@`` in a password nothing is trusted.
    """
    return _SECRET.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


@contextlib.contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what Optuna, SQLAlchemy or SQLite raise about the database at ``place`` into words.

    Raises
    ------
    ServerAway
        The server is down, cut off or has ended the connection.
    Paused
        The database is full, locked, damaged or refuses us.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError, PendingRollbackError

    try:
        yield
    except (StorageInternalError, DBAPIError, PendingRollbackError, sqlite3.Error) as error:
        cause: BaseException = error
        dropped = False
        while isinstance(cause, (StorageInternalError, DBAPIError)):
            dropped |= isinstance(cause, DBAPIError) and cause.connection_invalidated
            deeper = cause.orig if isinstance(cause, DBAPIError) else cause.__cause__
            if deeper is None:
                break
            cause = deeper
        # Optuna goes on for a moment in a transaction whose connection was cut.
        dropped |= isinstance(cause, PendingRollbackError)
        why = redact(" ".join(str(cause).split()))
        if not isinstance(cause, sqlite3.Error) and (dropped or _away(cause)):
            raise ServerAway(
                f"the server of the study database {place} cannot be reached: {why}",
                hint="see that the server is up and that the URL is right, then run the study again; nothing is lost",
            ) from error
        raise Paused(f"the study database {place} cannot be used: {why}", hint=_advice(why)) from error


# Of PostgreSQL: connection exceptions (class 08), too many connections, idle in a transaction for too long,
# the server is going down, crashed, starting up, dropped an idle session; a conflict that a new try resolves.
_SQLSTATES = {"53300", "25P03", "57P01", "57P02", "57P03", "57P05", "40001", "40P01"}
# Of MySQL and MariaDB: too many connections, lost packets, going down, a lock's timeout, a deadlock, killed;
# of its clients: cannot connect, gone away, lost, dropped for idleness.
_NUMBERS = {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1927, 4031, 2002, 2003, 2006, 2013, 2055}
# What PostgreSQL says to one who connects has no code in the client.
_REFUSED = re.compile(
    r"(?i)authentication|does not exist|pg_hba|permission|not permitted|\bssl\b|certificate|no password|invalid|unsupported"
)


def _away(error: BaseException) -> bool:
    """Whether an error of a server's driver says: not now; rather than: not you."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str):
        return state.startswith("08") or state in _SQLSTATES
    first = error.args[0] if error.args else None
    if isinstance(first, int):
        return first in _NUMBERS
    return type(error).__name__ == "OperationalError" and not _REFUSED.search(str(error))


def _advice(why: str) -> str:
    if re.search(r"\bfull\b|No space", why):
        return "free space or quota there, then run the study again; nothing that was recorded is lost"
    if "locked" in why:
        return "another program has it open: end that (a dashboard, a second driver), then run the study again"
    if "I/O error" in why or "readonly" in why or "unable to open" in why:
        return "see whether its file system is well, writable and within quota, then run the study again"
    if "malformed" in why or "not a database" in why:
        return "`survey doctor STUDY --rebuild` makes it again from the attempt files; the damaged one is kept aside"
    return "see that the URL, the user and the password are right, then run the study again"
