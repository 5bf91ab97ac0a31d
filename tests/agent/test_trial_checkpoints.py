"""The trial's side of checkpoints: whole or not at all, the latest found, few kept; why it is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import trial

TRIAL = Path(trial.__file__)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint folder of a trial, not made yet."""
    monkeypatch.setenv("SURVEY_CHECKPOINT", str(tmp_path / "checkpoint"))
    monkeypatch.setenv("SURVEY_STOP", str(tmp_path / "stop"))
    return tmp_path / "checkpoint"


def save(step: int, text: str = "", **options: Any) -> None:
    with trial.new_checkpoint(step, **options) as place:
        Path(place, "state").write_text(text or str(step))


def latest() -> tuple[int, str]:
    found = trial.latest_checkpoint()
    assert found is not None
    return found[0], Path(found[1], "state").read_text()


def test_without_a_checkpoint_there_is_none_and_no_folder_is_made(folder: Path) -> None:
    assert trial.latest_checkpoint() is None
    assert not folder.exists()


def test_the_latest_checkpoint_is_that_of_the_largest_step(folder: Path) -> None:
    for step in (9, 10, 8):
        save(step, keep=5)
    assert latest() == (10, "10")


def test_a_step_that_is_saved_again_replaces_nothing_until_it_is_whole(folder: Path) -> None:
    save(3, "first", keep=1)
    with trial.new_checkpoint(3, keep=1) as place:
        Path(place, "state").write_text("second")
        assert latest() == (3, "first")
    assert latest() == (3, "second")
    assert len(list(folder.iterdir())) == 1


def test_as_many_checkpoints_stay_as_are_to_be_kept(folder: Path) -> None:
    for step in range(6):
        save(step, keep=3)
    assert sorted(path.read_text() for path in folder.glob("*/state")) == ["3", "4", "5"]
    assert len(list(folder.iterdir())) == 3


def test_a_checkpoint_that_fails_leaves_the_one_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(1)

    def fail(step: int) -> None:
        with trial.new_checkpoint(step) as place:
            Path(place, "state").write_text("half")
            raise ValueError("no such weights")

    with pytest.raises(ValueError, match="no such weights"):
        fail(2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(3)
    assert latest() == (1, "1")
    assert len(list(folder.iterdir())) == 1


KILLED = """
import os, signal
from orchestrator import trial
for step in range(1, 4):
    with trial.new_checkpoint(step) as folder:
        with open(os.path.join(folder, "state"), "w") as stream:
            stream.write(str(step))
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_attempt_left_half_written_is_not_found_and_is_swept_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TRIAL.parent.parent), "SURVEY_ATTEMPT": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert latest() == (2, "2")
    assert len(list(folder.iterdir())) == 3
    with trial.new_checkpoint(4):  # of the same attempt: another of its processes may be writing
        pass
    assert len([path for path in folder.iterdir() if path.name.startswith(".")]) == 1
    monkeypatch.setenv("SURVEY_ATTEMPT", "2")
    save(5)
    assert latest() == (5, "5")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_may_hold_folders_and_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "mine")
    with trial.new_checkpoint(7, folder=elsewhere) as place:
        Path(place, "shards").mkdir()
        Path(place, "shards", "0").write_bytes(b"\0" * 100)
    found = trial.latest_checkpoint(elsewhere)
    assert found is not None
    assert Path(found[1], "shards", "0").stat().st_size == 100
    assert not folder.exists()


def test_files_of_other_making_in_the_folder_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    for name in ("step-abc.1", "weights.h5", "step-5", ".hidden", ".attempt-x-1"):
        (folder / name).touch()
    for step in range(4):
        save(step)
    assert latest() == (3, "3")
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "step-abc.1",
        "weights.h5",
        "step-5",
        ".hidden",
        ".attempt-x-1",
    }


@pytest.mark.parametrize("step", [-1, 1.5, "3", None, True])
def test_a_step_that_is_none_is_refused(folder: Path, step: Any) -> None:
    with pytest.raises(TypeError, match="step must be a whole number"):
        trial.new_checkpoint(step)
    with pytest.raises(ValueError, match="keep must be at least 1"):
        trial.new_checkpoint(1, keep=0)


def test_a_program_knows_why_it_is_to_stop(folder: Path) -> None:
    stop = folder.parent / "stop"
    assert (trial.should_stop(), trial.stop_reason()) == (False, "")
    for content, reason in [("walltime\n", "walltime"), ("pruned at step 3\nmore", "pruned at step 3")]:
        stop.write_text(content)
        assert (trial.should_stop(), trial.stop_reason()) == (True, reason)
    stop.write_text("")
    assert (trial.should_stop(), trial.stop_reason()) == (True, "asked to stop")


def test_a_program_asks_for_another_attempt_by_exit_code_85() -> None:
    with pytest.raises(SystemExit) as ended:
        trial.requeue()
    assert ended.value.code == 85
