"""The page on adding a workload, followed to the letter in a copy of the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-workload.md"


def files() -> dict[str, str]:
    """What the page says to write: each path before a block of its own."""
    found = re.findall(r"^`([\w/.-]+)`\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return dict(found)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source, as far as a workload needs it, with the page's files."""
    leave = shutil.ignore_patterns("__pycache__", "phantoms", "runs")
    for name in ("orchestrator", "examples", "templates", "sites"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    shutil.copytree(ROOT / "workloads", tmp_path / "workloads", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "tests/conftest.py",
        "tests/workloads/conftest.py",
        "tests/workloads/trial_process.py",
        "pyproject.toml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "tests" / "workloads" / "test_command_line.py", tmp_path / "tests" / "workloads")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("figures"))
    for path, text in files().items():
        assert not (ROOT / path).exists()
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def run(source: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.tensorflow
def test_what_the_page_says_makes_a_task_that_trains_and_can_be_searched(source: Path) -> None:
    assert "cysts: cysts in blocks of MR" in run(source, "workloads", "list")
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    checks = [line.removeprefix("python -m ").split() for line in blocks[1].splitlines()]
    tested = run(source, *checks[0], "-p", "no:cacheprovider", "-p", "no:xdist")
    # Its own test, its study and its page.
    assert "3 passed" in tested
    assert "agent.py run" in run(source, *checks[1])


def test_the_page_is_formatted_and_checked_as_the_source_is(source: Path) -> None:
    python = [path for path in files() if path.endswith(".py")]
    assert len(python) == 3
    run(source, "ruff", "check", "--no-cache", *python)
    run(source, "ruff", "format", "--no-cache", "--check", *python)
