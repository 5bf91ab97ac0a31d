"""A training that was interrupted and taken up by a fresh process equals one that never was, bit by bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow
PROGRAM = Path(__file__).with_name("interrupted_training.py")


def process(mode: str, folder: Path) -> int:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SURVEY_STOP": str(folder / "stop"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), mode, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 1:
        pytest.fail(done.stderr)
    return done.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a whole training, of one that was stopped and one that was killed, and of both taken up again."""
    folder = tmp_path_factory.mktemp("trainings")
    assert process("whole", folder) == 0
    assert process("stop", folder) == 85  # fit's callback asks for another attempt
    (folder / "stop").unlink()
    assert process("kill", folder) == -signal.SIGKILL
    assert process("resume", folder) == 0
    return folder


@pytest.mark.parametrize(("how", "name"), [("loop", "stop"), ("loop", "kill"), ("fit", "stop")])
def test_weights_optimizer_losses_and_random_numbers_are_those_of_an_uninterrupted_training(
    folder: Path, how: str, name: str
) -> None:
    assert not (folder / f"stop-{how}-{name}.npz").exists(), "it was not cut short"
    with np.load(folder / f"whole-{how}-none.npz") as whole, np.load(folder / f"resume-{how}-{name}.npz") as resumed:
        assert set(whole.files) == set(resumed.files)
        assert len(whole.files) > 12
        for key in whole.files:
            assert whole[key].tobytes() == resumed[key].tobytes(), key


def test_what_is_compared_is_a_training_that_drew_random_numbers_and_moved(folder: Path) -> None:
    with np.load(folder / "whole-loop-none.npz") as loop, np.load(folder / "whole-fit-none.npz") as fit:
        assert len(loop["losses"]) == 7
        assert loop["losses"][0] > loop["losses"][5]
        assert fit["losses"][-1] < np.float32(0.05), "the plateau's memory has not lowered the rate"


def test_a_checkpoint_is_of_the_epoch_before_the_interruption(folder: Path) -> None:
    assert [path.name for path in (folder / "loop-stop").iterdir()] == ["step-0000000003.1"]
    assert [path.name for path in (folder / "fit-stop").iterdir()] == ["step-0000000003.1"]
    names = sorted(path.name for path in (folder / "loop-kill").iterdir() if not path.name.startswith("."))
    assert names == ["step-0000000002.1", "step-0000000003.1"]
