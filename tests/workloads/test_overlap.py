from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from workloads.metrics.overlap import count, dice, dice_of_labels, false_volume, mean_dice_of_lesion_cases

EMPTY = np.zeros((2, 2, 2), dtype=bool)
FULL = np.ones((2, 2, 2), dtype=bool)


def test_dice_of_half_an_overlap_is_worked_out_by_hand() -> None:
    half = EMPTY.copy()
    half[0] = True  # 4 of 8 voxels
    assert dice(half, FULL) == pytest.approx(2 * 4 / 12)


def test_every_overlap_is_a_share_of_counted_voxels() -> None:
    prediction, truth = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    prediction[0], truth[:, 0] = True, True  # 4 and 4 voxels that share one, of 16
    found = count(prediction, truth)
    assert (found.both, found.only_prediction, found.only_truth, found.neither) == (1, 3, 3, 9)
    assert (found.dice, found.jaccard, found.sensitivity, found.precision) == (2 / 8, 1 / 7, 1 / 4, 1 / 4)
    assert (found.specificity, found.volume_ratio) == (9 / 12, 1.0)


def test_a_share_of_nothing_does_not_exist() -> None:
    empty, marked = count(EMPTY, EMPTY), count(FULL, EMPTY)
    assert all(map(math.isnan, (empty.dice, empty.jaccard, empty.sensitivity, empty.precision, empty.volume_ratio)))
    assert (empty.specificity, marked.specificity, marked.volume_ratio) == (1.0, 0.0, math.inf)
    assert math.isnan(count(FULL, FULL).specificity)


def test_each_label_has_its_own_dice_and_one_that_is_absent_has_none() -> None:
    truth = np.array([0, 1, 1, 2, 2, 2])
    prediction = np.array([0, 1, 2, 2, 2, 0])
    found = dice_of_labels(prediction, truth, {"normal": 1, "abnormal": 2, "other": 3})
    assert found["normal"] == pytest.approx(2 * 1 / 3)
    assert found["abnormal"] == pytest.approx(2 * 2 / 6)
    assert math.isnan(found["other"])


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
        "workloads.metrics.surface, workloads.metrics.classification, workloads.metrics.image_quality",
        "workloads.__main__, workloads.tasks.aneurysm, workloads.tasks.digits, workloads.tasks.covid_3d",
    ],
)
def test_neither_metrics_nor_a_command_line_load_tensorflow(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted({{'tensorflow', 'keras', 'sklearn', 'optuna'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
