"""Real drivers, real jobs, SIGKILL: the driver of ``survey run`` dies at a crash point, and the next one goes on."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import chaos_driver
import pytest
import yaml
from chaos_crash import WHENS, Point
from chaos_fresh import opened_in_a_fresh_process
from chaos_invariants import Evidence, Ran, history, metrics_of, violations
from chaos_world import CANARY
from test_crash_points import NEVER_WITHIN, STEPS

TRIALS = 8
# It counts its own executions, in a file that the driver does not know.
PROGRAM = """
import json, os, sys, time

def note(word):
    with open(sys.argv[1], "a") as ledger:
        ledger.write(f"{word} {os.environ['SURVEY_TAG']} {os.getppid()}\\n")

note("begin")
time.sleep(0.1)
with open(os.environ["SURVEY_PARAMS"]) as file:
    x = json.load(file)["x"]
with open(os.environ["SURVEY_RESULT"], "w") as file:
    json.dump({"tag": os.environ["SURVEY_TAG"], "metrics": {"m": (x - 0.3) ** 2}}, file)
note("end")
"""

TWELVE = [
    Point("lease: shown", "after"),
    Point("freeze: provenance.json", "within"),
    Point("database: trial", "within", 2),
    Point("database: trial", "after", 5),
    Point("ledger: plan", "after", 3),
    Point("site: attempt", "after", 2),
    Point("submit", "before", 4),
    Point("submit", "after", 4),
    Point("ledger: job id", "within", 6),
    Point("ledger: outcome", "before", 2),
    Point("database: end", "within", 3),
    Point("events: line", "within", 25),
]


class Place:
    """A study on this machine."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.ledger = root / "executions"
        self.folder = root / "runs" / "chaos"
        (root / "program.py").write_text(PROGRAM)
        definition = {
            "schema_version": 1,
            "name": "chaos",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 11},
            "trials": TRIALS,
            "parallel": 3,
            "command": [sys.executable, "-I", "-S", "program.py", str(self.ledger)],
        }
        (root / "study.yaml").write_text(yaml.safe_dump(definition))

    def run(self, *program: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, *program, "run", str(self.root / "study.yaml")]
        environment = {**os.environ, "SURVEY_TEST_PASSWORD": CANARY}
        return subprocess.run(
            arguments, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=200
        )

    def killed_at(self, point: Point) -> bool:
        """Let a driver run to the point; whether it came to it."""
        done = self.run(chaos_driver.__file__, point.step, point.when, str(point.occurrence))
        assert done.returncode in {0, -signal.SIGKILL}, done.stdout + done.stderr
        return done.returncode == -signal.SIGKILL

    def finish(self) -> None:
        done = self.run("-m", "orchestrator.cli.app")
        assert done.returncode == 0, done.stdout + done.stderr

    def evidence(self) -> Evidence:
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        ended = {(tag, job) for word, tag, job in lines if word == "end"}
        results = {
            json.loads(path.read_bytes())["tag"]: metrics
            for path in self.folder.glob("trials/*/attempt-*/job.json")
            if (metrics := metrics_of(_content(path.with_name("result.json")))) is not None
        }
        return Evidence(
            root=self.folder,
            trials=TRIALS,
            executions=[Ran(tag, job, (tag, job) in ended) for word, tag, job in lines if word == "begin"],
            results=results,
            secret=CANARY,
        )

    def judge(self, expected: Sequence[object] | None) -> None:
        evidence = self.evidence()
        assert violations(evidence) == []
        # The driver that went on was the first fresh process to open the database, this is the second.
        (found,) = opened_in_a_fresh_process([self.folder])
        assert found == (expected or json.loads(json.dumps(history(evidence.told()))))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sequence[object]:
    place = Place(tmp_path_factory.mktemp("undisturbed") / "place")
    place.finish()
    place.judge(None)
    return list(json.loads(json.dumps(history(place.evidence().told()))))


@pytest.mark.parametrize("point", TWELVE, ids=str)
def test_a_driver_killed_by_the_kernel_costs_nothing(
    tmp_path: Path, undisturbed: Sequence[object], point: Point
) -> None:
    place = Place(tmp_path / "place")
    assert place.killed_at(point)
    place.finish()
    place.judge(undisturbed)


@functools.cache
def _every_point() -> list[Point]:
    middle = {"lease: renewed": None, "query": None, "lease: given back": 1}
    return [
        Point(step, when, occurrence)
        for step in STEPS
        for when in WHENS
        if (when != "within" or step not in NEVER_WITHIN)
        and (occurrence := middle.get(step, 4 if len(STEPS[step]) > 1 else 1)) is not None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("point", _every_point(), ids=str)
def test_drivers_killed_by_the_kernel_twice_in_a_row_cost_nothing(
    tmp_path: Path, undisturbed: Sequence[object], point: Point
) -> None:
    place = Place(tmp_path / "place")
    place.killed_at(point)
    place.killed_at(point)
    place.finish()
    place.judge(undisturbed)
