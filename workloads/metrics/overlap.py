"""Overlap of masks, with the empty masks kept honest.

When prediction and truth are both empty, Dice is 0/0. Calling it 1 lets a network that predicts
nothing score the fraction of normal cases; so the mean here is taken over cases that have a lesion,
and normal cases are judged by the volume that is wrongly marked in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "count", "dice", "dice_of_labels", "false_volume", "mean_dice_of_lesion_cases"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Voxels of a prediction against the truth; a measure that is 0/0 there is NaN.

    Attributes
    ----------
    both, only_prediction, only_truth, neither : int
        True positives, false positives, false negatives, true negatives.
    """

    both: int
    only_prediction: int
    only_truth: int
    neither: int

    @property
    def dice(self) -> float:
        """``2|A and B| / (|A| + |B|)`` (Dice 1945)."""
        return _share(2 * self.both, 2 * self.both + self.only_prediction + self.only_truth)

    @property
    def jaccard(self) -> float:
        """``|A and B| / |A or B|``, also called intersection over union."""
        return _share(self.both, self.both + self.only_prediction + self.only_truth)

    @property
    def sensitivity(self) -> float:
        """Share of the truth that is found."""
        return _share(self.both, self.both + self.only_truth)

    @property
    def precision(self) -> float:
        """Share of the prediction that is true."""
        return _share(self.both, self.both + self.only_prediction)

    @property
    def specificity(self) -> float:
        """Share of what is not in the truth that is left alone."""
        return _share(self.neither, self.neither + self.only_prediction)

    @property
    def volume_ratio(self) -> float:
        """Volume of the prediction over that of the truth; infinite where only the truth is empty."""
        predicted, true = self.both + self.only_prediction, self.both + self.only_truth
        return float("inf") if predicted and not true else _share(predicted, true)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def count(prediction: Mask, truth: Mask) -> Counts:
    """Count voxels.

    Raises
    ------
    ValueError
        If the masks differ in shape.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shape: {prediction.shape} and {truth.shape}")
    both = int(np.count_nonzero(prediction & truth))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    return Counts(
        both=both,
        only_prediction=predicted - both,
        only_truth=true - both,
        neither=truth.size - predicted - true + both,
    )


def dice(prediction: Mask, truth: Mask, *, both_empty: float = np.nan) -> float:
    """Dice coefficient; ``both_empty`` where it is 0/0.

    Raises
    ------
    ValueError
        If the masks differ in shape.
    """
    counts = count(prediction, truth)
    return both_empty if np.isnan(counts.dice) else counts.dice


def dice_of_labels(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], labels: Mapping[str, int]
) -> dict[str, float]:
    """Dice of each of the named labels of two label maps; NaN for one that neither has."""
    return {name: dice(prediction == number, truth == number) for name, number in labels.items()}


def mean_dice_of_lesion_cases(pairs: Iterable[tuple[Mask, Mask]]) -> float:
    """Mean Dice of (prediction, truth) over the pairs whose truth is not empty; NaN if there is none."""
    values = [dice(prediction, truth) for prediction, truth in pairs if truth.any()]
    return float(np.mean(values)) if values else float("nan")


def false_volume(prediction: Mask, truth: Mask, spacing: tuple[float, ...]) -> float:
    """Volume in mm3 that is marked and should not be; ``spacing`` in mm along each axis."""
    return float(np.count_nonzero(prediction & ~truth)) * float(np.prod(spacing))
