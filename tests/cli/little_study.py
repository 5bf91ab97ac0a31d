"""A study that takes a second or two on this machine, and the `survey` command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from survey_command import Ran

# The loss is x itself; with a file `gate` named, a trial waits until it is there.
PROGRAM = (
    'echo "trial $SURVEY_TRIAL"; echo careful >&2; echo "model $SURVEY_TRIAL" > "$SURVEY_ARTIFACTS/model.txt"; '
    'while [ -n "$GATE" ] && [ ! -e "$GATE" ]; do sleep 0.05; done; '
    """tr -d '\\n' < "$SURVEY_PARAMS" | """
    """sed 's/.*"x": *\\([^,}]*\\).*/{"metrics": {"loss": \\1, "side": 2.5}}/' > "$SURVEY_RESULT" """
)
SURVEY = [sys.executable, "-m", "orchestrator.cli.app"]


def write_study(folder: Path, file: str = "study.yaml", **changes: object) -> Path:
    """Write a study of two trials; a change to None takes a key away."""
    data = {
        "schema_version": 1,
        "name": "toy",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.25, "high": 1.0}},
        "sampler": {"name": "random", "seed": 5},
        "trials": 2,
        "parallel": 2,
        "command": PROGRAM,
        **changes,
    }
    path = folder / file
    path.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}), encoding="utf-8")
    return path


def environment(**more: str) -> dict[str, str]:
    """The environment of a user without settings."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SURVEY_")}, **more}


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """Start ``survey`` in ``folder``."""
    return subprocess.Popen(
        [*SURVEY, *words],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> Ran:
    """Wait for ``survey``."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"survey does not end: {out}{err}") from None
    return Ran(process.returncode, out, err)


def run(folder: Path, *words: str, **more: str) -> Ran:
    """Run ``survey`` in ``folder``."""
    return end(start(folder, *words, **more))


def until(happened: Callable[[], bool], what: str) -> None:
    """Wait until something has happened."""
    give_up = time.monotonic() + 90
    while not happened():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def content(folder: Path) -> dict[str, bytes]:
    """All files below ``folder``, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
