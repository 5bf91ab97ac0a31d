"""What the agent's tests share: orders on disk, agents as real processes, waiting for what must come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator import agent

AGENT = Path(agent.__file__)


def write_order(directory: Path, **changes: Any) -> Path:
    """An attempt's folder with an order that does nothing, but for ``changes``."""
    directory.mkdir(parents=True, exist_ok=True)
    order = {
        "version": 1,
        "tag": "t00007-k3j9x2q8",
        "key": "00007",
        "number": 7,
        "attempt": 1,
        "run": 2,
        "runs": 3,
        "study": "aneurysm",
        "command": ["true"],
        "workdir": None,
        "environment": {},
        "seed": 123,
        "gpus": 0,
        "walltime": None,
        "margin": 60,
        "kill_grace": 10,
        "metrics": [],
        "read": [],
        "lib": "../../../lib/1f3a9c",
        "checkpoint": "../checkpoint",
    }
    (directory / "job.json").write_text(json.dumps({**order, **changes}))
    (directory / "params.json").write_text('{"lr": 0.1}')
    return directory


class Agent(subprocess.Popen[str]):
    """An agent that a test which fails does not wait for."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def start(*directories: Path, environment: Mapping[str, str] | None = None) -> Agent:
    """An agent at work on the attempts."""
    return Agent(
        [sys.executable, "-I", "-S", str(AGENT), "run", *map(str, directories)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def carry_out(*directories: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return code and stderr of an agent that has carried out the attempts."""
    with start(*directories, environment=environment) as process:
        _, err = process.communicate(timeout=60)
    return process.returncode, err


def record(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Return as soon as ``condition`` holds; fail if it does not in time."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} did not come in {seconds:g} s"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process is no more, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def number_in(path: Path) -> int | None:
    """The number that a program has written into a file, or None until it has."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
