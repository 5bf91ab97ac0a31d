"""The look at a study: each way in which its parts can disagree, and that nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little_study import content, end, run, start, until, write_study
from looks import bad, of, said

from orchestrator.doctor.findings import Finding, Level, exit_code
from orchestrator.doctor.study import examine_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a study of three trials has run."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, trials=3)
    ran = run(folder, "run", "study.yaml")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of its record, to be spoilt."""
    return shutil.copytree(finished / "runs", tmp_path / "runs") / "toy"


def examine(study: Path) -> list[Finding]:
    before = content(study)
    found = examine_study(study, now=time.time())
    assert content(study) == before, "the doctor wrote something"
    return found


def change(path: Path, edit: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def execute(study: Path, statement: str) -> None:
    connection = sqlite3.connect(study / "study.db")
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def test_a_study_that_ran_is_well(study: Path) -> None:
    found = examine(study)
    assert bad(found) == {}, found
    assert "whole; 3 complete" in said(found, "database")
    assert "3 attempts agree with the trials; 0 in flight" in said(found, "ledger")
    assert "3 result.json compared" in said(found, "results")
    assert "none; the last one was process " in said(found, "driver")


def test_a_damaged_database_is_an_error_that_names_its_copy(study: Path) -> None:
    path = study / "study.db"
    data = bytearray(path.read_bytes())
    data[4096:20480] = os.urandom(16384)
    path.write_bytes(data)
    found = examine(study)
    assert bad(found) == {"database": Level.ERROR}
    assert "study.db.backup" in said(found, "database")
    assert exit_code(found) == 4


@pytest.mark.parametrize("what", ["cut", "empty", "text", "gone"])
def test_a_database_that_is_none_is_an_error(study: Path, what: str) -> None:
    path = study / "study.db"
    if what == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello " * 1000}[what])
    found = examine(study)
    assert bad(found)["database"] is Level.ERROR
    assert of(found, "database")[0].hint


def test_an_attempt_file_that_cannot_be_read_is_named(study: Path) -> None:
    path = study / "ledger" / "00001" / "attempt-1.json"
    path.write_bytes(path.read_bytes()[:50])
    found = examine(study)
    assert bad(found)["ledger"] is Level.ERROR
    assert str(path) in said(found, "ledger")


def test_a_trial_that_ended_without_an_attempt_is_an_error(study: Path) -> None:
    shutil.rmtree(study / "ledger" / "00002")
    assert "ERROR trial 2: ended by the database, without a single attempt" in said(examine(study), "ledger")


def test_an_attempt_of_a_trial_that_the_database_does_not_know_is_an_error(study: Path) -> None:
    path = shutil.copytree(study / "ledger" / "00002", study / "ledger" / "00009") / "attempt-1.json"
    change(path, lambda data: data.update(key="00009"))
    found = examine(study)
    assert "trial 9: of the ledger not in the database" in said(found, "ledger")
    assert bad(found)["ledger"] is Level.ERROR


def test_a_missing_earlier_attempt_is_an_error(study: Path) -> None:
    folder = study / "ledger" / "00000"
    (folder / "attempt-1.json").rename(folder / "attempt-2.json")
    change(folder / "attempt-2.json", lambda data: data.update(number=2))
    assert "attempt 1 has no file" in said(examine(study), "ledger")


def test_an_attempt_in_flight_of_a_trial_that_ended_is_an_error(study: Path) -> None:
    change(study / "ledger" / "00000" / "attempt-1.json", lambda data: data.update(outcome=None))
    assert "trial 0: ended by the database, and in flight by the ledger" in said(examine(study), "ledger")


def test_a_trial_that_was_not_told_is_taken_up_by_the_next_run(study: Path) -> None:
    execute(study, "UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    found = examine(study)
    assert "WARN trial 1: ended, and the database was not told" in said(found, "ledger")
    assert exit_code(found) == 0


def test_a_trial_that_was_asked_for_and_not_planned_is_taken_up_by_the_next_run(study: Path) -> None:
    execute(study, "UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    shutil.rmtree(study / "ledger" / "00001")
    assert "WARN trial 1: asked for, never planned" in said(examine(study), "ledger")


def test_a_value_that_is_not_what_was_measured_is_an_error(study: Path) -> None:
    execute(study, "UPDATE trial_values SET value = value + 1 WHERE trial_value_id = 2")
    found = examine(study)
    assert bad(found) == {"values": Level.ERROR}


def test_a_result_file_with_other_numbers_is_an_error(study: Path) -> None:
    change(study / "trials" / "00002" / "attempt-1" / "result.json", lambda data: data["metrics"].update(loss=0.0))
    found = examine(study)
    assert bad(found) == {"results": Level.ERROR}
    assert "other numbers than the ledger: 00002" in said(found, "results")


def test_folders_that_were_tidied_away_are_a_warning_once_the_trial_has_ended(study: Path) -> None:
    shutil.rmtree(study / "trials" / "00000")
    found = examine(study)
    assert bad(found) == {"results": Level.WARN}
    change(study / "ledger" / "00000" / "attempt-1.json", lambda data: data.update(outcome=None))
    execute(study, "UPDATE trials SET state = 'RUNNING' WHERE number = 0")
    assert "attempts in flight are gone or empty: 00000" in said(examine(study), "results")


def test_a_driver_that_died_is_a_warning_with_what_to_do(study: Path) -> None:
    change(study / "driver.json", lambda data: data.update(released=None, start="1"))
    found = examine(study)
    assert "did not give the lease back: it is dead" in said(found, "driver")
    assert "run the study again" in said(found, "driver")
    assert exit_code(found) == 0


def test_a_driver_elsewhere_that_fell_silent_is_a_warning(study: Path) -> None:
    quiet = {"released": None, "host": "far-away", "boot_id": "x", "renewed": time.time() - 400}
    change(study / "driver.json", lambda data: data.update(quiet))
    found = examine(study)
    assert "holds the lease" in said(found, "driver")
    assert "See on far-away" in said(found, "driver")


def test_a_driver_that_publishes_nothing_any_more_is_a_warning(study: Path) -> None:
    away = {"released": None, "host": "far-away", "boot_id": "x", "renewed": time.time()}
    change(study / "driver.json", lambda data: data.update(away))
    change(study / "snapshot.json", lambda data: data.update(updated=time.time() - 900))
    assert "WARN done, 15m old, although a driver is alive" in said(examine(study), "snapshot")


def test_a_snapshot_or_a_study_file_that_cannot_be_read_hides_nothing_else(study: Path) -> None:
    (study / "snapshot.json").write_text("{")
    found = examine(study)
    assert bad(found) == {"snapshot": Level.WARN}
    (study / "study.yaml").write_text("name: [")
    found = examine(study)
    assert bad(found)["study.yaml"] is Level.ERROR
    assert of(found, "space")


def test_torn_lines_of_the_events_are_a_remark(study: Path) -> None:
    with (study / "events.jsonl").open("a") as stream:
        stream.write('{"event": "to')
    assert "1 lines are torn" in said(examine(study), "files")


def test_a_study_at_work_is_looked_at_without_touching_its_database(tmp_path: Path) -> None:
    write_study(tmp_path, environment={"GATE": str(tmp_path / "gate")})
    driver = start(tmp_path, "run", "study.yaml")
    study = tmp_path / "runs" / "toy"
    try:
        until(lambda: len(list(study.glob("trials/*/attempt-1/claim"))) == 2, "both trials run")
        found = examine_study(study, now=time.time())
        assert bad(found) == {}, found
        assert "is at work" in said(found, "driver")
        assert "the driver has it" in said(found, "database")
        driver.kill()
        driver.wait()
        found = examine_study(study, now=time.time())
        assert set(bad(found).values()) <= {Level.WARN}, found
        assert "it is dead" in said(found, "driver")
        assert "2 in flight" in said(found, "ledger")
    finally:
        (tmp_path / "gate").write_text("")
        driver.kill()
        end(driver)
    assert run(tmp_path, "resume").code == 0
    assert bad(examine(study)) == {}
