"""Readers get the driver's snapshot, or the database when nobody drives."""

from __future__ import annotations

import dataclasses
import math
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

import pytest

from orchestrator.clock import SystemClock
from orchestrator.errors import SurveyError, UsageError
from orchestrator.store.lease import Lease
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.snapshot import publish, read, studies

if TYPE_CHECKING:
    from pathlib import Path

RECORD = StudyRecord(
    name="aneurysm",
    objectives=("pauc", "dice"),
    directions=("maximize", "maximize"),
    space={"lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True}},
    sampler={"name": "bo", "seed": 1},
    planned=10,
    parallel=4,
    site="abci",
    state="running",
    trials=(
        TrialRecord(number=0, state="complete", params={"lr": 0.1}, values=(0.5, 0.25), gpus=("0",), steps={1: 0.5}),
        TrialRecord(number=1, state="running", info={"note": "ünïcode"}),
    ),
)


def must_not_load(_: Path) -> NoReturn:
    raise AssertionError("the database was read")


def test_a_snapshot_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    publish(tmp_path, RECORD)
    with Lease.acquire(tmp_path, SystemClock()):
        assert read(tmp_path, must_not_load) == RECORD
    assert (tmp_path / "snapshot.json").stat().st_mode & 0o777 == 0o600


def test_a_snapshot_is_the_same_as_the_records_own_json(tmp_path: Path) -> None:
    import json

    publish(tmp_path, RECORD)
    assert json.loads((tmp_path / "snapshot.json").read_text()) == json.loads(json.dumps(RECORD.to_json()))


def test_numbers_that_are_not_finite_and_read_only_mappings_survive(tmp_path: Path) -> None:
    trial = TrialRecord(number=0, state="running", steps=MappingProxyType({3: math.inf}))
    publish(tmp_path, dataclasses.replace(RECORD, trials=(trial,), state="done"))
    assert read(tmp_path).trials[0].steps == {3: math.inf}


def test_without_a_driver_a_newer_database_is_read(tmp_path: Path) -> None:
    publish(tmp_path, RECORD)
    (tmp_path / "study.db").write_bytes(b"")
    os.utime(tmp_path / "snapshot.json", (1, 1))
    loaded = dataclasses.replace(RECORD, planned=99, state="done")
    assert read(tmp_path, lambda _: loaded) == loaded


def test_without_a_driver_a_newer_snapshot_is_read_and_says_interrupted(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"")
    os.utime(tmp_path / "study.db", (1, 1))
    publish(tmp_path, RECORD)
    assert read(tmp_path, must_not_load) == dataclasses.replace(RECORD, state="interrupted")


def test_a_snapshot_of_another_version_makes_way_for_the_database(tmp_path: Path) -> None:
    (tmp_path / "snapshot.json").write_text('{"snapshot_version": 0}')
    loaded = dataclasses.replace(RECORD, state="done")
    assert read(tmp_path, lambda _: loaded) == loaded


def test_a_database_that_cannot_be_read_makes_way_for_an_older_snapshot(tmp_path: Path) -> None:
    def broken(_: Path) -> NoReturn:
        raise SurveyError("no")

    publish(tmp_path, RECORD)
    (tmp_path / "study.db").write_bytes(b"")
    os.utime(tmp_path / "snapshot.json", (1, 1))
    assert read(tmp_path, broken).name == "aneurysm"
    (tmp_path / "snapshot.json").unlink()
    with pytest.raises(SurveyError, match="no"):
        read(tmp_path, broken)


def test_a_driver_that_has_not_published_yet_is_no_error_of_the_study(tmp_path: Path) -> None:
    with Lease.acquire(tmp_path, SystemClock()), pytest.raises(SurveyError, match="just starting"):
        read(tmp_path, must_not_load)


def test_a_study_that_was_never_run_says_how(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("")
    with pytest.raises(SurveyError, match="not been run yet") as caught:
        read(tmp_path)
    assert "survey run" in caught.value.hint


def test_a_wrong_folder_is_told_the_right_one(tmp_path: Path) -> None:
    publish_to = tmp_path / "aneurysm"
    publish_to.mkdir()
    publish(publish_to, RECORD)
    with pytest.raises(UsageError, match="no study in") as caught:
        read(tmp_path / "aneurism")
    assert caught.value.hint == f"did you mean {publish_to}?"
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    assert caught.value.hint == f"studies in it: {publish_to}"
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "zzz")
    assert caught.value.hint == f"studies beside it: {publish_to}"
    assert studies(tmp_path) == (publish_to,)


def test_a_folder_without_any_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "none")
    assert "survey run" in caught.value.hint
