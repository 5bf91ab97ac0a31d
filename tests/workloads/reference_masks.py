"""Pairs of masks on which metrics were computed by other programs too: made by rule, so that they are the same anywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACING = (0.7, 0.7, 2.5)
SHAPE = (24, 26, 14)


def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    return np.asarray(np.sum(((grid - centre) / np.asarray(radii)) ** 2, axis=-1) <= 1.0)


def pairs() -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Prediction and truth, by what is special about them."""
    ball, moved = ellipsoid((10, 12, 6), (6, 7, 3)), ellipsoid((12, 13, 7), (5, 6, 4))
    point = ellipsoid((15, 20, 10), (0.5, 0.5, 0.5))
    hollow = ball & ~ellipsoid((10, 12, 6), (4, 5, 2))
    return {
        "shifted": (moved, ball),
        "the same": (ball, ball),
        "far apart": (ellipsoid((4, 4, 3), (3, 3, 2)), ellipsoid((19, 20, 10), (3, 4, 2))),
        "one voxel": (point, ball),
        "a shell": (ball, hollow),
        "with an outlier": (ball | point, ball),
        "at the border": (ellipsoid((0, 0, 0), (6, 6, 3)), ellipsoid((0, 2, 0), (6, 6, 3))),
    }


def detections() -> list[tuple[list[float], list[int], int]]:
    """Cases as scores, the lesion that each candidate hits (0: none), and the number of lesions."""
    rng = np.random.default_rng(7)
    cases = []
    for lesions in (2, 1, 0, 3, 1, 0, 2, 1):
        found = int(rng.integers(0, lesions + 1))
        hits = [*rng.permutation(lesions)[:found].tolist()]
        scores = [*rng.uniform(0.2, 1.0, found).tolist(), *rng.uniform(0.0, 0.8, 5).tolist()]
        cases.append((scores, [hit + 1 for hit in hits] + [0] * 5, lesions))
    return cases
