"""Phantoms of chest CT in thin slices: lungs with vessels and nodules, ribs, a diaphragm. Hounsfield units, mm.

All that is in them is a shape with an edge, and next to nothing is random from one slice to the next: what thick slices
blur can in part be told from what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from workloads.phantoms.lung import AIR, BONE, LUNG, SOFT, ellipsoid, lungs
from workloads.phantoms.shapes import PhantomCase, place_in_patient, tube_distance, vessel_trees, voxel_centres

__all__ = ["LABELS", "ThinChestPhantom", "make_case"]

LABELS = {"background": 0, "lung": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinChestPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size.
    noise : float
        Standard deviation, HU.
    confounders : float
        Mean number of nodules for each that the case is asked to have; nothing is labelled but the lung.
    """

    shape: tuple[int, int, int] = (40, 32, 48)
    spacing: tuple[float, float, float] = (6.0, 6.0, 3.0)
    noise: float = 12.0
    confounders: float = 2.0


def make_case(rng: np.random.Generator, phantom: ThinChestPhantom, lesions: int) -> PhantomCase:
    """Make one case with nodules as many as ``lesions`` asks for, all of it from ``rng``.

    Raises
    ------
    ValueError
        If the block is too small for lungs.
    """
    shape = phantom.shape
    if min(shape) < 8:
        raise ValueError(f"no room for lungs in a block of {shape} voxels")
    grid = voxel_centres(shape, phantom.spacing)
    extent = np.asarray(phantom.spacing) * np.asarray(shape)
    torso, lung = lungs(rng, grid, extent)
    inside = lung < 1.0
    values = np.where(torso < 1.0, SOFT, AIR)
    # Ribs go down from the back to the front, each a few slices thick.
    ribs = np.sin(grid[:, 2] * 2.0 * np.pi / rng.uniform(24.0, 32.0) + grid[:, 1] / 25.0) > 0.3
    values = np.where((np.abs(torso - 0.92) < 0.05) & ribs, BONE, values)
    values = np.where(inside, LUNG, values)
    for _ in range(2):
        for branch in vessel_trees(rng, (5.0, 9.0), extent):
            values = np.where(inside & (tube_distance(grid, branch) < 0.0), SOFT, values)
    spots = np.flatnonzero(lung < 0.9)
    for _ in range(int(rng.poisson(phantom.confounders * max(1, lesions)))):
        radii = rng.uniform(6.0, 14.0) * rng.uniform(0.8, 1.25, 3)
        values = np.where(inside & (ellipsoid(grid, grid[int(rng.choice(spots))], radii) < 1.0), SOFT, values)
    seen = ndimage.gaussian_filter(values.reshape(shape), 0.5, mode="nearest") + rng.normal(0.0, phantom.noise, shape)
    return PhantomCase(
        image=np.clip(seen, -1024, 3071).astype(np.int16),
        label=inside.astype(np.uint8).reshape(shape),
        affine=place_in_patient(rng, phantom.spacing, tilt=0.0),
    )
