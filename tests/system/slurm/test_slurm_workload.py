"""A real training as a study on a real Slurm."""

from __future__ import annotations

import subprocess
import sys

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = [pytest.mark.system, pytest.mark.tensorflow]


def test_the_aneurysm_study_trains_on_slurm_and_reports_its_metric(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(
        cluster,
        trials=1,
        objective={"metric": "pauc", "direction": "maximize"},
        space={"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        command=[sys.executable, "-m", "workloads", "aneurysm", "--data", "phantoms", "--epochs=1", "--patches=8"],
        resources={"gpus": 1, "walltime": "10m"},
    )
    phantoms = [sys.executable, "-m", "workloads", "phantom", "aneurysm", "--out", str(place.root / "phantoms")]
    subprocess.run([*phantoms, "--train=2", "--validation=2", "--test=1"], check=True, capture_output=True, timeout=120)
    assert place.run() == 0, place.said
    (trial,) = place.trials()
    assert trial.state.name == "COMPLETE"
    assert trial.value is not None
    assert 0.0 <= trial.value <= 1.0
