"""Phantoms of chest CT with opacities as they are typical of COVID-19 pneumonia, and as they are not.

Typical: several rounded patches along the walls of both lungs, mostly ground glass. Not typical: a lobe of one lung,
what surrounds its hilum, or none. Where there are opacities, both have as much of each kind, so that how much is
abnormal does not tell them apart, but where and of which shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.classified_volumes import write_volumes
from workloads.phantoms.lung import LABELS, LungPhantom, Regions, ellipsoid, make_case, texture
from workloads.phantoms.shapes import Array, PhantomCase

__all__ = ["KINDS", "SHAPE", "make_typicality", "write_dataset"]

KINDS = ("high", "low")  # likelihood
SHAPE, EXTENT = (40, 32, 16), (336.0, 280.0, 240.0)  # voxels, mm


def _side(rng: np.random.Generator, grid: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """One half of the chest and the other."""
    right = grid[:, 0] < (grid[:, 0].min() + grid[:, 0].max()) / 2.0
    return (right, ~right) if rng.random() < 0.5 else (~right, right)


def _typical(rng: np.random.Generator, grid: Array, lung: Array, count: int, shape: tuple[int, int, int]) -> Regions:
    """``count`` rounded patches along the walls of both lungs."""
    outer = (lung > 0.72) & (lung < 0.95)
    glass, dense = np.zeros(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
    for half, share in zip(_side(rng, grid), ((count + 1) // 2, count // 2), strict=True):
        for _ in range(share):
            centre = grid[int(rng.choice(np.flatnonzero(outer & half)))]
            blob = ellipsoid(grid, centre, rng.uniform(24.0, 38.0) * rng.uniform(0.85, 1.15, 3))
            patch = (blob + 0.12 * texture(rng, shape, 1.5) < 1.0) & (lung < 1.0)
            if rng.random() < 0.65:
                glass |= patch
            else:
                dense |= patch
    return glass & ~dense, dense


def _atypical(rng: np.random.Generator, grid: Array, lung: Array, count: int, shape: tuple[int, int, int]) -> Regions:
    """As much of both as in ``count`` typical patches (0: none), in a lobe of one lung or about its hilum."""
    amounts = [int(np.count_nonzero(each)) for each in _typical(rng, grid, lung, count, shape)]
    half, _ = _side(rng, grid)
    places = np.flatnonzero(half & (lung < 1.0))
    height = grid[places, 2]
    if rng.random() < 0.5:  # from the base up, or from the top down
        order = (height if rng.random() < 0.5 else -height) + 8.0 * texture(rng, shape, 4.0)[places]
    else:
        middle = np.array([grid[:, 0].mean(), grid[places, 1].mean(), np.median(height)])
        order = ellipsoid(grid[places], middle, np.array([60.0, 50.0, 50.0])) + 0.15 * texture(rng, shape, 2.0)[places]
    nearest = places[np.argsort(order)]
    glass, dense = np.zeros(len(grid), dtype=bool), np.zeros(len(grid), dtype=bool)
    dense[nearest[: amounts[1]]] = True
    glass[nearest[amounts[1] : sum(amounts)]] = True
    return glass, dense


def make_typicality(rng: np.random.Generator, kind: str, *, shape: tuple[int, int, int], noise: float) -> PhantomCase:
    """One chest of high or low likelihood, all of it from ``rng``; a fifth of low ones has no opacity.

    Parameters
    ----------
    noise : float
        Standard deviation, HU.
    """
    spacing = tuple(extent / side for extent, side in zip(EXTENT, shape, strict=True))
    phantom = LungPhantom(shape=shape, spacing=(spacing[0], spacing[1], spacing[2]), noise=noise)
    count = int(rng.integers(3, 7))
    if kind == "high":
        return make_case(rng, phantom, count, regions=_typical)
    return make_case(rng, phantom, 0 if rng.random() < 0.2 else count, regions=_atypical)


def write_dataset(folder: Path, sizes: dict[str, int], *, shape: tuple[int, int, int], noise: float, seed: int) -> None:
    """Write ``sizes`` chests of each class in each part of the split, and masks of their opacities.

    Raises
    ------
    WorkloadError
        If the folder already holds a data set.
    ValueError
        If the block is too small for lungs.
    """
    number = 0
    cases = []
    for part, size in sizes.items():
        for index in range(2 * size):
            kind = KINDS[index % 2]
            made = make_typicality(np.random.default_rng([seed, number]), kind, shape=shape, noise=noise)
            cases.append((part, f"chest_{number:04d}", kind, made.image, made.label, made.affine))
            number += 1
    write_volumes(folder, cases, labels=LABELS, marked=LABELS["abnormal"])
