"""A study that keeps its trials on a server, with a program that counts its own executions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import yaml
from database_servers import CANARY, Server

from orchestrator.store.record import TrialRecord
from orchestrator.store.studydb import read_trials

__all__ = ["MakeStudy", "Study", "wait_for"]

_PROGRAM = """
import os, sys, time
from orchestrator import trial
with open(sys.argv[1], "a") as ledger:
    ledger.write(os.environ["SURVEY_TRIAL"] + "\\n")
time.sleep(float(sys.argv[2]))
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
x = trial.params()["x"]
trial.report(1, x)
trial.finish(loss=(x - 0.3) ** 2)
"""

_READ = """
import sys
from pathlib import Path
from orchestrator.store.studydb import read_trials
trials = read_trials(Path(sys.argv[1]), name="toy", url=sys.argv[2])
print(*(f"{trial.number}:{trial.state}" for trial in trials))
"""


class Study:
    """One study's folder, and its database.

    Parameters
    ----------
    held : bool
        Whether its trials end only once `release` is called.
    database : str, optional
        One that another study has; default: a new one.
    """

    def __init__(
        self, root: Path, server: Server, *, trials: int = 8, held: bool = False, database: str | None = None
    ) -> None:
        self.root = root
        self.server = server
        self.database = database or server.new_database()
        self.executed = root / "executed"
        self.log = root / "driver.log"
        self.log.touch()
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._gate = root / "gate"
        if not held:
            self.release()
        (root / "program.py").write_text(_PROGRAM)
        self.file = root / "study.yaml"
        definition = {
            "schema_version": 1,
            "name": "toy",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 8},
            "trials": trials,
            "parallel": 2,
            "storage": server.url(self.database, password="${TOY_PASSWORD}"),
            "command": [sys.executable, "program.py", str(self.executed), "0.2", str(self._gate)],
        }
        self.file.write_text(yaml.safe_dump(definition))

    def release(self) -> None:
        """Let the trials end."""
        self._gate.touch()

    @property
    def url(self) -> str:
        """The database, with the password."""
        return self.server.url(self.database)

    @property
    def folder(self) -> Path:
        """The driver's folder."""
        return self.root / "runs" / "toy"

    def driver(self, password: str = CANARY) -> subprocess.Popen[bytes]:
        """Start ``survey run``; what it says is in `said`."""
        with self.log.open("ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.app", "run", "--yes", str(self.file)],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TOY_PASSWORD": password},
            )
        self._drivers.append(driver)
        return driver

    def run(self, password: str = CANARY) -> int:
        """``survey run`` to its end; returns its exit code."""
        return self.driver(password).wait(timeout=120)

    def close(self) -> None:
        """End the drivers that a test has left."""
        for driver in self._drivers:
            driver.kill()
            driver.wait()

    @property
    def said(self) -> str:
        """All that the drivers said, on one line."""
        return " ".join(self.log.read_text().split())

    def executions(self) -> Counter[str]:
        """How often each trial's program was started."""
        return Counter(self.executed.read_text().split()) if self.executed.exists() else Counter()

    def shown(self) -> dict[str, Any]:
        """What readers see."""
        shown: dict[str, Any] = json.loads((self.folder / "snapshot.json").read_text())
        return shown

    def happened(self) -> int:
        """How much has happened so far, in whatever unit."""
        return (self.folder / "events.jsonl").stat().st_size

    def wait_for_executions(self, count: int) -> None:
        """Wait until ``count`` trials were started."""

        def ready() -> bool:
            over = self._drivers[-1].poll() is not None
            assert len(self.executions()) >= count or not over, self.said
            return len(self.executions()) >= count

        wait_for(f"{count} executions", ready)

    def trials(self) -> tuple[TrialRecord, ...]:
        """The trials on the server."""
        return read_trials(self.folder, name="toy", url=self.url)

    def read_afresh(self) -> str:
        """The trials and their states as a process of its own reads them."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _READ, str(self.folder), self.url],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def assert_nothing_lost_nothing_twice(self, trials: int) -> None:
        """Check the budget, each trial's one execution, and that the database opens twice in fresh processes."""
        assert [trial.state for trial in self.trials()] == ["complete"] * trials, self.said
        assert self.executions() == {str(number): 1 for number in range(trials)}
        expected = " ".join(f"{number}:complete" for number in range(trials))
        assert [self.read_afresh(), self.read_afresh()] == [expected, expected]


class MakeStudy(Protocol):
    """`Study` in the test's own folder; its drivers end with the test."""

    def __call__(self, *, trials: int = 8, held: bool = False, database: str | None = None) -> Study: ...


def wait_for(what: str, ready: Callable[[], object], seconds: float = 90) -> None:
    """Wait until ``ready`` returns something true."""
    give_up = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < give_up, f"gave up waiting for {what}"
        time.sleep(0.02)
