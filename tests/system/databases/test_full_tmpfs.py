"""A real full disk in mid-study: the driver pauses in words, and goes on when there is room again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from database_study import wait_for

from orchestrator.store.studydb import read_trials

pytestmark = pytest.mark.system

_PROGRAM = """
import os, sys, time
from orchestrator import trial
with open(sys.argv[1], "a") as ledger:
    ledger.write(os.environ["SURVEY_TRIAL"] + "\\n")
time.sleep(0.5)
trial.finish(loss=trial.params()["x"])
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "survey-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"no small file system to test with: {done.stderr}", pytrace=False)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)


@pytest.mark.parametrize(
    "storage",
    [pytest.param(None, id="sqlite"), pytest.param("journal:study.log", id="journal", marks=pytest.mark.slow)],
)
def test_a_disk_that_fills_up_pauses_the_study_which_goes_on_when_there_is_room(
    tmp_path: Path, small: Path, storage: str | None
) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    executed = tmp_path / "executed"
    site = {"schema_version": 1, "name": "here", "extends": "local", "work_root": str(tmp_path / "work")}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    study = {
        "schema_version": 1,
        "name": "toy",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 8},
        "trials": 8,
        "parallel": 2,
        "command": [sys.executable, "program.py", str(executed)],
        **({"storage": storage} if storage else {}),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "orchestrator.cli.app", "run", "--yes", "study.yaml"]
    command += ["--site", "site.yaml", "--root", str(small)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
        )

    driver = start()
    wait_for("the first trials", lambda: executed.exists() and len(executed.read_text().split()) >= 3)
    fill(small / "ballast")
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 4, said
    assert "No space left on device" in said or "is full" in said
    assert "free space or quota there" in said
    assert "Traceback" not in said
    again = start()
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 4, said
    (small / "ballast").unlink()
    last = start()
    said, _ = last.communicate(timeout=120)
    assert last.returncode == 0, said
    for _ in range(2):
        trials = read_trials(small / "toy", name="toy", url=storage)
        assert [trial.state for trial in trials] == ["complete"] * 8
    assert Counter(executed.read_text().split()) == {str(number): 1 for number in range(8)}
    assert json.loads((small / "toy" / "snapshot.json").read_text())["state"] == "done"
