"""A real training as a study on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = [pytest.mark.system, pytest.mark.tensorflow]

_EXAMPLE = Path(__file__).parents[3] / "examples/aneurysm/study.yaml"


def test_the_aneurysm_study_is_searched_on_slurm_and_reported(cluster: Cluster, make_place: MakePlace) -> None:
    example = yaml.safe_load(_EXAMPLE.read_text())
    place = make_place(
        cluster,
        trials=3,
        parallel=2,
        objective=example["objective"],
        metrics=example["metrics"],
        space=example["space"],
        sampler={"name": "bo", "seed": 1, "startup_trials": 2},
        command=[sys.executable, "-m", "workloads", "aneurysm", "--data", "phantoms", "--epochs=1", "--patches=8"],
        resources={"gpus": 1, "walltime": "10m"},
    )
    phantoms = [sys.executable, "-m", "workloads", "phantom", "aneurysm", "--out", str(place.root / "phantoms")]
    subprocess.run([*phantoms, "--train=2", "--validation=2", "--test=1"], check=True, capture_output=True, timeout=120)
    assert place.run() == 0, place.said
    trials = place.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    for trial in trials:
        assert set(trial.params) == set(example["space"])
        assert trial.value is not None
        assert 0.0 <= trial.value <= 1.0
        assert set(example["metrics"]) <= set(trial.user_attrs["metrics"])
    page = place.root / "report.html"
    report = [sys.executable, "-m", "orchestrator.cli.app", "report", str(place.root / "runs/toy"), "--out", str(page)]
    subprocess.run(report, check=True, capture_output=True, timeout=120, cwd=place.root)
    assert "pauc" in page.read_text()
