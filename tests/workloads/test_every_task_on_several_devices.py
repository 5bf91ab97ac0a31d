from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workloads import tasks
from workloads.__main__ import main

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
PROGRAM = Path(__file__).with_name("trial_on_devices.py")
UNTRAINED = {"digits", "lesion-volume", "lung-partition"}  # without TensorFlow
CASES = ["--train", "4", "--validation", "4", "--test", "0"]
SIZES = {
    "covid-typicality": ["--train", "3", "--validation", "1", "--test", "0", "--shape", "24", "24", "12"],
    "gram-stain": ["--train", "8", "--validation", "1", "--test", "0", "--size", "32"],
    "laparoscopy": ["--train", "4", "--validation", "1", "--test", "0", "--size", "32"],
    "scaling-image": ["--train", "20", "--validation", "8", "--size", "16"],
    "scaling-seq2seq": ["--train", "20", "--validation", "8"],
}
SMALL: dict[str, Any] = {"filters": 4, "depth": 1, "layers": 1, "batch_size": 8, "normalisation": "group"}


def arguments(task: str) -> list[str]:
    """Of a short training: rounding grows with each step."""
    known = {parameter.name: parameter for parameter in tasks.load(task).PARAMETERS}
    chosen = {
        name: value if known[name].choices else max(value, known[name].low or 0)
        for name, value in SMALL.items()
        if name in known and (not known[name].choices or value in known[name].choices)
    }
    parser = argparse.ArgumentParser()
    tasks.load(task).add_arguments(parser)
    few = ["--patches=22"] if "--patches" in parser.format_help() else []
    return ["--epochs", "2", "--seed", "1", *few, *(f"--set={name}={value}" for name, value in chosen.items())]


def losses(devices: int, task: str, data: Path, out: Path) -> list[float]:
    """Losses of one network, or of several one after the other."""
    out.mkdir()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(devices), task, "--data", str(data), *arguments(task)],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ["HOME"],
            "PYTHONPATH": str(PROGRAM.parents[2]),
            "CUDA_VISIBLE_DEVICES": "",
            "SURVEY_RESULT": str(out / "result.json"),
            "SURVEY_ARTIFACTS": str(out / "artifacts"),
        },
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    info = json.loads((out / "result.json").read_text())["info"]
    assert info["devices"] == devices
    found = info["losses"]
    return [each for part in found.values() for each in part] if isinstance(found, dict) else found


@pytest.mark.parametrize("task", sorted(set(tasks.NAMES) - UNTRAINED))
def test_a_task_learns_the_same_on_three_devices_as_on_one(tmp_path: Path, task: str) -> None:
    data = tmp_path / "data"
    assert main(["phantom", task, "--out", str(data), *SIZES.get(task, CASES)]) == 0
    one, three = (losses(devices, task, data, tmp_path / str(devices)) for devices in (1, 3))
    assert len(one) >= 2
    assert three == pytest.approx(one, rel=2e-5, abs=2e-5)
