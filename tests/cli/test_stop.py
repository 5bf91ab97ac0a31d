"""A driver is asked to end from another process: it drains, leaves, or cancels what is in flight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from little_cluster import cluster, write_site
from little_study import end, run, start, until, write_study
from survey_command import Survey, command

from orchestrator.cli import stop as stop_verb
from orchestrator.search.requests import Stop, ask_to_stop, is_taken, take_request
from orchestrator.store.ledger import Ledger
from orchestrator.studies.reader import read_study


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@contextmanager
def driven(folder: Path, *words: str, gpus: int = 0, **more: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A driver whose two trials wait for the gate that is yielded."""
    gate = folder / "gate"
    resources = {"gpus": gpus, "walltime": "10m"}
    write_study(folder, trials=3, environment={"GATE": str(gate)}, resources=resources)
    driver = start(folder, "run", "study.yaml", *words, **more)
    try:
        until(lambda: len(list((folder / "runs").rglob("attempt-1/stderr"))) == 2, "the trials do not start")
        yield driver, gate
    finally:
        gate.touch()
        driver.kill()
        driver.communicate()


def test_drain_lets_the_trials_in_flight_finish(survey: Survey, tmp_path: Path) -> None:
    with driven(tmp_path) as (driver, gate):
        asked = survey("stop")
        assert (asked.code, asked.out) == (0, "toy: no new trials; the driver ends after the 2 jobs in flight\n")
        assert survey("stop", "--drain").code == 0  # to ask twice is to ask once
        gate.touch()
        ended = end(driver)
    assert ended.code == 130
    assert ended.out.startswith("toy: interrupted, 2 complete, 3 planned")
    assert "stopping: " in ended.err
    assert "asks to drain" in ended.err
    assert not (tmp_path / "runs/toy/stop").exists()


def test_leave_ends_the_driver_and_leaves_the_jobs_and_cancel_then_needs_no_driver(
    survey: Survey, tmp_path: Path
) -> None:
    with driven(tmp_path) as (driver, gate):
        asked = survey("stop", "toy", "--leave")
        assert asked.code == 0
        assert asked.out == "toy: the driver has ended; 2 jobs in flight run on (`survey stop --cancel` cancels them)\n"
        assert end(driver).code == 130
        again = survey("stop", "toy")
        assert again.out == "toy: no driver runs; 2 jobs in flight run on (`survey stop --cancel` cancels them)\n"
        cancelled = survey("stop", "toy", "--cancel")
        assert (cancelled.code, cancelled.out) == (0, "toy: no driver runs; nothing is in flight\n"), cancelled.err
        attempts = [Ledger(tmp_path / "runs/toy").attempts(key)[0] for key in ("00000", "00001")]
        assert [attempt.outcome and str(attempt.outcome.verdict) for attempt in attempts] == ["cancelled"] * 2
        assert survey("status").out.startswith("toy on local: interrupted\n2 not submitted yet")
        assert "cancelled" in (tmp_path / "runs/toy/events.jsonl").read_text("utf-8")
        gate.touch()
    done = run(tmp_path, "resume", "toy")
    assert done.code == 0, done.err
    assert done.out.startswith("toy: done, 3 complete, 3 planned")
    assert [trial.attempts for trial in read_study(tmp_path / "runs/toy").trials] == [2, 2, 1]


def test_cancel_on_a_cluster_empties_its_queue_by_one_command_and_counts_no_trial(
    survey: Survey, tmp_path: Path
) -> None:
    with cluster(tmp_path) as (installed, path):
        site = str(write_site(tmp_path))
        with driven(tmp_path, "--site", site, gpus=1, PATH=path) as (driver, _):
            asked = survey("stop", "--cancel", "--json")
            assert asked.code == 0, asked.err
            said = json.loads(asked.out)
            assert (said["driven"], said["ended"], said["in_flight"]) == (True, True, 0)
            assert end(driver).code == 130
        shown = installed.control("show")
        assert shown is not None
        assert shown["calls"]["scancel"] == 1
    record = read_study(tmp_path / "runs/toy")
    assert record.state == "interrupted"
    assert [trial.state for trial in record.trials] == ["running", "running"]


def test_a_suspended_driver_is_told_of_and_not_waited_for(survey: Survey, tmp_path: Path) -> None:
    with driven(tmp_path) as (driver, _):
        driver.send_signal(signal.SIGSTOP)
        until(lambda: stop_verb._is_suspended(driver.pid), "it does not stop")
        asked = survey("stop")
        driver.send_signal(signal.SIGCONT)
    assert asked.code == 1
    assert f"kill -CONT {driver.pid}" in asked.err
    assert not (tmp_path / "runs/toy/stop").exists()


def test_a_driver_that_does_not_answer_is_told_of(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, trials=1)
    assert survey("run", "study.yaml").code == 0
    # As another login node shows itself: renewed a moment ago, and not to be looked at from here.
    shown = tmp_path / "runs/toy/driver.json"
    holder = json.loads(shown.read_text("utf-8"))
    shown.write_text(json.dumps({**holder, "host": "login2", "released": None, "renewed": time.time()}), "utf-8")
    monkeypatch.setattr(stop_verb, "_ANSWER", 0.3)
    asked = survey("stop")
    assert asked.code == 1
    assert "has not answered" in asked.err
    assert "see on login2 whether it runs" in asked.err
    assert json.loads((tmp_path / "runs/toy/stop").read_text("utf-8"))["how"] == "drain"


def test_only_one_way_to_end_can_be_meant(survey: Survey) -> None:
    asked = survey("stop", "--leave", "--cancel")
    assert asked.code == 2
    assert "only one of --drain, --leave and --cancel" in asked.err


def test_a_request_is_private_and_taken_once_by_the_driver_it_is_meant_for(tmp_path: Path) -> None:
    ask_to_stop(tmp_path, Stop.LEAVE, 7, now=5.0)
    assert os.stat(tmp_path / "stop").st_mode & 0o777 == 0o600
    request = take_request(tmp_path, 7)
    assert request is not None
    assert (request.how, request.time) == (Stop.LEAVE, 5.0)
    assert take_request(tmp_path, 7) is None


def test_a_request_to_an_earlier_driver_is_void(tmp_path: Path) -> None:
    ask_to_stop(tmp_path, Stop.CANCEL, 6, now=5.0)
    assert take_request(tmp_path, 7) is None
    assert is_taken(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"how": "explode", "token": 7, "by": "x", "time": 1}', "[1]"])
def test_a_request_that_makes_no_sense_ends_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "stop").write_text(content, "utf-8")
    assert take_request(tmp_path, 7) is None
