"""Attempts are on disk before anything is submitted, and never silently overlooked."""

from __future__ import annotations

import dataclasses
import json
import random
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SurveyError
from orchestrator.model import Outcome, Verdict
from orchestrator.store.ledger import Ledger, new_tag

if TYPE_CHECKING:
    from pathlib import Path

TAG = "t00007-k3j9x2q8"


def test_an_attempt_is_planned_saved_and_read_back_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    attempt = ledger.plan("00007", TAG, "1-abc", {"lr": 0.1, "layers": [1, 2]}, 100.0)
    assert (attempt.number, attempt.tag, attempt.fence, attempt.planned) == (1, TAG, "1-abc", 100.0)
    outcome = Outcome(
        key="00007", verdict=Verdict.OUT_OF_MEMORY, reason="9", metrics={"a": 1.5}, info={"b": [None]}, gpus=("0", "1")
    )
    attempt = dataclasses.replace(
        attempt, job_id="12[3].pbs", submitted=101.0, suspect_since=102.0, outcome=outcome, notes=("adopted",)
    )
    ledger.save(attempt)
    again = Ledger(tmp_path)
    assert again.attempts("00007") == (attempt,)
    assert again.latest("00007") == attempt
    assert again.params("00007") == {"lr": 0.1, "layers": [1, 2]}


def test_attempts_are_numbered_from_one_and_the_last_is_the_latest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(1, 12):
        assert ledger.plan("00001", new_tag(1), "f", {"n": number}, float(number)).number == number
    latest = ledger.latest("00001")
    assert latest is not None
    assert latest.number == 11
    assert [each.number for each in ledger.attempts("00001")] == list(range(1, 12))
    assert ledger.params("00001") == {"n": 11}


def test_keys_with_runs_are_listed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.keys() == ()
    for key in ("00002", "00001/run-2", "00001/run-1", "00001"):
        ledger.plan(key, TAG, "f", {}, 0.0)
    assert ledger.keys() == ("00001", "00001/run-1", "00001/run-2", "00002")
    assert len(ledger.attempts("00001")) == 1


def test_an_unknown_key_has_no_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.attempts("00001") == ()
    assert ledger.latest("00001") is None
    with pytest.raises(SurveyError, match="no attempt of 00001"):
        ledger.params("00001")


@pytest.mark.parametrize(
    "key", ["", "..", "a/..", "a/../../b", "/etc", "a//b", "a/", ".hidden", "a\n", "a b", "a/.b", "é", "a\0"]
)
def test_a_key_never_leaves_the_ledger(tmp_path: Path, key: str) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(SurveyError, match="cannot be the key"):
        ledger.plan(key, TAG, "f", {}, 0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 10, 10_000])
def test_a_torn_file_stops_the_study_by_its_name(tmp_path: Path, cut: int) -> None:
    ledger = Ledger(tmp_path)
    ledger.plan("00007", TAG, "f", {}, 0.0)
    path = tmp_path / "ledger" / "00007" / "attempt-1.json"
    path.write_bytes(path.read_bytes()[: -cut - 1])
    for read in (ledger.attempts, ledger.latest, ledger.params):
        with pytest.raises(SurveyError, match=r"00007/attempt-1\.json cannot be read as an attempt"):
            read("00007")


@pytest.mark.parametrize(
    "changes", [{"verdict": "nonsense"}, {"number": None, "extra": 1}, {"version": 2}, {"key": "00008"}]
)
def test_a_file_that_is_no_attempt_of_this_key_stops_the_study(tmp_path: Path, changes: dict[str, object]) -> None:
    ledger = Ledger(tmp_path)
    ledger.plan("00007", TAG, "f", {}, 0.0)
    path = tmp_path / "ledger" / "00007" / "attempt-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(SurveyError, match=r"attempt-1\.json"):
        ledger.latest("00007")


def test_only_planned_attempts_are_saved_and_only_under_their_own_tag(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    attempt = ledger.plan("00007", TAG, "f", {}, 0.0)
    with pytest.raises(SurveyError, match="never planned"):
        ledger.save(dataclasses.replace(attempt, number=2))
    with pytest.raises(SurveyError, match="not of t00007-zzzzzzzz"):
        ledger.save(dataclasses.replace(attempt, tag="t00007-zzzzzzzz"))


def test_what_a_killed_writer_left_is_not_taken_for_an_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.plan("00007", TAG, "f", {}, 0.0)
    (tmp_path / "ledger" / "00007" / ".attempt-2.json.1-aa.tmp").write_text("{")
    assert len(ledger.attempts("00007")) == 1
    assert ledger.plan("00007", TAG, "f", {}, 0.0).number == 2


def test_the_ledger_is_private(tmp_path: Path) -> None:
    Ledger(tmp_path).plan("00007", TAG, "f", {}, 0.0)
    folder = tmp_path / "ledger" / "00007"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "attempt-1.json").stat().st_mode) == 0o600


@given(st.integers(min_value=0, max_value=10**12))
def test_a_tag_is_a_job_name_for_every_scheduler(number: int) -> None:
    tag = new_tag(number)
    assert len(tag) == 15
    assert tag[0] == "t"
    assert set(tag[1:]) <= set("0123456789abcdefghijklmnopqrstuvwxyz-")
    assert len(tag.rpartition("-")[2]) >= 5


def test_tags_differ_but_repeat_with_the_same_source_of_randomness() -> None:
    assert len({new_tag(7) for _ in range(1000)}) == 1000
    assert new_tag(7, random.Random(1)) == new_tag(7, random.Random(1))
    assert new_tag(7).startswith("t00007-")
