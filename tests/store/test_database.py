"""Databases open as told, say what is wrong without a password, and can be read and backed up safely."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import traceback
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from orchestrator.errors import Paused, SurveyError, UsageError
from orchestrator.store import sqlite
from orchestrator.store.database import (
    backup,
    close_storage,
    describe,
    explained,
    open_for_reading,
    open_storage,
    redact,
)
from orchestrator.store.trouble import ServerAway


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:p@ss:w/rd@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db?user=me&password=***"),
        (
            "postgresql://host/db?sslpassword=s3cret&sslmode=require",
            "postgresql://host/db?sslpassword=***&sslmode=require",
        ),
        ("mysql://:s3cret@host/db", "mysql://:***@host/db"),
        (
            "connection to 'host=h password=s3cret dbname=d' failed",
            "connection to 'host=h password=*** dbname=d' failed",
        ),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("mysql://me@host/db", "mysql://me@host/db"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert "s3cret" not in redact(url)


def test_the_default_is_a_private_sqlite_file_with_full_sync_and_a_rollback_journal(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "study")
    assert isinstance(storage, optuna.storages.RDBStorage)
    connection = storage.engine.raw_connection()
    pragmas = {
        name: connection.cursor().execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "locking_mode")
    }
    connection.close()
    close_storage(storage)
    assert pragmas == {"journal_mode": "delete", "synchronous": 2, "locking_mode": "exclusive"}
    assert stat.S_IMODE((tmp_path / "study" / "study.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "study").stat().st_mode) == 0o700


def test_a_second_writer_is_locked_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.0)
    storage = open_storage(None, tmp_path)
    with pytest.raises(Paused, match=r"study\.db cannot be used: .*locked") as caught:
        open_storage(None, tmp_path)
    assert "another program" in caught.value.hint
    close_storage(storage)
    close_storage(open_storage(None, tmp_path))


def test_without_working_locks_sqlite_uses_a_lock_folder_and_a_dead_drivers_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "locks_work", lambda _: False)
    (tmp_path / "study.db.lock").mkdir()
    storage = open_storage(None, tmp_path)
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    assert (tmp_path / "study.db.lock").is_dir()
    close_storage(storage)
    assert not (tmp_path / "study.db.lock").exists()


@pytest.mark.parametrize(
    ("url", "extra"), [("postgresql://me:s3cret@h/d", "postgres"), ("mysql://me:s3cret@h/d", "mysql")]
)
def test_a_missing_driver_names_the_extra(
    tmp_path: Path, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("psycopg", "pymysql"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError) as caught:
        open_storage(url, tmp_path)
    assert f"survey-orchestrator[{extra}]" in caught.value.hint
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h/0", "study.db", "postgresql:", "sqlite:///", "journal:"])
def test_a_url_of_no_known_kind_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError):
        open_storage(url, tmp_path)


class OperationalError(Exception):
    """What the drivers of all servers call it."""


def test_a_server_that_cannot_be_reached_is_named_without_the_password() -> None:
    refused = OperationalError("connection to postgresql://me:s3cret@h/d failed: Connection refused")
    with pytest.raises(ServerAway, match="Connection refused") as caught, explained("postgresql://me:***@h/d"):
        raise optuna.exceptions.StorageInternalError("during the commit") from refused
    assert "s3cret" not in str(caught.value)
    assert "server is up" in caught.value.hint


@pytest.mark.parametrize("url", ["sqlite:///deep/er.db", "journal:deep/er.log"])
def test_relative_files_are_the_roots(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    storage = open_storage(url, tmp_path)
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    close_storage(storage)
    assert describe(url, tmp_path) == str(tmp_path / url.partition(":")[2].removeprefix("///"))
    assert Path(describe(url, tmp_path)).stat().st_size > 0


def test_odd_characters_in_a_path_do_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "a?b#c%41{x} ü"
    storage = open_storage(None, root)
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    close_storage(storage)
    assert (root / "study.db").stat().st_size > 0


def test_a_file_that_is_no_database_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"definitely not SQLite" * 100)
    with pytest.raises(Paused, match="not a database"):
        open_storage(None, tmp_path)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        open_storage(None, tmp_path / "f")


def test_a_backup_is_consistent_and_a_lost_database_points_to_it(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    storage.create_new_trial(study_id)
    copy = backup(storage, tmp_path)
    storage.create_new_trial(study_id)
    close_storage(storage)
    assert copy == tmp_path / "study.db.backup"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    (tmp_path / "study.db").unlink()
    with pytest.raises(SurveyError, match=r"study\.db\.backup is there"):
        open_storage(None, tmp_path)
    shutil.copy(copy, tmp_path / "study.db")
    restored = open_storage(None, tmp_path)
    assert restored.get_n_trials(study_id) == 1
    close_storage(restored)


def test_the_lock_survives_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.0)
    storage = open_storage(None, tmp_path)
    backup(storage, tmp_path)
    with pytest.raises(Paused, match="locked"):
        open_storage(None, tmp_path)
    close_storage(storage)


@pytest.mark.parametrize("url", [None, "journal:study.log"])
def test_reading_touches_nothing(tmp_path: Path, url: str | None) -> None:
    storage = open_storage(url, tmp_path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    storage.create_new_trial(study_id)
    close_storage(storage)
    before = {name: os.stat(tmp_path / name) for name in sorted(os.listdir(tmp_path))}
    with open_for_reading(url, tmp_path) as reader:
        assert [trial.state for trial in reader.get_all_trials(study_id)] == [TrialState.RUNNING]
    after = {name: os.stat(tmp_path / name) for name in sorted(os.listdir(tmp_path))}
    assert {name: (each.st_mtime_ns, each.st_size) for name, each in before.items()} == {
        name: (each.st_mtime_ns, each.st_size) for name, each in after.items()
    }


def test_reading_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match="no study database"), open_for_reading(None, tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_another_program_left_writing_ahead_is_brought_back_from_it(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    close_storage(storage)
    other = sqlite3.connect(tmp_path / "study.db")
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("UPDATE studies SET study_name = 'renamed'")
    other.commit()
    # As a killed program leaves it: its last writes are in the log, not in the file.
    left = {name: (tmp_path / name).read_bytes() for name in ("study.db", "study.db-wal")}
    other.close()
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    with open_for_reading(None, tmp_path) as reader:
        assert [study.study_name for study in reader.get_all_studies()] == ["renamed"]
    storage = open_storage(None, tmp_path)
    assert [study.study_name for study in storage.get_all_studies()] == ["renamed"]
    close_storage(storage)
    assert sorted(os.listdir(tmp_path)) == ["study.db"]


def test_a_damaged_page_is_found_at_the_start_and_told_what_to_do(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    for _ in range(50):
        storage.create_new_trial(study_id)
    close_storage(storage)
    path = tmp_path / "study.db"
    whole = path.read_bytes()
    for page in range(1, len(whole) // 4096, 4):
        path.write_bytes(whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :])
        before = path.read_bytes()
        with pytest.raises(Paused, match=r"study\.db cannot be used: .*(malformed|not a database)") as caught:
            open_storage(None, tmp_path)
        assert "survey doctor STUDY --rebuild" in caught.value.hint
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3:cret@h:port/d",
        "mysql://me:s3@cret@h:port/d",
        "postgresql://me:s3cret@h",
    ],
)
def test_a_url_that_cannot_be_read_is_told_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_storage(url, tmp_path)
    assert "s3" not in str(caught.value)
    assert "s3" not in "".join(traceback.format_exception(caught.value))


class _Said(Exception):
    """An error as a server's driver has it."""

    def __init__(self, *arguments: object, sqlstate: str | None = None) -> None:
        super().__init__(*arguments)
        self.sqlstate = sqlstate


Operational = type("OperationalError", (_Said,), {})


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (Operational("server closed the connection unexpectedly"), True),
        (Operational("connection timeout expired"), True),
        (Operational("FATAL:  the database system is starting up"), True),
        (Operational("terminating", sqlstate="57P01"), True),
        (Operational("connection failure", sqlstate="08006"), True),
        (Operational("deadlock detected", sqlstate="40P01"), True),
        (Operational('FATAL:  password authentication failed for user "me"'), False),
        (Operational('FATAL:  database "d" does not exist'), False),
        (Operational("FATAL:  no pg_hba.conf entry for host"), False),
        (Operational("could not extend file: No space left on device", sqlstate="53100"), False),
        (Operational(2003, "Can't connect to MySQL server"), True),
        (Operational(2013, "Lost connection to MySQL server during query"), True),
        (Operational(1927, "Connection was killed"), True),
        (Operational(1045, "Access denied for user 'me'@'h' (using password: YES)"), False),
        (Operational(1049, "Unknown database 'd'"), False),
        (_Said("value too long", sqlstate="22001"), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_server_that_is_away_is_told_from_one_that_refuses(error: Exception, away: bool) -> None:
    with pytest.raises(Paused) as caught, explained("postgresql://h/d"):
        raise optuna.exceptions.StorageInternalError("during the commit") from error
    assert isinstance(caught.value, ServerAway) is away
    assert caught.value.exit_code == 4
