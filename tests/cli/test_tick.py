"""`survey tick`: what cron gets of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from little_study import until, write_study
from survey_command import Survey, command

from orchestrator.clock import SystemClock
from orchestrator.store.lease import Lease, read_holder


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def attempts(folder: Path) -> int:
    return len(list((folder / "runs/toy/ledger").rglob("attempt-*.json")))


def test_ticks_take_a_study_to_its_end_and_leave_no_driver_behind(survey: Survey, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_study(tmp_path, trials=3, environment={"GATE": str(gate)})
    first = survey("tick", "study.yaml")
    assert first.code == 0, first.err
    assert first.err.endswith("toy: 0 of 3 trials have ended, 2 are in flight, 1 are to come\n")
    assert first.out == ""
    assert read_holder(tmp_path / "runs/toy", now=0.0)[1] is False
    again = survey("-q", "tick")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert attempts(tmp_path) == 2
    gate.touch()
    until(lambda: len(list((tmp_path / "runs").rglob("exit.json"))) == 2, "the trials do not end")
    third = survey("tick", "toy", "--json")
    assert third.code == 0, third.err
    states = [trial["state"] for trial in json.loads(third.out)["study"]["trials"]]
    assert states[:2] == ["complete", "complete"]
    until(lambda: len(list((tmp_path / "runs").rglob("exit.json"))) == 3, "the last trial does not end")
    last = survey("tick")
    assert last.err.endswith("toy: done, all 3 trials have ended; no further tick is needed\n")
    assert attempts(tmp_path) == 3


def test_a_tick_beside_a_driver_ends_without_a_word_unless_it_is_asked(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path)
    with Lease.acquire(tmp_path / "runs/toy", SystemClock()):
        ran = survey("tick", "study.yaml")
        assert (ran.code, ran.out, ran.err) == (5, "", "")
        told = survey("-v", "tick", "study.yaml")
    assert told.code == 5
    assert "is driven by process" in told.err


def test_a_pause_is_told_once_and_then_only_by_the_exit_code(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path, trials=9, parallel=1, command="exit 3", failures={"stop_after": 1}, retry={"failed": 0})
    codes: list[int] = []
    said: list[str] = []
    while codes[-2:] != [4, 4]:
        ran = survey("tick", "study.yaml", "--at-most", "20")
        codes.append(ran.code)
        said.append(ran.err)
        if ran.code == 0:
            until(lambda: len(list((tmp_path / "runs").rglob("exit.json"))) == attempts(tmp_path), "it does not end")
        assert len(codes) < 9
    paused = [words for words, code in zip(said, codes, strict=True) if code == 4]
    assert "Error: 1 trials in a row failed" in paused[0]
    assert "Error: " not in paused[1]
