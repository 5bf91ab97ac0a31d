"""One trial of a workload: in a process of its own, as a job runs it, or in this one, which is quicker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workloads.__main__ import main


def trial(task: str, out: Path, *arguments: str) -> Any:
    """Run one trial and read its result."""
    done = program(task, out, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())


def program(task: str, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program of one attempt to its end, whichever that is."""
    out.mkdir(exist_ok=True)
    environment = {
        "PATH": "/usr/bin:/bin",
        "SURVEY_RESULT": str(out / "result.json"),
        "SURVEY_PROGRESS": str(out / "progress.jsonl"),
        "SURVEY_ARTIFACTS": str(out / "artifacts"),
        "SURVEY_STOP": str(out / "stop"),
        "SURVEY_CHECKPOINT": str(out / "checkpoint"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "workloads", task, *arguments]
    return subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )


def trial_here(task: str, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run one trial in this process, which loads TensorFlow once for all its tests, and read its result."""
    out.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(out)
    names = {
        "RESULT": "result.json",
        "PROGRESS": "progress.jsonl",
        "ARTIFACTS": "artifacts",
        "CHECKPOINT": "checkpoint",
    }
    for name, place in {**names, "STOP": "stop"}.items():
        monkeypatch.setenv(f"SURVEY_{name}", str(out / place))
    assert main([task, *arguments]) == 0
    return json.loads((out / "result.json").read_text())
