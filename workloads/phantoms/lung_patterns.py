"""Phantoms of chest CT with three patterns in the lungs: normal, ground glass and consolidation, each labelled.

They differ by texture as well as by density: normal lung is dark with thin bright vessels and a smooth dependent
band; ground glass is grainy and lets vessels be seen; consolidation is even and hides them. Values are Hounsfield
units, lengths mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.phantoms.lung import AIR, LUNG, SOFT, ellipsoid, lungs, texture
from workloads.phantoms.shapes import Array, PhantomCase, place_in_patient, voxel_centres

__all__ = ["LABELS", "LungPatternsPhantom", "make_case"]

LABELS = {"background": 0, "normal": 1, "ground_glass": 2, "consolidation": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class LungPatternsPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size; slices are thicker than pixels are wide.
    noise : float
        Standard deviation, HU.
    confounders : float
        Mean number of dependent densities in a case: a dim, smooth band at the back of the lungs that is normal.
    """

    shape: tuple[int, int, int] = (64, 56, 16)
    spacing: tuple[float, float, float] = (5.2, 5.2, 15.0)
    noise: float = 110.0
    confounders: float = 1.0


def _regions(
    rng: np.random.Generator, grid: Array, lung: Array, count: int, radii: tuple[float, float], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Blobs with ragged borders in the lung, mostly near its wall."""
    found = np.zeros(len(grid), dtype=bool)
    outer = np.flatnonzero((lung < 0.97) & (lung > 0.5))
    for _ in range(count):
        centre = grid[int(rng.choice(outer))]
        sides = rng.uniform(*radii) * rng.uniform(0.8, 1.25, 3)
        x, y, z = shape
        found |= ellipsoid(grid, centre, sides) + 0.15 * texture(rng, (x, y, z), 1.5) < 1.0
    return np.asarray(found & (lung < 1.0))


def make_case(rng: np.random.Generator, phantom: LungPatternsPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` regions of each kind, which may grow together (0: normal lungs), all of it from ``rng``.

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
    glass = _regions(rng, grid, lung, lesions, (35.0, 65.0), shape)
    dense = _regions(rng, grid, lung, lesions, (25.0, 45.0), shape)
    vessels = inside & (texture(rng, shape, 0.9) > 1.7 + np.clip(lung, 0.0, 1.0))
    values = np.where(torso < 1.0, SOFT + 15.0 * texture(rng, shape, 1.2), AIR)
    values = np.where(inside, LUNG + 25.0 * texture(rng, shape, 2.5), values)
    for _ in range(int(rng.poisson(phantom.confounders))):
        back = np.clip((grid[:, 1] / extent[1] - rng.uniform(0.68, 0.75)) / 0.15, 0.0, 1.0)
        values = np.where(inside, values + rng.uniform(60.0, 160.0) * back, values)
    values = np.where(glass, rng.uniform(-560.0, -460.0) + 90.0 * texture(rng, shape, 0.6), values)
    values = np.where(vessels, np.maximum(values, rng.uniform(-400.0, -250.0)), values)
    values = np.where(dense, rng.uniform(-100.0, 0.0) + 25.0 * texture(rng, shape, 1.5), values)
    seen = ndimage.gaussian_filter(values.reshape(shape), 0.4, mode="nearest") + rng.normal(0.0, phantom.noise, shape)
    label = np.select([dense, glass & ~dense, inside], [3, 2, 1], default=0)
    return PhantomCase(
        image=np.clip(seen, -1024, 3071).astype(np.int16),
        label=label.astype(np.uint8).reshape(shape),
        affine=place_in_patient(rng, phantom.spacing, tilt=0.0),
    )
