"""How well a partition without names agrees with the truth: adjusted Rand index, and which cluster is which class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["adjusted_rand_index", "match", "overlaps"]

Labels = NDArray[np.integer]


def overlaps(truth: Labels, clusters: Labels, *, classes: int, groups: int) -> NDArray[np.int64]:
    """Samples of each class (from 0) in each cluster (from 0), shape (classes, groups)."""
    counts = np.bincount(truth.astype(np.int64) * groups + clusters, minlength=classes * groups)
    return counts.reshape(classes, groups)


def adjusted_rand_index(table: NDArray[np.int64]) -> float:
    """Agreement of two partitions, 1 for the same, 0 on average for unrelated ones (Hubert and Arabie 1985).

    Parameters
    ----------
    table : ndarray of int, shape (classes, clusters)
        As `overlaps` makes it.

    Returns
    -------
    float
        NaN where both partitions have a single part, or no two samples share one: then there is nothing to agree on.
    """

    def pairs(counts: NDArray[np.int64]) -> float:
        exact = counts.astype(np.float64)
        return float(np.sum(exact * (exact - 1.0)) / 2.0)

    together, of_truth, of_clusters = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    everything = pairs(np.asarray(table.sum()))
    expected = of_truth * of_clusters / everything if everything else 0.0
    most = (of_truth + of_clusters) / 2.0
    return (together - expected) / (most - expected) if most != expected else float("nan")


def match(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of each cluster, one for each, such that their Dice coefficients add up to the most (Kuhn 1955).

    By Dice and not by shared samples, because a class that is everywhere would else have its way alone.

    Parameters
    ----------
    table : ndarray of int, shape (classes, clusters)
        As `overlaps` makes it, with as many classes as clusters.
    """
    sizes = table.sum(axis=1, keepdims=True) + table.sum(axis=0, keepdims=True)
    dice = 2.0 * table / np.maximum(sizes, 1)
    classes, clusters = linear_sum_assignment(-dice)
    return np.asarray(classes[np.argsort(clusters)], dtype=np.int64)
