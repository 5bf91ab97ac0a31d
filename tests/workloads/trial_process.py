"""One trial of a workload in a process of its own, as a job runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


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
