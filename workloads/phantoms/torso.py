"""Phantoms of CT of the trunk: the chest alone, chest and abdomen, or the abdomen alone, in thin slices or thick ones.

Lungs, normal or with dense regions, are those of `workloads.phantoms.lung`. Beside them there is air that is no
lung: around the body, in the trachea, in the stomach under the left diaphragm, and in loops of bowel. Values are
Hounsfield units, lengths mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.phantoms.lung import AIR, BONE, LUNG, SOFT, abnormal, ellipsoid, lay_down, lungs, texture
from workloads.phantoms.shapes import Array, PhantomCase, voxel_centres

__all__ = ["LABELS", "RANGES", "TorsoPhantom", "make_case"]

LABELS = {"background": 0, "lung": 1}
# Where a scan ends below and above, in heights of the chest over the lungs' base; each varies.
RANGES = {
    "chest": ((-0.12, 0.0), (0.95, 1.1)),
    "chest-abdomen": ((-0.9, -0.6), (0.95, 1.1)),
    "abdomen": ((-0.9, -0.8), (-0.2, -0.12)),
}
FAT, LIVER = -100.0, 70.0
ADULT = 160.0  # height of the chest whose dense regions are as large as those of `lung.abnormal`


@dataclass(frozen=True, slots=True, kw_only=True)
class TorsoPhantom:
    """What a phantom looks like.

    Attributes
    ----------
    shape : tuple of int
        Pixels of a slice, and slices over the height of the chest if they were 5 mm thick.
    pixel : float
        Their size.
    thickness : float
        Of a slice, with no gap to the next.
    scan : str
        One of `RANGES`.
    noise : float
        Standard deviation in a slice of 5 mm, HU; a thinner one has more.
    confounders : float
        Mean number of pockets of gas in the bowel.
    """

    shape: tuple[int, int, int] = (48, 40, 32)
    pixel: float = 5.0
    thickness: float = 5.0
    scan: str = "chest"
    noise: float = 25.0
    confounders: float = 6.0


def _gas(rng: np.random.Generator, grid: Array, extent: Array, inside: NDArray[np.bool_], mean: float) -> Array:
    """Where the stomach's bubble and the bowel's gas are, below the lungs."""
    stomach = extent * np.array([rng.uniform(0.64, 0.72), rng.uniform(0.38, 0.48), rng.uniform(-0.25, -0.1)])
    gas = ellipsoid(grid, stomach, extent * rng.uniform(0.07, 0.12, 3)) < 1.0
    for _ in range(int(rng.poisson(mean))):
        centre = extent * np.array([rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.6), rng.uniform(-0.9, -0.3)])
        gas |= ellipsoid(grid, centre, extent[0] * rng.uniform(0.03, 0.1, 3)) < 1.0
    return np.asarray(gas & inside)


def make_case(rng: np.random.Generator, phantom: TorsoPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` dense or hazy regions of lung, which are lung all the same; all of it from ``rng``.

    It is computed in slices of about 1 mm, of which thicker ones are the mean.

    Raises
    ------
    ValueError
        If the block is too small for lungs.
    """
    if min(phantom.shape) < 8:
        raise ValueError(f"no room for lungs in a block of {phantom.shape} voxels")
    extent = np.array([phantom.shape[0] * phantom.pixel, phantom.shape[1] * phantom.pixel, phantom.shape[2] * 5.0])
    bottom, top = (float(rng.uniform(*limits)) * extent[2] for limits in RANGES[phantom.scan])
    slices, parts = max(1, round((top - bottom) / phantom.thickness)), max(1, round(phantom.thickness))
    shape = (*phantom.shape[:2], slices * parts)
    grid = voxel_centres(shape, (phantom.pixel, phantom.pixel, phantom.thickness / parts))
    grid[:, 2] += bottom
    _, lung = lungs(rng, grid, extent)
    inside = lung < 1.0
    glass, dense = abnormal(rng, grid, lung, lesions if inside.any() else 0, shape, size=extent[2] / ADULT)
    body = np.linalg.norm((grid[:, :2] / extent[:2] - 0.5) / [0.47, 0.44], axis=1)

    values = np.where(body < 1.0, SOFT + 15.0 * texture(rng, shape, 1.2), AIR)
    values = np.where((body > 0.93) & (body < 1.0), FAT, values)
    liver = ellipsoid(grid, extent * np.array([0.33, 0.42, -0.2]), extent * np.array([0.22, 0.3, 0.3]))
    values = np.where(liver < 1.0, LIVER, values)
    spine = np.linalg.norm((grid[:, :2] / extent[:2] - [0.5, 0.8]) / [0.07, 0.08], axis=1) < 1.0
    ribs = (np.abs(body - 0.88) < 0.035) & (np.sin(grid[:, 2] * 2.0 * np.pi / 24.0 + grid[:, 1] / 40.0) > 0.3)
    values = np.where(spine | (ribs & (grid[:, 2] > -0.15 * extent[2])), BONE, values)
    trachea = np.linalg.norm((grid[:, :2] / extent[:2] - [0.5, 0.5]) / [0.035, 0.045], axis=1) < 1.0
    airy = (trachea & (grid[:, 2] > 0.5 * extent[2])) | _gas(rng, grid, extent, body < 0.9, phantom.confounders)
    values = np.where(airy & ~inside, AIR, values)
    values = np.where(inside, LUNG + 25.0 * texture(rng, shape, 2.5), values)
    vessels = inside & (texture(rng, shape, 1.0) > 1.6 + np.clip(lung, 0.0, 1.0))
    values = np.where(glass, rng.uniform(-650.0, -450.0), values)
    values = np.where(vessels, np.maximum(values, rng.uniform(-300.0, -100.0)), values)
    values = np.where(dense, rng.uniform(-100.0, 30.0), values)

    seen = ndimage.gaussian_filter(values.reshape(shape), (0.5, 0.5, 0.0), mode="nearest")
    seen = seen.reshape(*shape[:2], slices, parts).mean(axis=-1)
    share = inside.reshape(*shape[:2], slices, parts).mean(axis=-1)
    seen += rng.normal(0.0, phantom.noise * np.sqrt(5.0 / phantom.thickness), seen.shape)
    return lay_down(
        rng,
        np.clip(seen, -1024, 3071).astype(np.int16),
        (share > 0.5).astype(np.uint8),
        (phantom.pixel, phantom.pixel, phantom.thickness),
    )
