"""Faults 35 to 42: disks, file systems and databases. Nothing that was written is lost, nothing is half there."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_deaths import another_process, killed
from fault_world import THREE, TRIALS, FaultWorld, play
from optuna.exceptions import StorageInternalError

from orchestrator.doctor.mending import rebuild_study
from orchestrator.errors import Paused
from orchestrator.search.chronicle import Chronicle
from orchestrator.simulate.clock import VirtualClock
from orchestrator.store import patience, sqlite
from orchestrator.store.sqlite import SQLiteStorage

three = pytest.mark.parametrize("kind", THREE)
FULL = [errno.ENOSPC, errno.EDQUOT]
SQLITE = {"storage": None}


def refused(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize(("first", "code"), list(zip([1, 2, 3, 4, 7, 12, 20, 35, 60, 100], FULL * 5, strict=True)))
def test_fault_35_a_disk_that_fills_up_at_any_write_pauses_and_room_lets_the_study_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: int, code: int
) -> None:
    synced = itertools.count(1)

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        if next(synced) >= first:
            raise refused(code)
        real(descriptor)

    async def body() -> None:
        world = FaultWorld(tmp_path)
        # The lease cannot be given back either: that its holder is no more must be enough.
        with another_process(), monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(Paused, match=os.strerror(code)) as caught:
                await world.run()
        assert str(tmp_path) in caught.value.message
        assert "free space or quota" in caught.value.hint
        assert caught.value.exit_code == 4
        await world.holds(await world.run())

    play(body)
    gc.collect()
    assert caplog.messages == [], "one message is enough"


@pytest.mark.parametrize("what", ["script", "log", "database"])
def test_fault_35_no_room_for_a_script_a_log_or_the_database_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)
        calls = itertools.count(1)

        def full(*_: object, **__: object) -> None:
            if what == "database":
                raise StorageInternalError from sqlite3.OperationalError("database or disk is full")
            raise refused(errno.ENOSPC)

        def after_four(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **named: Any) -> Any:
                return (full if next(calls) > 4 else call)(*arguments, **named)

            return called

        with monkeypatch.context() as patch:
            if what == "script":
                patch.setattr(world.transport.files, "write", after_four(world.transport.files.write))
            elif what == "log":
                patch.setattr(Chronicle, "write", after_four(Chronicle.write))
            else:
                patch.setattr(SQLiteStorage, "create_new_trial", after_four(SQLiteStorage.create_new_trial))
            # Of a file that is not ours alone the command line makes the words.
            with pytest.raises((Paused, OSError), match=r"full|No space left"):
                await world.run()
        await world.holds(await world.run())

    play(body)


@pytest.mark.parametrize("cut", [1, 9, 60])
def test_fault_36_a_journal_whose_last_line_is_torn_is_mended(tmp_path: Path, cut: int) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path)
        assert await killed(world, seconds=700.0)
        journal = world.folder / "study.log"
        os.truncate(journal, journal.stat().st_size - cut)
        await world.holds(await world.run())

    play(body)


LOOK = """
import sys
from pathlib import Path
from orchestrator.store.studydb import read_trials
print(*(each.values[0] for each in read_trials(Path(sys.argv[1]), name="faulty", url="journal:study.log")))
"""


def test_fault_36_a_mended_journal_opens_twice_in_other_processes(tmp_path: Path) -> None:
    async def body() -> tuple[list[float], Path]:
        world = FaultWorld(tmp_path)
        assert await killed(world, seconds=700.0)
        with (world.folder / "study.log").open("ab") as journal:
            journal.write(b'{"op_code": 6, "worker_')
        record = await world.run()
        await world.holds(record)
        return [trial.values[0] for trial in record.trials if trial.values], world.folder

    values, folder = play(body)
    for _ in range(2):
        said = subprocess.run([sys.executable, "-c", LOOK, str(folder)], capture_output=True, text=True, check=True)
        assert [float(word) for word in said.stdout.split()] == values


@three
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_fault_37_reads_that_fail_for_a_moment_are_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    def flaky(path: Path, real: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        reads[path] += 1
        if path.is_relative_to(tmp_path) and reads[path] % 2:
            raise refused(code)
        return real(path)

    reads: Counter[Path] = Counter()

    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        looks = itertools.count(1)
        look = world.transport.look

        async def blind(request: Any) -> Any:
            return await look(request) if next(looks) % 4 else None

        monkeypatch.setattr(world.transport, "look", blind)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", flaky)
            await world.cut_short(700.0)
            record = await world.run()
        await world.holds(record)
        assert len(world.attempts()) == TRIALS

    play(body)


class _Stalling(VirtualClock):
    """A machine on which work on a disk stands still from time to time."""

    def __init__(self) -> None:
        self.done = itertools.count(1)

    async def blocking(self, function: Callable[[], Any]) -> Any:
        if next(self.done) % 7 == 0:
            await asyncio.sleep(300.0)
        return await super().blocking(function)


@three
def test_fault_38_a_disk_that_stands_still_for_minutes_delays_the_driver_and_no_more(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, clock=_Stalling())
        await world.holds(await world.run())
        assert len(world.attempts()) == TRIALS

    play(body)


@three
@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_fault_39_a_file_system_without_hard_links_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    def link(*_: object, **__: object) -> None:
        raise refused(code)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link)
            assert await killed(world, seconds=700.0)
            record = await world.run()
        await world.holds(record)

    play(body)


@pytest.mark.parametrize("storage", [None, "journal:study.log"], ids=["sqlite", "journal"])
@pytest.mark.parametrize("loss", ["deleted", "old copy"])
def test_fault_40_a_database_that_is_lost_or_set_back_is_noticed_and_made_again_from_the_attempt_files(
    tmp_path: Path, storage: str | None, loss: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, changes={"storage": storage})
        database = world.folder / ("study.db" if storage is None else "study.log")
        assert await killed(world, seconds=50.0)
        shutil.copy(database, tmp_path / "old copy")
        assert await killed(world, seconds=1500.0)
        database.unlink()
        if loss == "old copy":
            shutil.copy(tmp_path / "old copy", database)
        with pytest.raises(Paused, match="older than the attempt files beside it") as caught:
            await world.run()
        assert "survey doctor STUDY --rebuild" in caught.value.hint
        assert rebuild_study(world.folder, now=world.clock.now()) is not None
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


def test_fault_40_a_database_that_is_deleted_while_a_driver_runs_stops_it(tmp_path: Path) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)

        async def delete() -> None:
            await asyncio.sleep(700.0)
            (world.folder / "study.db").unlink()

        with pytest.raises(Paused, match="was removed or replaced"):
            await world.run_while(delete())
        assert rebuild_study(world.folder, now=world.clock.now()) is not None
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


def test_fault_40_a_database_that_another_program_has_open_pauses_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.0)

    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)
        assert await killed(world, seconds=700.0)
        other = sqlite3.connect(world.folder / "study.db")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Paused, match="locked") as caught:
            await world.run()
        other.close()
        assert "dashboard" in caught.value.hint
        await world.holds(await world.run())

    play(body)


def test_fault_40_a_database_that_has_become_read_only_pauses_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)
        real = sqlite.connect

        def connect(path: Path) -> sqlite3.Connection:
            connection = real(path)
            connection.execute("PRAGMA query_only=1")
            return connection

        assert await killed(world, seconds=700.0)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "connect", connect)
            with pytest.raises(Paused, match="readonly") as caught:
                await world.run()
        assert "writable" in caught.value.hint
        await world.holds(await world.run())

    play(body)


@pytest.mark.parametrize("storage", [None, "journal:study.log"], ids=["sqlite", "journal"])
def test_fault_41_without_locks_of_the_file_system_the_lease_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str | None
) -> None:
    def locked(*_: object) -> None:
        raise refused(errno.ENOSYS)

    async def body() -> None:
        world = FaultWorld(tmp_path, changes={"storage": storage})
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", locked)
            patch.setattr(fcntl, "lockf", locked)
            assert await killed(world, seconds=700.0)
            record = await world.run()
        await world.holds(record)

    play(body)


class OperationalError(Exception):
    """What the drivers of all servers call it."""


def _server_says(words: str, monkeypatch: pytest.MonkeyPatch, calls: Iterator[bool]) -> None:
    """Let the database be a server's, which says ``words`` at the calls that are so marked, once it has done them."""

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if next(calls, False):
                raise StorageInternalError("during the commit") from OperationalError(words)
            return result

        return call

    for name in ("create_new_trial", "finish_trial"):
        monkeypatch.setattr(SQLiteStorage, name, around(getattr(SQLiteStorage, name)))


def test_fault_42_a_database_server_that_goes_away_in_mid_write_is_waited_for_and_nothing_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(patience, "_LAST_PAUSE", 0.001)
    calls = iter([False, True, True, False, True, False, False, True])
    _server_says("server closed the connection unexpectedly", monkeypatch, calls)

    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)
        await world.holds(await world.run())
        assert next(calls, None) is None

    play(body)


def test_fault_42_a_database_server_that_does_not_know_us_any_more_pauses_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([False] * 4 + [True])
    _server_says('password authentication failed for user "me"', monkeypatch, calls)

    async def body() -> None:
        world = FaultWorld(tmp_path, changes=SQLITE)
        with pytest.raises(Paused, match="password authentication failed") as caught:
            await world.run()
        assert "password" in caught.value.hint
        await world.holds(await world.run())

    play(body)
