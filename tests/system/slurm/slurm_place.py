"""A study on the tests' Slurm: a program that keeps its own count, and the driver as a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
import yaml
from slurm_cluster import Cluster

__all__ = ["Execution", "MakePlace", "Place", "wait_for"]

# Its first argument is the list of executions; its second says by trial how many seconds each execution takes, and
# which trials fail.
_PROGRAM = """
import json, os, sys, time
from orchestrator import trial

restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
plan = json.loads(sys.argv[2])
trial_number = os.environ["SURVEY_TRIAL"]
seconds = [float(word) for word in plan["seconds_of"].get(trial_number, plan["seconds"]).split(",")]
names = ("SURVEY_TAG", "SURVEY_TRIAL", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
job_id = os.environ["SLURM_JOB_ID"]
if "SLURM_ARRAY_JOB_ID" in os.environ:
    job_id = os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]

def note(event):
    line = {"event": event, "time": time.time(), "restart": restart, "job_id": job_id}
    line.update({name: os.environ.get(name, "") for name in names})
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps(line) + "\\n")

note("begin")
print("this is", os.environ["SURVEY_TAG"], flush=True)
time.sleep(seconds[min(int(os.environ["SURVEY_ATTEMPT"]) - 1 + restart, len(seconds) - 1)])
note("end")
if trial_number in plan["failing"]:
    sys.exit(3)
trial.finish(loss=(trial.params()["x"] - 0.3) ** 2)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One start of the program, as the program itself saw it.

    ``job_id`` is ``36_1`` in an array's element; ``end`` is None if the program was cut short.
    """

    tag: str
    trial: str
    job_id: str
    restart: int
    node: str
    gpus: tuple[str, ...]
    begin: float
    end: float | None


class Place:
    """A study's folder, with a site file for the tests' cluster.

    Parameters
    ----------
    seconds : str
        How long the program takes: of a trial's first execution, of its second...
    seconds_of : mapping
        The same for some trials, by number.
    failing : sequence of int
        Trials whose program ends with exit code 3.
    site : mapping
        Keys of the site file beyond what all tests share.
    """

    def __init__(
        self,
        root: Path,
        cluster: Cluster,
        *,
        trials: int,
        parallel: int = 1,
        seconds: str = "0.2",
        seconds_of: Mapping[int, str] | None = None,
        failing: Sequence[int] = (),
        site: Mapping[str, object] | None = None,
        **changes: object,
    ) -> None:
        self.root = root
        self.cluster = cluster
        self.site = root / "site.yaml"
        self.study = root / "study.yaml"
        self.events = root / "executions"
        self._drivers: list[subprocess.Popen[str]] = []
        (root / "program.py").write_text(_PROGRAM)
        self.site.write_text(yaml.safe_dump(_site(root) | dict(site or {})))
        plan = {
            "seconds": seconds,
            "seconds_of": {str(number): words for number, words in (seconds_of or {}).items()},
            "failing": [str(number) for number in failing],
        }
        self.definition: dict[str, object] = {
            "schema_version": 1,
            "name": "toy",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 5},
            "trials": trials,
            "parallel": parallel,
            "command": ["python3", "program.py", str(self.events), json.dumps(plan)],
        }
        self.change(**changes)

    def change(self, **changes: object) -> None:
        """Write study.yaml anew with other keys."""
        self.definition |= changes
        self.study.write_text(yaml.safe_dump(self.definition))

    def driver(self) -> subprocess.Popen[str]:
        """Start ``survey run`` in a process of its own; what it says is in ``driver.log``."""
        with (self.root / "driver.log").open("a") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.app", "run", str(self.study), "--site", str(self.site)],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, **self.cluster.environment},
            )
        self._drivers.append(driver)
        return driver

    def close(self) -> None:
        """End the drivers that a test has left."""
        for driver in self._drivers:
            driver.kill()
            driver.wait()

    def run(self) -> int:
        """``survey run`` to its end; returns its exit code."""
        return self.driver().wait(timeout=300)

    @property
    def said(self) -> str:
        """All that the drivers said, on one line: where it was broken depends on the terminal."""
        return " ".join((self.root / "driver.log").read_text().split())

    def executions(self) -> list[Execution]:
        """Every start of the program so far, in order."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        ends = {(event["SURVEY_TAG"], event["restart"]): event["time"] for event in events if event["event"] == "end"}
        return [
            Execution(
                tag=event["SURVEY_TAG"],
                trial=event["SURVEY_TRIAL"],
                job_id=event["job_id"],
                restart=event["restart"],
                node=event["SLURMD_NODENAME"],
                gpus=tuple(filter(None, event["CUDA_VISIBLE_DEVICES"].split(","))),
                begin=event["time"],
                end=ends.get((event["SURVEY_TAG"], event["restart"])),
            )
            for event in events
            if event["event"] == "begin"
        ]

    def by_trial(self) -> Counter[str]:
        """How often each trial's program was started."""
        return Counter(execution.trial for execution in self.executions())

    def wait_for_executions(self, count: int) -> list[Execution]:
        """Wait until the program was started ``count`` times."""

        def begun() -> bool:
            alive = any(driver.poll() is None for driver in self._drivers)
            enough = len(self.executions()) >= count
            assert alive or enough, f"the driver ended before there were {count} executions: {self.said}"
            return enough

        wait_for(f"{count} executions", begun)
        return self.executions()

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials in the study's database."""
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.root}/runs/toy/study.db")
        try:
            return storage.get_all_trials(storage.get_study_id_from_name("toy"))
        finally:
            storage.engine.dispose()

    def attempts(self) -> list[dict[str, Any]]:
        """The ledger: every attempt, in the order of trials."""
        ledger = self.root / "runs/toy/ledger"
        return [json.loads(path.read_text()) for path in sorted(ledger.rglob("attempt-*.json"))]

    def outcomes(self) -> list[dict[str, Any]]:
        """How each attempt ended."""
        return [attempt["outcome"] for attempt in self.attempts()]

    def folder(self, attempt: Mapping[str, Any]) -> Path:
        """An attempt's folder on the site."""
        return Path(attempt["outcome"]["directory"])

    def assert_each_trial_ran_once(self, trials: int) -> None:
        """Check that the budget was kept to the trial, and that no program was started twice."""
        told = self.trials()
        assert [trial.state.name for trial in told] == ["COMPLETE"] * trials, self.said
        assert set(self.by_trial().values()) == {1}, self.by_trial()
        assert len(self.executions()) == trials


class MakePlace(Protocol):
    """`Place` in the test's own folder; its drivers end with the test."""

    def __call__(self, cluster: Cluster, *, trials: int, **keys: Any) -> Place: ...


def wait_for(what: str, ready: Callable[[], object], seconds: float = 150) -> None:
    """Wait until ``ready`` returns something true."""
    give_up = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < give_up, f"gave up waiting for {what}"
        time.sleep(0.05)


def _site(root: Path) -> dict[str, object]:
    """The shipped profile with a short breath: what takes minutes on a real site takes seconds."""
    return {
        "schema_version": 1,
        "name": "tests",
        "extends": "slurm",
        "work_root": str(root / "work"),
        "poll": {"look": 0.2, "query_min": 1, "query_max": 2},
        "settle": 2,
        "grace": 4,
        "kill_grace": 2,
        "limits": {"submits_per_minute": 6000, "queries_per_minute": 6000},
    }
