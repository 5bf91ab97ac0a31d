"""Distances between the surfaces of two masks, in mm.

Definitions, since programs of one name compute different numbers:

* The surface of a mask is those of its voxels that touch background by a face; outside of the array is
  background. Distances go from centre to centre of surface voxels (as MONAI and medpy have it; the program
  surface-distance measures between marching-cubes elements weighted by their area).
* A directed distance is that of each surface voxel of the one mask to the nearest of the other.
* The Hausdorff distance at a percentile is the larger of the two directed percentiles (MONAI); medpy's is the
  percentile of both pooled, which is `SurfaceDistances.pooled_percentile`.
* The average symmetric distance is over all surface voxels of both (MONAI and medpy).
* With one mask empty all distances are infinite and surface Dice is 0; with both empty they are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SurfaceDistances", "surface", "surface_distances"]

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurfaceDistances:
    """Both directed distances of two masks.

    Attributes
    ----------
    to_truth : ndarray of float
        Of each surface voxel of the prediction to the truth's surface; infinite where that is empty.
    to_prediction : ndarray of float
        The other way.
    """

    to_truth: Array
    to_prediction: Array

    def hausdorff(self, percentile: float = 100.0) -> float:
        """The larger of the two directed percentiles: 100 the Hausdorff distance, 95 what is called HD95."""
        return max((_percentile(values, percentile) for values in self._directed), default=float("nan"))

    def pooled_percentile(self, percentile: float) -> float:
        """Percentile of the distances of both surfaces together."""
        return _percentile(self._pooled, percentile)

    @property
    def average(self) -> float:
        """Average symmetric surface distance, over all surface voxels of both masks."""
        return _mean(self._pooled)

    def dice(self, tolerance: float) -> float:
        """Share of all surface voxels that are at most ``tolerance`` mm from the other surface (Nikolov et al. 2018)."""
        return _mean((self._pooled <= tolerance).astype(np.float64))

    @property
    def _directed(self) -> list[Array]:
        """Without that of an empty mask, which has no surface to measure from."""
        return [values for values in (self.to_truth, self.to_prediction) if values.size]

    @property
    def _pooled(self) -> Array:
        return np.concatenate([self.to_truth, self.to_prediction])


def _mean(values: Array) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _percentile(values: Array, percentile: float) -> float:
    if not values.size:
        return float("nan")
    # NumPy interpolates between infinities to NaN.
    return float("inf") if np.isinf(values).any() else float(np.percentile(values, percentile))


def surface(mask: Mask) -> Mask:
    """Voxels of ``mask`` that touch background, or the array's border, by a face."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=0))


def surface_distances(prediction: Mask, truth: Mask, spacing: tuple[float, ...]) -> SurfaceDistances:
    """Measure two masks; ``spacing`` in mm along each axis.

    Raises
    ------
    ValueError
        If the masks differ in shape, or the spacing has not one number for each axis.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shape: {prediction.shape} and {truth.shape}")
    if len(spacing) != truth.ndim:
        raise ValueError(f"{len(spacing)} voxel sizes for masks of {truth.ndim} dimensions")
    # The surfaces lie in the smallest box that holds both masks, and so do the ways between them.
    box = ndimage.find_objects((prediction | truth).astype(np.int8))
    cut = box[0] if box else (slice(0, 0),) * truth.ndim
    of_prediction, of_truth = surface(prediction[cut]), surface(truth[cut])
    return SurfaceDistances(
        to_truth=_distances(of_prediction, of_truth, spacing),
        to_prediction=_distances(of_truth, of_prediction, spacing),
    )


def _distances(of: Mask, to: Mask, spacing: tuple[float, ...]) -> Array:
    if not to.any():
        return np.full(int(np.count_nonzero(of)), np.inf)
    return np.asarray(ndimage.distance_transform_edt(~to, sampling=spacing)[of], dtype=np.float64)
