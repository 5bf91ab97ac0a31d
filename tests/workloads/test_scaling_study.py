"""A real training scaled over the devices of a process, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workloads.__main__ import main

ROOT = Path(__file__).parents[2]
SETTINGS = {"filters": 4, "stages": 1, "batch_size": 64, "optimizer": "adam", "momentum": 0.9}


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_classifier_is_as_good_on_two_devices_as_on_one_and_its_time_is_compared(tmp_path: Path) -> None:
    sizes = ["--train", "160", "--validation", "80", "--size", "16"]
    assert main(["phantom", "scaling-image", "--out", str(tmp_path / "phantoms"), *sizes]) == 0
    example = yaml.safe_load((ROOT / "examples/scaling-image/study.yaml").read_text())
    example["command"] = [sys.executable, *example["command"][1:], "--epochs", "2"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(example))
    fixed = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    words = ["1", "2", "--over", "CPU_DEVICES", "--trials", "1", "--time", "epoch_seconds", "--json", *fixed]
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", "scaling", "study.yaml", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    points = json.loads(ran.stdout)["scaling"]["points"]
    assert [(point["count"], point["devices"], point["trials"]) for point in points] == [(1, 1, 1), (2, 2, 1)]
    assert all(point["seconds"] > 0 for point in points)
    assert points[1]["speedup"] == pytest.approx(points[0]["seconds"] / points[1]["seconds"])
    assert points[1]["quality"] == pytest.approx(points[0]["quality"], abs=0.03)
    assert (tmp_path / "runs/scaling-image-scaling-cpu_devices/scaling.svg").is_file()
