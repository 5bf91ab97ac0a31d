"""Connected pieces of a prediction, in three dimensions, judged by their volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["remove_small"]


def remove_small(
    labels: NDArray[np.uint8], spacing: tuple[float, float, float], *, smallest: float
) -> NDArray[np.uint8]:
    """``labels`` without the pieces of less than ``smallest`` ml, each label by itself; they become background.

    A piece is connected through faces of voxels, across slices too: what is small in one slice may be the end of
    something large. Its volume is measured in ml, so that it does not change with the thickness of slices.
    """
    kept = labels.copy()
    voxel = float(np.prod(spacing)) / 1000.0
    for number in np.unique(labels[labels > 0]).tolist():
        pieces, _ = ndimage.label(labels == number)
        volumes = np.bincount(pieces.reshape(-1)) * voxel
        small = volumes < smallest
        small[0] = False
        kept[small[pieces]] = 0
    return kept
