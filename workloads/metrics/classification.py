"""What a classifier is worth: ROC and precision-recall areas, calibration, agreement, confusion.

Classes are numbered from 0. Scores of the two-class measures are of class 1: higher is more likely. Cases of
equal score are one step of a curve, whatever their order. A measure that does not exist (one class is absent)
is NaN, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "average_precision",
    "balanced_accuracy",
    "brier_score",
    "calibration_error",
    "cohen_kappa",
    "confusion",
    "f1_scores",
    "roc_auc",
    "sensitivity_specificity",
]

Labels = NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]
Scores = NDArray[np.floating] | Sequence[float]


def _two_classes(truth: Labels, scores: Scores) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    labels, values = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if labels.shape != values.shape or labels.ndim != 1:
        raise ValueError(f"{labels.shape} labels but {values.shape} scores")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels are 0 or 1, not {sorted(set(labels.tolist()) - {0, 1})[:3]}")
    if not np.isfinite(values).all():
        raise ValueError("a score is not finite")
    return labels.astype(bool), values


def roc_auc(truth: Labels, scores: Scores) -> float:
    """Chance that a case of class 1 scores above one of class 0, ties counting half (Mann and Whitney)."""
    labels, values = _two_classes(truth, scores)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return float("nan")
    ranks = stats.rankdata(values)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(truth: Labels, scores: Scores) -> float:
    """Area under the precision-recall curve as a sum of steps: interpolating it linearly flatters (Davis 2006)."""
    labels, values = _two_classes(truth, scores)
    if not labels.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found = np.cumsum(labels[order])[last]
    precision, recall = found / (last + 1), found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def sensitivity_specificity(truth: Labels, scores: Scores, threshold: float) -> tuple[float, float]:
    """Share of class 1 at or above ``threshold``, share of class 0 below it."""
    labels, values = _two_classes(truth, scores)
    called = values >= threshold
    return _mean(called[labels]), _mean(~called[~labels])


def brier_score(truth: Labels, probabilities: Scores) -> float:
    """Mean squared difference of probability and truth (Brier 1950)."""
    labels, values = _two_classes(truth, probabilities)
    return _mean((values - labels) ** 2)


def calibration_error(truth: Labels, probabilities: Scores, *, bins: int = 10) -> float:
    """Expected calibration error of the probability of class 1, over ``bins`` of equal width.

    In each bin the mean probability is compared with the share of class 1; bins are weighted by their
    cases. A probability on an edge belongs to the bin above it, 1 to the last.

    Raises
    ------
    ValueError
        If a probability is not in 0 to 1.
    """
    labels, values = _two_classes(truth, probabilities)
    if values.size and (values.min() < 0.0 or values.max() > 1.0):
        raise ValueError("probabilities go from 0 to 1")
    bin_of = np.minimum((values * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(bin_of, values, bins) - np.bincount(bin_of, labels, bins))
    return float(gaps.sum() / values.size) if values.size else float("nan")


def confusion(truth: Labels, answer: Labels, classes: int) -> NDArray[np.int64]:
    """Cases by class (rows: truth) and answer (columns).

    Raises
    ------
    ValueError
        If there are not as many answers as cases, or a number is no class.
    """
    rows, columns = np.asarray(truth, dtype=np.int64), np.asarray(answer, dtype=np.int64)
    if rows.shape != columns.shape or rows.ndim != 1:
        raise ValueError(f"{rows.shape} labels but {columns.shape} answers")
    both = np.concatenate([rows, columns])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ValueError(f"a class is not in 0 to {classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the share of their cases that are answered right."""
    cases = matrix.sum(axis=1)
    present = cases > 0
    return _mean(np.diag(matrix)[present] / cases[present])


def f1_scores(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class; NaN for one that occurs neither in truth nor in answers."""
    right, either = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)
    return np.asarray(np.divide(2.0 * right, either, out=np.full(len(matrix), np.nan), where=either > 0))


def cohen_kappa(matrix: NDArray[np.int64], *, weights: str = "none") -> float:
    """Agreement beyond chance (Cohen 1960); of ordered classes with ``weights`` linear or quadratic.

    NaN where chance agrees always: all cases and all answers are of one class.
    """
    steps = np.abs(np.subtract.outer(np.arange(len(matrix)), np.arange(len(matrix)))).astype(np.float64)
    kinds = {"none": (steps > 0).astype(np.float64), "linear": steps, "quadratic": steps**2}
    if weights not in kinds:
        raise ValueError(f"weights are one of {', '.join(kinds)}, not {weights!r}")
    chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / max(int(matrix.sum()), 1)
    expected = float(np.sum(kinds[weights] * chance))
    return 1.0 - float(np.sum(kinds[weights] * matrix)) / expected if expected else float("nan")


def _mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if values.size else float("nan")
