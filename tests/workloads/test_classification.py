"""Measures of classifiers: by hand, and scikit-learn's on the same cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from workloads.metrics.classification import (
    average_precision,
    balanced_accuracy,
    brier_score,
    calibration_error,
    cohen_kappa,
    confusion,
    f1_scores,
    roc_auc,
    sensitivity_specificity,
)

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 2, 300)
SCORES = np.round(np.clip(0.35 * TRUTH + RNG.normal(0.3, 0.2, 300), 0, 1), 2)  # two digits: many ties
CLASSES, ANSWERS = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)


def test_the_roc_area_is_the_share_of_pairs_in_the_right_order() -> None:
    # Pairs (1 above 0): 0.9>0.8, 0.9>0.1, 0.5<0.8, 0.5>0.1: three of four. A tie is half a pair.
    assert roc_auc([1, 1, 0, 0], [0.9, 0.5, 0.8, 0.1]) == 0.75
    assert roc_auc([1, 0], [0.5, 0.5]) == 0.5


def test_average_precision_is_worked_out_by_hand() -> None:
    # Ranked 1, 0, 1: recall 1/2 at precision 1, then 1/2 more at 2/3.
    assert average_precision([1, 0, 1], [0.9, 0.8, 0.7]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_scikit_learn_says_the_same_of_scores_with_ties() -> None:
    assert roc_auc(TRUTH, SCORES) == pytest.approx(sklearn.roc_auc_score(TRUTH, SCORES))
    assert average_precision(TRUTH, SCORES) == pytest.approx(sklearn.average_precision_score(TRUTH, SCORES))
    assert brier_score(TRUTH, SCORES) == pytest.approx(sklearn.brier_score_loss(TRUTH, SCORES))
    called = SCORES >= 0.5
    expected = sklearn.recall_score(TRUTH, called), sklearn.recall_score(TRUTH, called, pos_label=0)
    assert sensitivity_specificity(TRUTH, SCORES, 0.5) == pytest.approx(expected)


def test_scikit_learn_says_the_same_of_answers() -> None:
    matrix = confusion(CLASSES, ANSWERS, 4)
    assert np.array_equal(matrix, sklearn.confusion_matrix(CLASSES, ANSWERS))
    assert balanced_accuracy(matrix) == pytest.approx(sklearn.balanced_accuracy_score(CLASSES, ANSWERS))
    assert f1_scores(matrix) == pytest.approx(sklearn.f1_score(CLASSES, ANSWERS, average=None))
    for weights, theirs in {"none": None, "linear": "linear", "quadratic": "quadratic"}.items():
        expected = sklearn.cohen_kappa_score(CLASSES, ANSWERS, weights=theirs)
        assert cohen_kappa(matrix, weights=weights) == pytest.approx(expected)


def test_calibration_compares_confidence_with_truth_bin_by_bin() -> None:
    # [0.5, 0.6): mean 0.5, none true, 2 of 4 cases; [0.9, 1]: mean 0.95, all true, 2 of 4.
    assert calibration_error([0, 0, 1, 1], [0.5, 0.5, 0.9, 1.0]) == pytest.approx(0.5 * 0.5 + 0.5 * 0.05)
    assert calibration_error([0, 1], [0.0, 1.0]) == 0.0


def test_kappa_of_chance_is_0_and_of_full_agreement_1() -> None:
    assert cohen_kappa(np.array([[25, 25], [25, 25]])) == 0.0
    assert cohen_kappa(np.array([[5, 0], [0, 9]]), weights="quadratic") == 1.0


def test_accuracy_of_a_rare_class_is_not_hidden_by_the_common_one() -> None:
    matrix = confusion([0] * 10 + [1], [0] * 11, 2)  # everything is called common
    assert matrix.trace() / matrix.sum() == pytest.approx(10 / 11)
    assert balanced_accuracy(matrix) == 0.5
    assert f1_scores(matrix).tolist() == pytest.approx([20 / 21, 0.0])


def test_what_does_not_exist_is_nan() -> None:
    absent = [roc_auc([1, 1], [0.1, 0.2]), average_precision([0, 0], [0.1, 0.2]), cohen_kappa(confusion([0], [0], 2))]
    absent += [calibration_error([], []), f1_scores(confusion([0], [0], 2))[1], balanced_accuracy(confusion([], [], 2))]
    absent.append(sensitivity_specificity([0], [0.3], 0.5)[0])
    assert all(math.isnan(value) for value in absent)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="labels but"):
        roc_auc([1, 0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="labels are 0 or 1, not \\[2\\]"):
        roc_auc([2, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="not finite"):
        roc_auc([1, 0], [0.1, math.nan])
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibration_error([1, 0], [0.1, 1.2])
    with pytest.raises(ValueError, match="not in 0 to 2"):
        confusion([0, 3], [0, 1], 3)
    with pytest.raises(ValueError, match="weights are one of"):
        cohen_kappa(np.eye(2, dtype=np.int64), weights="cubic")
