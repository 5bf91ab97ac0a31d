"""``--fit``: the largest patch and batch for a device, found by trying."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pytest
from trial_process import program

from workloads.__main__ import main
from workloads.errors import WorkloadError
from workloads.training.fit import (
    Patch,
    Probe,
    Step,
    Tried,
    add_arguments,
    available_memory,
    largest,
    probe,
    run,
    table,
)


def device(capacity: float) -> tuple[list[tuple[Patch, int]], Probe]:
    """A device that holds so many voxels, and what was tried on it."""
    tried: list[tuple[Patch, int]] = []

    def attempt(patch: Patch, batch: int) -> Tried:
        tried.append((patch, batch))
        voxels = math.prod(patch) * batch
        fits = voxels <= capacity
        return Tried(fits=fits, memory=float(voxels), seconds=0.5 if fits else math.nan)

    return tried, attempt


def test_larger_patches_leave_room_for_smaller_batches() -> None:
    tried, attempt = device(40_000)
    found = largest(attempt, (8, 8, 8), multiple=4, most=64)
    # 512 voxels x 64; 12^3 = 1728 x 16 (and not 32); 20^3 = 8000 x 4; 32^3 = 32768 x 1; 48^3 does not fit.
    assert [(patch[0], batch) for patch, batch, _ in found] == [(8, 64), (12, 16), (20, 4), (32, 1)]
    assert tried[-1] == ((48, 48, 48), 1)
    assert ((20, 20, 20), 32) not in tried


def test_a_batch_is_no_larger_than_asked_for_and_sides_stay_multiples() -> None:
    _, attempt = device(1_000)
    found = largest(attempt, (8, 8), multiple=8, most=2)
    assert [(patch, batch) for patch, batch, _ in found] == [((8, 8), 2), ((16, 16), 2), ((24, 24), 1)]


def test_where_nothing_fits_that_is_said() -> None:
    with pytest.raises(WorkloadError, match=r"not even one patch of \(8, 8, 8\) fits"):
        largest(device(100)[1], (8, 8, 8), multiple=2, most=4)


def test_a_step_over_the_limit_is_ended_and_one_below_it_is_measured() -> None:
    def step(_patch: Patch, batch: int) -> float:
        block = np.ones(batch * 2**17)  # so many MiB
        time.sleep(0.3)
        return float(block[0])

    small = probe(step, memory=math.inf, seconds=60.0)((1,), 1)
    large = probe(step, memory=small.memory + 200.0, seconds=60.0)((1,), 600)
    assert small.fits
    assert small.seconds == 1.0
    assert small.memory > 5
    assert not large.fits
    assert math.isnan(large.seconds)


def test_a_step_that_takes_too_long_is_ended() -> None:
    def step(_patch: Patch, _batch: int) -> float:
        time.sleep(600)
        return 0.0

    assert not probe(step, memory=1e9, seconds=0.2)((1,), 1).fits


def test_running_out_of_memory_is_an_answer_and_any_other_failure_an_error() -> None:
    class ResourceExhaustedError(Exception):
        """As TensorFlow's."""

    def exhausted(_patch: Patch, _batch: int) -> float:
        raise ResourceExhaustedError("OOM when allocating tensor")

    def broken(_patch: Patch, _batch: int) -> float:
        raise WorkloadError("TensorFlow is not installed")

    assert not probe(exhausted, memory=1e9, seconds=60.0)((4, 4), 2).fits
    with pytest.raises(WorkloadError, match=r"a step of 2 patches of \(4, 4\) fails: TensorFlow is not installed"):
        probe(broken, memory=1e9, seconds=60.0)((4, 4), 2)


def test_the_table_has_a_line_a_patch() -> None:
    text = table([((12, 12, 8), 4, Tried(fits=True, memory=612.4, seconds=0.0125))])
    assert text.splitlines()[1].split()[:-1] == ["12", "x", "12", "x", "8", "4", "612", "MiB"]


def test_free_memory_is_a_number_of_mebibytes() -> None:
    assert 10 < available_memory() < 1e8


def test_what_saves_memory_in_a_training_is_tried_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    def one_step(_patch: Patch, _batch: int, *, accumulate: int, recompute: bool) -> float:
        return float(accumulate) if recompute else 0.0

    step, parser = Step(run=one_step, patch=(4, 4), multiple=4), argparse.ArgumentParser()
    add_arguments(parser, step)
    limits = ["--batch", "1", "--memory", "1e9", "--seconds", "60"]
    options = parser.parse_args([*limits, "--accumulate", "7", "--recompute"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("workloads.training.fit._sides", lambda start, _multiple: iter([start]))
        run(options, step)
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "7.000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch", "12", "12", "11"], "--patch must be of multiples of 2"),
        (["--memory", "0"], "must be positive"),
        (["--accumulate", "0"], "--accumulate must be at least 1"),
        (["--set", "lr=1"], "no parameter is called 'lr'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["metastasis", "--fit", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.tensorflow
def test_a_real_step_is_tried_in_a_process_of_its_own(tmp_path: Path) -> None:
    small = ["--set", "layers=1", "--set", "width_1=2", "--batch", "1", "--seconds", "300"]
    done = program("metastasis", tmp_path / "t", "--fit", *small, "--patch", "2", "2", "2", "--memory", "60")
    assert done.returncode == 2
    assert "not even one patch of (2, 2, 2) fits" in done.stderr  # TensorFlow alone takes more
