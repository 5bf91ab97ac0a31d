"""A PostgreSQL and a MariaDB of the tests' own: in a temporary folder, on a free port of the loopback.

They run as the users that their packages made, since neither likes to be root. Nothing of a server
that the machine may have is read or touched.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import psycopg
import pymysql  # type: ignore[import-untyped]
from debian_packages import CannotProvide, install

__all__ = ["CANARY", "MariaDB", "PostgreSQL", "Server"]

CANARY = "k4n4ri3nv0gel%2F7"
"""The users' password as a URL has it; the server knows its ``%2F`` as a slash."""

_PASSWORD = CANARY.replace("%2F", "/")


class Server(ABC):
    """One server, made and started by `up`, gone after `down`."""

    scheme = ""
    package = ""
    user = ""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="survey-test-db-"))
        self.root.chmod(0o711)
        self.log = self.root / "install.log"
        self.data = self.root / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def up(self) -> None:
        """Install, initialise and start the server.

        Raises
        ------
        CannotProvide
            It cannot be had here.
        """
        install([self.package], self.log)
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.data, self.user, self.user)
        self._initialise()
        self.start()

    def down(self) -> None:
        """Stop the server and remove all of it."""
        self.stop()
        shutil.rmtree(self.root)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        for _ in range(20):
            with (self.root / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self.data,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **self._unprivileged(),
                )
            # After a kill the next start may find the last one's remains still in use.
            while self._process.poll() is None:
                if self.answers():
                    return
                time.sleep(0.05)
            time.sleep(0.25)
        raise CannotProvide(f"the server does not start: {(self.root / 'server.log').read_text()[-2000:]}")

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            # PyMySQL would leave its socket open where nobody listens.
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            self.sql("SELECT 1")
        except (OSError, psycopg.Error, pymysql.Error):
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server by a signal, and wait until it has ended."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None

    def new_database(self) -> str:
        """Make an empty database; returns its name."""
        self._databases += 1
        name = f"toy{self._databases}"
        self._make(name)
        return name

    def url(self, database: str, password: str = CANARY) -> str:
        """The URL of a database for its user, ``survey``."""
        return f"{self.scheme}://survey:{password}@127.0.0.1:{self.port}/{database}"

    def _unprivileged(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.data, capture_output=True, text=True, check=False, **self._unprivileged()
        )
        if done.returncode:
            raise CannotProvide(f"`{' '.join(command)}` failed: {done.stderr}")

    @abstractmethod
    def _initialise(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _make(self, database: str) -> None: ...

    @abstractmethod
    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the administrator; rows of the last one."""

    @abstractmethod
    def drop_sessions(self) -> int:
        """Cut the connections of the user ``survey``; how many there were."""

    @abstractmethod
    def new_password(self, password: str) -> None:
        """Give the user ``survey`` another password."""


class PostgreSQL(Server):
    """PostgreSQL as Debian has it."""

    scheme, package, user = "postgresql", "postgresql", "postgres"

    def _initialise(self) -> None:
        secret = self.root / "password"
        secret.write_text("admin\n")
        secret.chmod(0o644)
        self._run(
            [
                *(_program("initdb"), "-D", str(self.data / "cluster"), "-U", "admin", "--no-sync"),
                *("--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"),
            ]
        )

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.data,
            "fsync": "off",
            "max_connections": 30,
            "shared_buffers": "16MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [_program("postgres"), "-D", str(self.data / "cluster"), *words]

    def _make(self, database: str) -> None:
        if not self.sql("SELECT 1 FROM pg_roles WHERE rolname = 'survey'"):
            self.sql(f"CREATE ROLE survey LOGIN PASSWORD '{_PASSWORD}'")
        self.sql(f"CREATE DATABASE {database} OWNER survey")

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        where = {"host": "127.0.0.1", "port": self.port, "user": "admin", "password": "admin", "dbname": "postgres"}
        rows: list[tuple[Any, ...]] = []
        with psycopg.connect(**where, autocommit=True, connect_timeout=5) as connection:  # type: ignore[arg-type]
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def drop_sessions(self) -> int:
        return len(self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'survey'"))

    def new_password(self, password: str) -> None:
        self.sql(f"ALTER ROLE survey PASSWORD '{password}'")


class MariaDB(Server):
    """MariaDB as Debian has it."""

    scheme, package, user = "mysql", "mariadb-server", "mysql"

    def _initialise(self) -> None:
        self._run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={self.data}/files", "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ]
        )

    def _command(self) -> list[str]:
        return [
            *("mariadbd", "--no-defaults", f"--datadir={self.data}/files", f"--socket={self.data}/socket"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.data}/pid"),
            *("--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=2"),
            *("--innodb-flush-method=nosync", "--innodb-doublewrite=0", "--character-set-server=utf8mb4"),
        ]

    def _make(self, database: str) -> None:
        self.sql(
            f"CREATE DATABASE {database}",
            f"CREATE USER IF NOT EXISTS survey@'127.0.0.1' IDENTIFIED BY '{_PASSWORD}'",
            f"GRANT ALL ON {database}.* TO survey@'127.0.0.1'",
        )

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        # SIGINT means nothing to mariadbd.
        super().stop(signal.SIGTERM if number is signal.SIGINT else number)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        connection = pymysql.connect(unix_socket=f"{self.data}/socket", user="root", autocommit=True, connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def drop_sessions(self) -> int:
        sessions = self.sql("SELECT id FROM information_schema.processlist WHERE user = 'survey'")
        for (session,) in sessions:
            with contextlib.suppress(pymysql.Error):  # it has just ended by itself
                self.sql(f"KILL {session}")
        return len(sessions)

    def new_password(self, password: str) -> None:
        self.sql(f"ALTER USER survey@'127.0.0.1' IDENTIFIED BY '{password}'")


def _program(name: str) -> str:
    """PostgreSQL's programs lie outside PATH on Debian; the newest version counts."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if not found:
        raise CannotProvide(f"there is no {name} below /usr/lib/postgresql")
    return str(found[-1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
