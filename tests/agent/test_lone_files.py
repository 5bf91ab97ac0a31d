"""What is staged to a site works there alone: Python 3.6, the standard library, one file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "orchestrator"
FILES = ("agent.py", "trial.py", "localq.py")

# Every Python that this machine has; the newest and the oldest matter most.
PYTHONS = sorted({sys.executable, *filter(None, (shutil.which(f"python3.{minor}") for minor in range(6, 15)))})


def test_they_need_no_more_than_python_3_6() -> None:
    run = "from vermin.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", run, "-t=3.6-", "--no-tips", "--violations", *(str(PACKAGE / name) for name in FILES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", FILES)
def test_each_runs_as_a_copy_without_site_packages(tmp_path: Path, name: str) -> None:
    shutil.copy(PACKAGE / name, tmp_path / name)
    for python in PYTHONS:
        version = subprocess.run([python, "-c", ""], capture_output=True, check=False)
        if version.returncode != 0:
            continue  # a launcher for a Python that is not installed
        done = subprocess.run(
            [python, "-I", "-S", str(tmp_path / name)], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (done.returncode, done.stdout) == (2, ""), python
        assert "usage:" in done.stderr, python


@pytest.mark.parametrize("name", FILES)
def test_each_imports_the_standard_library_alone_and_little_of_it(name: str) -> None:
    module = f"orchestrator.{name.removesuffix('.py')}"
    script = f"import sys; before = set(sys.modules); import {module}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {full.partition(".")[0] for full in done.stdout.split()}
    assert loaded - {"orchestrator"} <= sys.stdlib_module_names
    assert not loaded & {"subprocess", "typing", "argparse", "asyncio", "socket", "ctypes"}
