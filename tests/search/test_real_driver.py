"""The real driver as a process: killed, interrupted, run twice; executions are counted on the job's side."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

PROGRAM = """
import os, sys, time
from orchestrator import trial
with open(sys.argv[1], "a") as ledger:
    ledger.write(os.environ["SURVEY_TAG"] + "\\n")
time.sleep(float(sys.argv[2]))
x = trial.params()["x"]
trial.report(1, x)
if x > 0.95:
    trial.finish(loss=float("nan"))
else:
    trial.finish(loss=(x - 0.3) ** 2, side=x)
"""


class Place:
    """A study folder with a program that keeps its own count."""

    def __init__(
        self, root: Path, *, trials: int, parallel: int, seconds: float = 0.2, sampler: str = "random"
    ) -> None:
        self.root = root
        self.ledger = root / "executions"
        (root / "program.py").write_text(PROGRAM)
        self.study = root / "study.yaml"
        self.write(trials=trials, parallel=parallel, seconds=seconds, sampler=sampler)

    def write(
        self, *, trials: int, parallel: int, seconds: float = 0.2, sampler: object = "random", **changes: object
    ) -> None:
        data = {
            "schema_version": 1,
            "name": "toy",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": sampler if isinstance(sampler, dict) else {"name": sampler, "seed": 8},
            "trials": trials,
            "parallel": parallel,
            "command": [sys.executable, "program.py", str(self.ledger), str(seconds)],
            **changes,
        }
        self.study.write_text(yaml.safe_dump(data))

    def driver(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.app", "run", str(self.study), *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        driver = self.driver(*arguments)
        out, err = driver.communicate(timeout=300)
        return subprocess.CompletedProcess(driver.args, driver.returncode, out, err)

    def executions(self) -> Counter[str]:
        return Counter(self.ledger.read_text().split()) if self.ledger.exists() else Counter()

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.root}/runs/toy/study.db")
        try:
            return storage.get_all_trials(storage.get_study_id_from_name("toy"))
        finally:
            storage.engine.dispose()

    def attempts(self) -> list[dict[str, object]]:
        return [
            json.loads(path.read_text()) for path in sorted((self.root / "runs/toy/ledger").rglob("attempt-*.json"))
        ]

    def wait_for_executions(self, count: int) -> None:
        give_up = time.monotonic() + 120
        while sum(self.executions().values()) < count:
            assert time.monotonic() < give_up, "the trials do not start"
            time.sleep(0.02)


def test_a_driver_killed_again_and_again_runs_each_planned_trial_once(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=14, parallel=3)
    moments = random.Random(3)
    for kill in range(5):
        driver = place.driver()
        place.wait_for_executions(2 * kill)
        time.sleep(moments.uniform(0.0, 0.8))
        driver.kill()
        driver.communicate()
    done = place.run()
    assert done.returncode == 0, done.stderr
    trials = place.trials()
    assert len(trials) == 14
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    assert set(place.executions().values()) == {1}
    # An attempt that a killed driver never submitted costs a file, not an execution.
    assert len(place.executions()) == 14 <= len(place.attempts())


def test_a_study_killed_at_random_has_the_history_of_one_that_was_not(tmp_path: Path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    whole = Place(tmp_path / "undisturbed", trials=6, parallel=1, seconds=0.05)
    assert whole.run().returncode == 0
    place = Place(tmp_path / "killed", trials=6, parallel=1, seconds=0.05)
    for kill in range(3):
        driver = place.driver()
        place.wait_for_executions(2 * kill + 1)
        driver.kill()
        driver.communicate()
    assert place.run().returncode == 0
    assert [(t.params, t.values, t.state) for t in place.trials()] == [
        (t.params, t.values, t.state) for t in whole.trials()
    ]


def test_jobs_go_on_while_no_driver_runs_and_are_collected(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=2, parallel=2, seconds=1.0)
    driver = place.driver()
    place.wait_for_executions(2)
    driver.kill()
    driver.communicate()
    give_up = time.monotonic() + 60
    while len(list((tmp_path / "runs/toy/trials").rglob("exit.json"))) < 2:
        assert time.monotonic() < give_up, "the jobs died with their driver"
        time.sleep(0.05)
    assert place.run().returncode == 0
    assert sum(place.executions().values()) == 2


def test_one_interrupt_drains_and_two_leave_the_jobs_running(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=50, parallel=2, seconds=1.0)
    driver = place.driver()
    place.wait_for_executions(2)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, err
    drained = place.trials()
    assert 2 <= len(drained) < 50
    assert all(trial.state.is_finished() for trial in drained)
    driver = place.driver()
    place.wait_for_executions(len(drained) + 2)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.2)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, err
    assert any(trial.state.name == "RUNNING" for trial in place.trials())


def test_sigterm_leaves_the_jobs_and_ends_with_143(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=50, parallel=2, seconds=1.0)
    driver = place.driver()
    place.wait_for_executions(2)
    driver.terminate()
    driver.communicate(timeout=120)
    assert driver.returncode == 143


def test_a_second_driver_is_told_who_holds_the_study(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=50, parallel=1, seconds=1.0)
    first = place.driver()
    place.wait_for_executions(1)
    second = place.run()
    first.kill()
    first.communicate()
    assert second.returncode == 5
    assert str(first.pid) in second.stderr


def test_more_trials_on_resume_run_exactly_the_difference(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=3, parallel=2)
    assert place.run().returncode == 0
    assert place.run().returncode == 0
    assert sum(place.executions().values()) == 3
    place.write(trials=5, parallel=1)
    assert place.run().returncode == 0
    assert len(place.trials()) == 5
    assert sum(place.executions().values()) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"space": {"x": {"type": "float", "low": 0.0, "high": 2.0}}},
        {"objective": {"metric": "side", "direction": "minimize"}},
        {"sampler": {"name": "tpe", "seed": 8}},
        {"sampler": {"name": "random", "seed": 6}},
        {"command": ["true"]},
    ],
)
def test_another_definition_is_refused_with_a_diff_and_changes_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    place = Place(tmp_path, trials=1, parallel=1)
    assert place.run().returncode == 0
    frozen = (tmp_path / "runs/toy/study.yaml").read_bytes()
    place.write(trials=2, parallel=1, **change)
    refused = place.run()
    assert refused.returncode == 6
    assert next(iter(change)) in refused.stderr
    assert (tmp_path / "runs/toy/study.yaml").read_bytes() == frozen
    assert len(place.trials()) == 1


def test_a_trial_without_a_finite_value_is_failed_with_its_reason(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=1, parallel=1)
    place.write(trials=1, parallel=1, space={"x": {"type": "float", "low": 0.96, "high": 1.0}})
    done = place.run()
    assert done.returncode == 3, done.stderr
    (trial,) = place.trials()
    assert trial.state.name == "FAIL"
    assert "nan" in trial.user_attrs["outcome"]["reason"]


def test_a_command_that_does_not_exist_fails_each_trial_by_name(tmp_path: Path) -> None:
    place = Place(tmp_path, trials=2, parallel=1)
    place.write(trials=2, parallel=1, command=["no-such-program"])
    done = place.run()
    assert done.returncode == 3
    assert "no-such-program" in done.stderr
