"""Phantoms of chest CT: a torso with two lungs, vessels in them, and in most cases regions that are not normal.

Abnormal regions are ground-glass opacities, faint and with vessels still seen through them, and consolidations,
as dense as soft tissue, mostly along the lung's wall and at its base, as in COVID-19 pneumonia. Where a
consolidation touches the chest wall, nothing but the lung's shape tells where it ends. Values are Hounsfield units,
lengths mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.phantoms.shapes import Array, PhantomCase, place_in_patient, voxel_centres

__all__ = [
    "AIR",
    "BONE",
    "LABELS",
    "LUNG",
    "SOFT",
    "LungPhantom",
    "abnormal",
    "ellipsoid",
    "lay_down",
    "lungs",
    "make_case",
    "texture",
]

LABELS = {"background": 0, "normal": 1, "abnormal": 2}
Regions = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # ground glass, consolidation
AIR, LUNG, SOFT, BONE = -1000.0, -850.0, 40.0, 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LungPhantom:
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
        Mean number of dependent densities in a case: a dim band at the back of the lungs that is normal.
    """

    shape: tuple[int, int, int] = (48, 40, 20)
    spacing: tuple[float, float, float] = (7.0, 7.0, 12.0)
    noise: float = 60.0
    confounders: float = 0.5


def texture(rng: np.random.Generator, shape: tuple[int, int, int], voxels: float) -> Array:
    """A smooth random field of mean 0 and deviation 1 that changes over so many voxels in a plane."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), (voxels, voxels, voxels / 1.7), mode="nearest")
    return np.asarray((field - field.mean()) / field.std()).reshape(-1)


def ellipsoid(grid: Array, centre: Array, radii: Array) -> Array:
    """Below 1 inside, in the ellipsoid's own measure."""
    return np.asarray(np.linalg.norm((grid - centre) / radii, axis=1))


def lungs(rng: np.random.Generator, grid: Array, extent: Array) -> tuple[Array, Array]:
    """Measures of the torso and of the nearer lung, each below 1 inside.

    The lungs stand in the block from 0 to ``extent``; a grid may reach beyond it.
    """
    middle = extent * np.array([0.5, 0.5, 0.5]) + rng.normal(0.0, 4.0, 3)
    size = rng.uniform(0.92, 1.05)
    torso = ellipsoid(grid, middle, np.array([0.46, 0.42, 2.0]) * extent * size)
    both = []
    for side in (-1.0, 1.0):
        centre = middle + extent * np.array([side * rng.uniform(0.19, 0.22), rng.uniform(-0.02, 0.02), 0.0])
        radii = extent * np.array([rng.uniform(0.14, 0.17), rng.uniform(0.27, 0.33), rng.uniform(0.42, 0.55)]) * size
        # Narrower towards the top, and hollowed from below by the diaphragm.
        height = (grid[:, 2] - centre[2]) / extent[2]
        lung = ellipsoid(grid, centre, radii) * (1.0 + 0.35 * np.maximum(height, 0.0))
        dome = ellipsoid(grid, centre - np.array([0.0, 0.0, 0.62 * extent[2]]), extent * np.array([0.2, 0.3, 0.25]))
        both.append(np.maximum(lung, 2.0 - dome))
    heart = ellipsoid(grid, middle + extent * np.array([0.06, -0.08, -0.1]), extent * np.array([0.13, 0.15, 0.2]))
    return torso, np.maximum(np.minimum(*both), 2.0 - heart)


def abnormal(
    rng: np.random.Generator, grid: Array, lung: Array, regions: int, shape: tuple[int, int, int], *, size: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Ground glass and consolidation: blobs with ragged borders, mostly near the lung's wall.

    ``size`` is that of the patient, against an adult.
    """
    glass, dense = np.zeros(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
    outer = np.flatnonzero((lung < 0.97) & (lung > 0.6))
    for _ in range(regions):
        centre = grid[int(rng.choice(outer))]
        radii = size * rng.uniform(24.0, 60.0) * rng.uniform(0.8, 1.25, 3)
        blob = ellipsoid(grid, centre, radii) + 0.18 * texture(rng, shape, 1.5)
        inside = (blob < 1.0) & (lung < 1.0)
        if rng.random() < 0.65:
            glass |= inside
            dense |= (blob < 0.45) & (lung < 1.0) & (rng.random() < 0.5)  # a dense core
        else:
            dense |= inside
    return glass & ~dense, dense


def make_case(
    rng: np.random.Generator, phantom: LungPhantom, lesions: int, *, regions: Callable[..., Regions] = abnormal
) -> PhantomCase:
    """Make one case with ``lesions`` abnormal regions, which may grow together (0: normal lungs), all of it from ``rng``.

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
    glass, dense = regions(rng, grid, lung, lesions, shape)
    inside = lung < 1.0
    # Vessels are many and thin: the crests of a fine texture, fewer towards the wall.
    vessels = inside & (texture(rng, shape, 0.9) > 1.6 + np.clip(lung, 0.0, 1.0))
    values = np.where(torso < 1.0, SOFT + 15.0 * texture(rng, shape, 1.2), AIR)
    ribs = (np.abs(torso - 0.93) < 0.035) & (np.sin(grid[:, 2] * 2.0 * np.pi / 36.0 + grid[:, 1] / 60.0) > 0.3)
    values = np.where(ribs, BONE, values)
    values = np.where(inside, LUNG + 25.0 * texture(rng, shape, 2.5), values)
    for _ in range(int(rng.poisson(phantom.confounders))):
        back = np.clip((grid[:, 1] / extent[1] - rng.uniform(0.68, 0.75)) / 0.15, 0.0, 1.0)
        values = np.where(inside, values + rng.uniform(60.0, 160.0) * back, values)
    values = np.where(glass, rng.uniform(-650.0, -450.0) + 50.0 * texture(rng, shape, 1.0), values)
    values = np.where(vessels, np.maximum(values, rng.uniform(-300.0, -100.0)), values)
    values = np.where(dense, rng.uniform(-100.0, 30.0) + 30.0 * texture(rng, shape, 1.0), values)
    seen = ndimage.gaussian_filter(values.reshape(shape), 0.5, mode="nearest") + rng.normal(0.0, phantom.noise, shape)
    label = np.where(glass | dense, LABELS["abnormal"], np.where(inside, LABELS["normal"], 0))
    return PhantomCase(
        image=np.clip(seen, -1024, 3071).astype(np.int16),
        label=label.astype(np.uint8).reshape(shape),
        affine=place_in_patient(rng, phantom.spacing, tilt=0.0),
    )


def lay_down(
    rng: np.random.Generator, image: NDArray[np.int16], label: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> PhantomCase:
    """A case somewhere in the scanner, whose arrays run to the patient's left, back and top (LPS).

    Half of the files have the first two axes the other way round; what lies where in the patient stays as it is.
    """
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = np.asarray(spacing) * image.shape * np.array([0.5, 0.5, -0.5]) + rng.uniform(-40.0, 40.0, 3)
    if rng.random() < 0.5:
        turn = np.diag([-1.0, -1.0, 1.0, 1.0])
        turn[:2, 3] = np.array(image.shape[:2]) - 1.0
        image, label, affine = np.flip(image, (0, 1)), np.flip(label, (0, 1)), affine @ turn
    return PhantomCase(image=image, label=label, affine=affine)
