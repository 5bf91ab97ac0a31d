"""A study on the tests' Grid Engine: a program that notes its own executions, and the driver as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from gridengine_cluster import GridEngineCluster

__all__ = ["Place", "wait_for"]

# Its first argument is the list of executions, its second the seconds that it takes.
_PROGRAM = """
import json, os, sys, time
from orchestrator import trial

names = ("SURVEY_TAG", "SURVEY_TRIAL", "JOB_ID", "SGE_TASK_ID")
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({name: os.environ.get(name, "") for name in names}) + "\\n")
time.sleep(float(sys.argv[2]))
trial.finish(loss=(trial.params()["x"] - 0.3) ** 2)
"""


class Place:
    """A study's folder, with a site file for the tests' cluster."""

    def __init__(
        self, root: Path, cluster: GridEngineCluster, *, trials: int, seconds: float = 0.2, **changes: object
    ) -> None:
        self._root = root
        self._cluster = cluster
        self._drivers: list[subprocess.Popen[bytes]] = []
        (root / "program.py").write_text(_PROGRAM)
        (root / "site.yaml").write_text(yaml.safe_dump(_site(root)))
        study: dict[str, object] = {
            "schema_version": 1,
            "name": "toy",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 5},
            "trials": trials,
            "command": ["python3", "program.py", str(root / "executions"), str(seconds)],
        }
        (root / "study.yaml").write_text(yaml.safe_dump(study | changes))

    def driver(self) -> subprocess.Popen[bytes]:
        """Start ``survey run --site`` in a process of its own."""
        with (self._root / "driver.log").open("a") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.app", "run", "study.yaml", "--site", "site.yaml"],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._cluster.environment},
            )
        self._drivers.append(driver)
        return driver

    def run(self) -> int:
        """``survey run`` to its end; returns its exit code."""
        return self.driver().wait(timeout=200)

    def close(self) -> None:
        """End the drivers that a test has left."""
        for driver in self._drivers:
            driver.kill()
            driver.wait()

    @property
    def said(self) -> str:
        """All that the drivers said, on one line."""
        return " ".join((self._root / "driver.log").read_text().split())

    def executions(self) -> list[dict[str, str]]:
        """Every start of the program so far, in order."""
        path = self._root / "executions"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_executions(self, count: int) -> list[dict[str, str]]:
        """Wait until the program was started ``count`` times."""
        wait_for(f"{count} executions", lambda: len(self.executions()) >= count)
        return self.executions()

    def outcomes(self) -> list[dict[str, Any]]:
        """How each attempt ended, in the order of trials."""
        ledger = self._root / "runs/toy/ledger"
        return [json.loads(path.read_text())["outcome"] for path in sorted(ledger.rglob("attempt-*.json"))]


def wait_for(what: str, ready: Callable[[], object]) -> None:
    """Wait until ``ready`` returns something true."""
    give_up = time.monotonic() + 90
    while not ready():
        assert time.monotonic() < give_up, f"gave up waiting for {what}"
        time.sleep(0.1)


def _site(root: Path) -> dict[str, object]:
    """The shipped profile with a short breath: what takes minutes on a real site takes seconds."""
    return {
        "schema_version": 1,
        "name": "tests",
        "extends": "gridengine",
        "work_root": str(root / "work"),
        "poll": {"look": 0.2, "query_min": 1, "query_max": 2},
        "settle": 2,
        "grace": 6,
        "limits": {"submits_per_minute": 6000, "queries_per_minute": 6000},
    }
