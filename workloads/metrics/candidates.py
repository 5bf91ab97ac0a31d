"""From a probability map to scored points: smoothed, local maxima, a minimum distance apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["MOST", "Candidate", "find_candidates"]

MOST = 40  # candidates of one case


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A suspicious point: its voxel and its score (the smoothed map there)."""

    index: tuple[int, int, int]
    score: float


def find_candidates(
    scores: NDArray[np.floating],
    spacing: tuple[float, float, float],
    *,
    smoothing: float = 0.0,
    distance: float = 2.0,
    limit: int = MOST,
) -> list[Candidate]:
    """The highest local maxima of ``scores``, best first.

    Parameters
    ----------
    scores : ndarray, shape (x, y, z)
        Probabilities, or logits where probabilities would saturate into ties.
    spacing : tuple of float
        Voxel size in mm, so that ``smoothing`` and ``distance`` mean the same along each axis.
    smoothing : float
        Standard deviation in mm of a Gaussian filter before maxima are sought; 0 for none.
    distance : float
        Two candidates are more than this apart (mm); the higher one stays.
    limit : int
        At most so many candidates.

    Notes
    -----
    A map with a value that is not finite (a training that diverged) has no candidates, and so does
    a constant one: nothing in it stands out.
    """
    if not np.isfinite(scores).all() or float(np.ptp(scores)) == 0.0:
        return []
    smooth = np.asarray(scores, dtype=np.float64)
    if smoothing > 0:
        smooth = ndimage.gaussian_filter(smooth, [smoothing / step for step in spacing], mode="nearest")
    peaks = np.argwhere(smooth == ndimage.maximum_filter(smooth, size=3, mode="nearest"))
    heights = smooth[tuple(peaks.T)]
    order = np.argsort(-heights, kind="stable")
    chosen: list[Candidate] = []
    places = np.empty((0, 3))
    for peak, height in zip(peaks[order], heights[order], strict=True):
        place = peak * np.asarray(spacing)
        if places.size and float(np.min(np.linalg.norm(places - place, axis=1))) <= distance:
            continue
        places = np.vstack([places, place])
        chosen.append(Candidate(index=(int(peak[0]), int(peak[1]), int(peak[2])), score=float(height)))
        if len(chosen) == limit:
            break
    return chosen
