"""MRA-like phantoms: vessel trees with saccular aneurysms, and with what is mistaken for them.

A case is a small block of a time-of-flight angiogram. Vessels are tubes about random walks that
taper and fork after Murray's law (r0^3 = r1^3 + r2^3). Aneurysms are ellipsoids half sunk into a
vessel's wall. Infundibula, bright spots beside vessels, kinks with a local widening and loops look
like them and are not labelled. Tissue, a smooth bias field, scanner gain and Rician noise follow.
All lengths are mm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workloads.phantoms.shapes import (
    Array,
    Branch,
    PhantomCase,
    ellipsoid_distance,
    filled,
    scan,
    tube_distance,
    unit,
    vessel_trees,
    voxel_centres,
)

__all__ = ["VesselPhantom", "make_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VesselPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size; anisotropic, as angiograms are.
    vessel_radius : tuple of float
        Smallest and largest radius of a vessel where it enters; it tapers and forks from there.
    sac_radius : tuple of float
        Smallest and largest radius of an aneurysm.
    sac_signal : tuple of float
        Signal of the sac relative to the vessel's (slow flow is darker).
    confounders : float
        Mean number of each kind of look-alike in a case.
    noise : float
        Standard deviation of the noise in each of the two channels; vessels are 1.
    """

    shape: tuple[int, int, int] = (32, 32, 24)
    spacing: tuple[float, float, float] = (0.8, 0.8, 1.0)
    vessel_radius: tuple[float, float] = (1.0, 1.5)
    sac_radius: tuple[float, float] = (1.6, 2.7)
    sac_signal: tuple[float, float] = (0.75, 1.0)
    confounders: float = 0.6
    noise: float = 0.12


@dataclass(slots=True, eq=False)
class _Scene:
    """Signed distances to what is bright; negative inside."""

    grid: Array  # (n, 3) voxel centres
    extent: Array  # (3,)
    vessels: Array  # (n,) signed distance to the nearest lumen
    signal: Array  # (n,) signal of bright things, vessels excluded
    branches: list[Branch] = field(default_factory=list)


def _loop(rng: np.random.Generator, extent: Array) -> Branch:
    """Wind a thin vessel about a small circle: from some sides it looks like a ball."""
    angles = np.arange(0.0, rng.uniform(1.2, 1.7) * np.pi, 0.25)
    size = float(rng.uniform(1.4, 2.4))
    first, second = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    rise = np.cross(first, second)
    points = rng.uniform(0.25, 0.75, 3) * extent + size * (
        np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second + 0.15 * angles[:, None] * rise
    )
    return Branch(points=points, radii=np.full(len(points), float(rng.uniform(0.6, 0.9))))


def _kink(rng: np.random.Generator, branch: Branch) -> None:
    """Bend a branch sharply in its middle and widen it there, all the way around."""
    middle = len(branch.points) // 2
    distance = np.abs(np.arange(len(branch.points)) - middle) * 0.5
    branch.radii = branch.radii * (1.0 + rng.uniform(0.25, 0.5) * np.exp(-0.5 * (distance / 1.2) ** 2))
    push = unit(rng.normal(size=3)) * rng.uniform(0.8, 1.6)
    branch.points = branch.points + push * np.clip(1.0 - distance / 3.0, 0.0, None)[:, None]


def _on_wall(
    rng: np.random.Generator, scene: _Scene, margin: float, *, at_fork: float
) -> tuple[Array, Array, float] | None:
    """Choose a point of a centreline well inside the block, a direction out of the vessel, the radius there."""
    for _ in range(60):
        branch = scene.branches[int(rng.integers(len(scene.branches)))]
        last = len(branch.points) - 1
        index = last if branch.end_forks and rng.random() < at_fork else int(rng.integers(2, last))
        point, radius = branch.points[index], float(branch.radii[index])
        if (point < margin).any() or (point > scene.extent - margin).any():
            continue
        along = unit(branch.points[index] - branch.points[index - 1])
        return point, unit(np.cross(along, rng.normal(size=3))), radius
    return None


def _add_sac(
    rng: np.random.Generator, scene: _Scene, phantom: VesselPhantom, taken: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Add one aneurysm apart from those in ``taken``; its mask, or None where no place was found."""
    for _ in range(40):
        place = _on_wall(rng, scene, margin=3.0, at_fork=0.6)
        if place is None:
            return None
        point, outwards, vessel_radius = place
        radius = float(rng.uniform(*phantom.sac_radius))
        centre = point + outwards * (vessel_radius + radius * rng.uniform(0.35, 0.75))
        distance = ellipsoid_distance(rng, scene.grid, centre, radius)
        mask = (distance < 0.0) & (scene.vessels > 0.0)
        ball = int(np.count_nonzero(distance < 0.0))
        apart = not (taken & (distance < 2.0)).any()
        # Sunk too deep into vessels, or cut by the border, it would be nothing a reader could see.
        if apart and np.count_nonzero(mask) >= max(6, 0.5 * ball):
            scene.signal = np.maximum(scene.signal, filled(distance) * rng.uniform(*phantom.sac_signal))
            return mask
    return None


def _add_confounders(rng: np.random.Generator, scene: _Scene, phantom: VesselPhantom) -> None:
    for _ in range(int(rng.poisson(phantom.confounders))):  # infundibula: a small funnel where a branch leaves
        place = _on_wall(rng, scene, margin=2.0, at_fork=0.5)
        if place is not None:
            point, outwards, vessel_radius = place
            radius = float(rng.uniform(0.7, 1.0))
            centre = point + outwards * (vessel_radius + 0.2 * radius)
            scene.signal = np.maximum(scene.signal, filled(ellipsoid_distance(rng, scene.grid, centre, radius)))
    for _ in range(int(rng.poisson(phantom.confounders))):  # bright spots: fat, calcium, a vessel seen end on
        centre = rng.uniform(0.1, 0.9, 3) * scene.extent
        distance = ellipsoid_distance(rng, scene.grid, centre, float(rng.uniform(1.0, 2.0)))
        if float(np.min(scene.vessels[distance < 0.5], initial=np.inf)) > 1.5:  # touching no vessel
            scene.signal = np.maximum(scene.signal, filled(distance) * rng.uniform(0.7, 1.0))


def make_case(rng: np.random.Generator, phantom: VesselPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` aneurysms (0: a normal case), all of it from ``rng``.

    Raises
    ------
    ValueError
        If the block is too small to hold an aneurysm on a vessel.
    """
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    grid = voxel_centres(phantom.shape, phantom.spacing)
    for _ in range(50):
        branches = vessel_trees(rng, phantom.vessel_radius, extent)
        for branch in branches:
            if rng.random() < 0.15 * phantom.confounders:
                _kink(rng, branch)
        loops = [_loop(rng, extent) for _ in range(int(rng.poisson(0.4 * phantom.confounders)))]
        vessels = np.min([tube_distance(grid, branch) for branch in branches + loops], axis=0)
        scene = _Scene(grid=grid, extent=extent, vessels=vessels, signal=np.zeros(len(grid)), branches=branches)
        label = np.zeros(len(grid), dtype=bool)
        placed = 0
        while placed < lesions:
            mask = _add_sac(rng, scene, phantom, label)
            if mask is None:
                break
            label |= mask
            placed += 1
        if placed == lesions:
            break
    else:
        raise ValueError(f"no room for {lesions} aneurysms in a block of {phantom.shape} voxels")
    _add_confounders(rng, scene, phantom)
    tissue = 0.30 + 0.05 * np.sin(grid @ rng.normal(0.0, 0.5, 3))
    bright = np.maximum(filled(vessels) * rng.uniform(0.85, 1.0), scene.signal)
    signal = tissue + (1.0 - tissue) * bright
    return scan(rng, signal, label, shape=phantom.shape, spacing=phantom.spacing, noise=phantom.noise)
