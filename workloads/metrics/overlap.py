"""Dice overlap of masks, with the empty masks kept honest.

When prediction and truth are both empty, Dice is 0/0. Calling it 1 lets a network that predicts
nothing score the fraction of normal cases; so the mean here is taken over cases that have a lesion,
and normal cases are judged by the volume that is wrongly marked in them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["dice", "false_volume", "mean_dice_of_lesion_cases"]


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], *, both_empty: float = np.nan) -> float:
    """Dice coefficient ``2|A and B| / (|A| + |B|)`` (Dice 1945); ``both_empty`` where it is 0/0.

    Raises
    ------
    ValueError
        If the masks differ in shape.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shape: {prediction.shape} and {truth.shape}")
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return both_empty
    return 2.0 * int(np.count_nonzero(prediction & truth)) / total


def mean_dice_of_lesion_cases(pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    """Mean Dice of (prediction, truth) over the pairs whose truth is not empty; NaN if there is none."""
    values = [dice(prediction, truth) for prediction, truth in pairs if truth.any()]
    return float(np.mean(values)) if values else float("nan")


def false_volume(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]) -> float:
    """Volume in mm3 that is marked and should not be; ``spacing`` in mm along each axis."""
    return float(np.count_nonzero(prediction & ~truth)) * float(np.prod(spacing))
