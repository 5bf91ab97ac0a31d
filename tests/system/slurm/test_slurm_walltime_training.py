"""A training that is longer than its walltime, on a real Slurm: it ends through several jobs as if there had been one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace, Place

pytest_plugins = ("slurm_fixtures",)
# Slurm counts walltimes in minutes: what is longer than one takes two.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.tensorflow]

ROOT = Path(__file__).parents[3]
WALLTIME = 60.0
EPOCHS = 40
# A real training, each of whose epochs takes 1.6 s longer than its arithmetic: as a larger one's would.
SLOWED = """
import os, sys, time
from orchestrator import trial
from workloads.__main__ import main

asked = trial.should_stop

def ask():
    time.sleep(float(os.environ["EPOCH_SECONDS"]))
    return asked()

trial.should_stop = ask
sys.exit(main(sys.argv[1:]))
"""


def arguments(place: Place) -> list[str]:
    data = str(place.root / "phantoms")
    return [sys.executable, str(place.root / "slowed.py"), "scaling-image", "--data", data, f"--epochs={EPOCHS}"]


@pytest.fixture
def cut(cluster: Cluster, make_place: MakePlace) -> Place:
    """A study of one training, run to its end."""
    place = make_place(
        cluster,
        trials=1,
        objective={"metric": "accuracy", "direction": "maximize"},
        metrics=["train_seconds"],
        space={"dropout": {"type": "float", "low": 0.1, "high": 0.5}, "filters": 4, "stages": 1},
        environment={"EPOCH_SECONDS": "1.6", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        resources={"walltime": "1m"},
        walltime_warning={"ahead": "20s"},
    )
    place.change(command=arguments(place))
    (place.root / "slowed.py").write_text(SLOWED)
    phantoms = [sys.executable, "-m", "workloads", "phantom", "scaling-image", "--out", str(place.root / "phantoms")]
    sizes = ["--train=96", "--validation=64", "--size=16"]
    subprocess.run([*phantoms, *sizes], check=True, capture_output=True, timeout=120, cwd=ROOT)
    assert place.run() == 0, place.said
    return place


def result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def uninterrupted(place: Place, info: Any) -> Any:
    """The same training by hand: no walltime, no pauses, no checkpoint."""
    words = [f"--set={name}={value}" for name, value in info["params"].items()]
    names = {"SURVEY_RESULT": str(place.root / "result.json"), "SURVEY_ARTIFACTS": str(place.root / "artifacts")}
    subprocess.run(
        [*arguments(place), *words, "--seed", str(info["seed"])],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "EPOCH_SECONDS": "0",
            "CUDA_VISIBLE_DEVICES": "",
            **names,
        },
        check=True,
        capture_output=True,
        timeout=300,
        cwd=place.root,
    )
    return result(place.root)


def test_a_training_longer_than_its_walltime_ends_through_several_jobs_with_the_result_of_an_uninterrupted_one(
    cut: Place,
) -> None:
    verdicts = [outcome["verdict"] for outcome in cut.outcomes()]
    jobs = [outcome["job_id"] for outcome in cut.outcomes()]
    assert len(verdicts) >= 2
    assert verdicts == [*["requeue-requested"] * (len(verdicts) - 1), "succeeded"]
    assert len(set(jobs)) == len(jobs)
    times = cut.cluster.output("sacct", "-n", "-X", "-P", "-o", "state,elapsedraw", "-j", ",".join(jobs)).splitlines()
    assert all(int(line.split("|")[1]) <= WALLTIME for line in times), times
    assert not any("TIMEOUT" in line for line in times), times

    # The study never knew: one trial, one result, one of its budget.
    (trial,) = cut.trials()
    assert trial.state.name == "COMPLETE"
    done = result(cut.folder(cut.attempts()[-1]))
    assert done["metrics"]["accuracy"] == trial.value
    assert len(done["info"]["losses"]) == EPOCHS
    assert done["metrics"]["train_seconds"] > WALLTIME
    assert not any((cut.folder(attempt) / "result.json").exists() for attempt in cut.attempts()[:-1])

    whole = uninterrupted(cut, done["info"])
    assert whole["metrics"]["accuracy"] == done["metrics"]["accuracy"]
    assert whole["info"]["losses"] == done["info"]["losses"]
    assert whole["metrics"]["train_seconds"] < WALLTIME
