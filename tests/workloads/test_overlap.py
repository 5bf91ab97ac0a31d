from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from workloads.metrics.overlap import dice, false_volume, mean_dice_of_lesion_cases

EMPTY = np.zeros((2, 2, 2), dtype=bool)
FULL = np.ones((2, 2, 2), dtype=bool)


def test_dice_of_half_an_overlap_is_worked_out_by_hand() -> None:
    half = EMPTY.copy()
    half[0] = True  # 4 of 8 voxels
    assert dice(half, FULL) == pytest.approx(2 * 4 / 12)


def test_two_empty_masks_have_no_dice_unless_a_convention_is_asked_for() -> None:
    assert math.isnan(dice(EMPTY, EMPTY))
    assert dice(EMPTY, EMPTY, both_empty=1.0) == 1.0
    assert dice(EMPTY, FULL) == dice(FULL, EMPTY) == 0.0


def test_predicting_nothing_gains_nothing_from_normal_cases() -> None:
    # 18 of 48 cases normal: with "both empty is 1" the empty prediction would score 0.375.
    pairs = [(EMPTY, EMPTY)] * 18 + [(EMPTY, FULL)] * 30
    assert np.mean([dice(*pair, both_empty=1.0) for pair in pairs]) == pytest.approx(0.375)
    assert mean_dice_of_lesion_cases(pairs) == 0.0


def test_without_any_lesion_case_there_is_no_mean() -> None:
    assert math.isnan(mean_dice_of_lesion_cases([(FULL, EMPTY)]))


def test_false_volume_is_in_cubic_millimetres() -> None:
    assert false_volume(FULL, EMPTY, (0.5, 0.5, 2.0)) == pytest.approx(8 * 0.5)
    assert false_volume(FULL, FULL, (0.5, 0.5, 2.0)) == 0.0


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="different shape"):
        dice(EMPTY, np.zeros((2, 2, 3), dtype=bool))


@pytest.mark.parametrize(
    "modules",
    [
        "workloads.metrics.froc, workloads.metrics.matching, workloads.metrics.overlap, workloads.metrics.candidates",
        "workloads.__main__, workloads.tasks.aneurysm, workloads.tasks.digits, workloads.tasks.metastasis",
    ],
)
def test_neither_metrics_nor_a_command_line_load_tensorflow(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted({{'tensorflow', 'keras', 'sklearn', 'optuna'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
