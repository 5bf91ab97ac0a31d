"""Phantoms of contrast-enhanced MR images: brain with metastases, and with what is mistaken for them.

A case is a small block of brain: grey and white matter, dark sulci, in some cases the brain's edge with
enhancing dura beyond it. Contrast agent lights up vessels, tufts of choroid plexus, specks of vessels that
are seen end on, and metastases: spheroids of a few mm, many of them faint, some beside a vessel, the larger
ones now and then a ring about a dark middle. Only metastases are labelled. All lengths are mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.phantoms.shapes import (
    Array,
    PhantomCase,
    ellipsoid_distance,
    filled,
    scan,
    tube_distance,
    vessel_trees,
    voxel_centres,
)

__all__ = ["BrainPhantom", "make_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size.
    vessel_radius, lesion_radius : tuple of float
        Smallest and largest; a vessel's where it enters the block.
    contrast : tuple of float
        Signal of a lesion above its surroundings, smallest and largest; vessels reach 0.7.
    confounders : float
        Mean number of each kind of look-alike in a case.
    noise : float
        Standard deviation of the noise in each of the two channels; the brightest vessels are 1.
    """

    shape: tuple[int, int, int] = (32, 32, 24)
    spacing: tuple[float, float, float] = (0.9, 0.9, 1.0)
    vessel_radius: tuple[float, float] = (0.8, 1.3)
    lesion_radius: tuple[float, float] = (1.2, 2.6)
    contrast: tuple[float, float] = (0.3, 0.7)
    confounders: float = 1.5
    noise: float = 0.05


def _waves(rng: np.random.Generator, grid: Array, length: float) -> Array:
    """A smooth random field about 0, between -1 and 1 nearly always, that turns over ``length`` mm."""
    directions = rng.normal(0.0, 2.0 * np.pi / length / np.sqrt(3.0), (3, 5))
    return np.asarray(np.sin(grid @ directions + rng.uniform(0.0, 2.0 * np.pi, 5)).mean(axis=1) * 1.5)


def _outside(rng: np.random.Generator, grid: Array, extent: Array) -> Array:
    """Signed distance to the brain's edge, which half of the cases have: a bent plane near one corner."""
    if rng.random() < 0.5:
        return np.full(len(grid), -1e3)
    normal = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.2, 1.0, 3)
    normal /= np.linalg.norm(normal)
    furthest = float(np.abs(normal) @ extent) / 2.0
    return np.asarray((grid - extent / 2.0) @ normal - 0.65 * furthest + _waves(rng, grid, 20.0))


def _lesion_centre(
    rng: np.random.Generator, grid: Array, extent: Array, vessels: Array, outside: Array, radius: float
) -> Array | None:
    """A place in the brain, off the block's border; for three in ten beside a vessel."""
    inner = ((grid > 2.0) & (grid < extent - 2.0)).all(axis=1) & (outside < -radius)
    beside = (vessels > 0.6 * radius) & (vessels < radius + 0.5)
    wanted = inner & (beside if rng.random() < 0.3 else vessels > radius)
    places = np.flatnonzero(wanted)
    return grid[int(rng.choice(places))] if places.size else None


def _look_alikes(rng: np.random.Generator, grid: Array, extent: Array, mean: float) -> Array:
    """Enhancement, 0 to 1, of what is no lesion: specks, and tufts of choroid plexus."""
    signal = np.zeros(len(grid))
    for _ in range(int(rng.poisson(mean))):
        speck = ellipsoid_distance(rng, grid, rng.uniform(0.05, 0.95, 3) * extent, float(rng.uniform(0.5, 0.8)))
        signal = np.maximum(signal, filled(speck) * rng.uniform(0.6, 1.0))
    for _ in range(int(rng.poisson(0.5 * mean))):
        centre, along = rng.uniform(0.1, 0.9, 3) * extent, rng.normal(0.0, 1.6, 3)
        for place in np.linspace(-1.5, 1.5, 5):
            blob = centre + place * along + rng.normal(0.0, 0.5, 3)
            tuft = ellipsoid_distance(rng, grid, blob, float(rng.uniform(0.6, 1.1)))
            signal = np.maximum(signal, filled(tuft) * rng.uniform(0.4, 0.9))
    return signal


def _with_lesions(
    rng: np.random.Generator, phantom: BrainPhantom, grid: Array, vessels: Array, outside: Array, lesions: int
) -> tuple[Array, NDArray[np.bool_]] | None:
    """Enhancement by ``lesions`` metastases that do not touch, and their mask; None where there is no room."""
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    signal, label = np.zeros(len(grid)), np.zeros(len(grid), dtype=bool)
    placed = 0
    for _ in range(40 * lesions):
        if placed == lesions:
            break
        radius = float(rng.uniform(*phantom.lesion_radius))
        centre = _lesion_centre(rng, grid, extent, vessels, outside, radius)
        if centre is None:
            continue
        distance = ellipsoid_distance(rng, grid, centre, radius)
        mask = (distance < 0.0) & (vessels > 0.0) & (outside < 0.0)
        if (label & (distance < 2.0)).any() or np.count_nonzero(mask) < 4:
            continue
        shape = filled(distance)
        if radius > 2.0 and rng.random() < 0.5:  # a necrotic middle takes up no contrast agent
            shape = shape * (1.0 - 0.8 * filled(distance + 1.2))
        signal = np.maximum(signal, shape * rng.uniform(*phantom.contrast))
        label |= mask
        placed += 1
    return (signal, label) if placed == lesions else None


def make_case(rng: np.random.Generator, phantom: BrainPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` metastases (0: a normal case), all of it from ``rng``.

    Raises
    ------
    ValueError
        If the block is too small to hold them.
    """
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    grid = voxel_centres(phantom.shape, phantom.spacing)
    for _ in range(30):
        trees = vessel_trees(rng, phantom.vessel_radius, extent)
        vessels = np.min([tube_distance(grid, branch) for branch in trees], axis=0)
        outside = _outside(rng, grid, extent)
        found = _with_lesions(rng, phantom, grid, vessels, outside, lesions)
        if found is not None:
            break
    else:
        raise ValueError(f"no room for {lesions} metastases in a block of {phantom.shape} voxels")
    enhancing, label = found
    white = filled(2.0 * _waves(rng, grid, 12.0))
    tissue = 0.22 + 0.08 * white
    sulci = filled(3.0 * (np.abs(_waves(rng, grid, 16.0)) - 0.06))
    tissue = tissue * (1.0 - 0.7 * sulci)
    others = _look_alikes(rng, grid, extent, phantom.confounders)
    enhancing = np.maximum(enhancing, 0.7 * np.maximum(filled(vessels) * rng.uniform(0.8, 1.0), others))
    dura = filled(np.abs(outside - 0.8) - 0.5) * rng.uniform(0.4, 0.7)
    signal = np.where(outside > 0.0, 0.05 + dura, tissue + np.maximum(enhancing, dura))
    return scan(rng, signal, label, shape=phantom.shape, spacing=phantom.spacing, noise=phantom.noise)
