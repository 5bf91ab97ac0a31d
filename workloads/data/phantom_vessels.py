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

__all__ = ["PhantomCase", "VesselPhantom", "make_case"]

Array = NDArray[np.float64]
MURRAY = 0.5 ** (1.0 / 3.0)  # daughter's radius over parent's at an even fork
WALL = 0.3  # mm over which the signal falls from lumen to tissue: partial volume


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomCase:
    """One case.

    Attributes
    ----------
    image : ndarray of int16, shape (x, y, z)
    label : ndarray of uint8, shape (x, y, z)
        1 in aneurysms.
    affine : ndarray of float, shape (4, 4)
        Oblique, sometimes flipped, as scanners write it.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Array


@dataclass(slots=True, eq=False)
class _Branch:
    points: Array  # (n, 3)
    radii: Array  # (n,)
    end_forks: bool = False


@dataclass(slots=True, eq=False)
class _Scene:
    """Signed distances to what is bright; negative inside."""

    grid: Array  # (n, 3) voxel centres
    extent: Array  # (3,)
    vessels: Array  # (n,) signed distance to the nearest lumen
    signal: Array  # (n,) signal of bright things, vessels excluded
    branches: list[_Branch] = field(default_factory=list)


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


def _walk(
    rng: np.random.Generator, start: Array, direction: Array, radius: float, length: float, bend: float
) -> _Branch:
    step = 0.5
    count = max(4, int(length / step))
    points, radii = [start], [radius]
    turn = rng.normal(0.0, bend, 3)
    for index in range(1, count):
        turn = 0.8 * turn + rng.normal(0.0, 0.6 * bend, 3)  # a walk whose curvature is smooth
        direction = _unit(direction + turn)
        points.append(points[-1] + step * direction)
        radii.append(radius * (1.0 - 0.25 * index / count))
    return _Branch(points=np.array(points), radii=np.array(radii))


def _grow(
    rng: np.random.Generator, start: Array, direction: Array, radius: float, extent: Array, depth: int
) -> list[_Branch]:
    length = float(rng.uniform(0.35, 0.6) * extent.max())
    branch = _walk(rng, start, direction, radius, length, bend=0.10)
    if depth == 0:
        return [branch]
    branch.end_forks = True
    forward = _unit(branch.points[-1] - branch.points[-3])
    side = _unit(np.cross(forward, rng.normal(size=3)))
    angle = float(rng.uniform(0.4, 0.9))
    branches = [branch]
    for sign in (1.0, -1.0):
        heading = _unit(np.cos(angle) * forward + sign * np.sin(angle) * side)
        branches += _grow(rng, branch.points[-1], heading, float(branch.radii[-1]) * MURRAY, extent, depth - 1)
    return branches


def _trees(rng: np.random.Generator, phantom: VesselPhantom, extent: Array) -> list[_Branch]:
    branches: list[_Branch] = []
    for _ in range(int(rng.integers(1, 3))):
        axis = int(rng.integers(3))
        start = rng.uniform(0.2, 0.8, 3) * extent
        start[axis] = 0.0
        towards = rng.uniform(0.35, 0.65, 3) * extent - start
        branches += _grow(rng, start, _unit(towards), float(rng.uniform(*phantom.vessel_radius)), extent, depth=2)
    return branches


def _loop(rng: np.random.Generator, extent: Array) -> _Branch:
    """Wind a thin vessel about a small circle: from some sides it looks like a ball."""
    angles = np.arange(0.0, rng.uniform(1.2, 1.7) * np.pi, 0.25)
    size = float(rng.uniform(1.4, 2.4))
    first, second = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    rise = np.cross(first, second)
    points = rng.uniform(0.25, 0.75, 3) * extent + size * (
        np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second + 0.15 * angles[:, None] * rise
    )
    return _Branch(points=points, radii=np.full(len(points), float(rng.uniform(0.6, 0.9))))


def _kink(rng: np.random.Generator, branch: _Branch) -> None:
    """Bend a branch sharply in its middle and widen it there, all the way around."""
    middle = len(branch.points) // 2
    distance = np.abs(np.arange(len(branch.points)) - middle) * 0.5
    branch.radii = branch.radii * (1.0 + rng.uniform(0.25, 0.5) * np.exp(-0.5 * (distance / 1.2) ** 2))
    push = _unit(rng.normal(size=3)) * rng.uniform(0.8, 1.6)
    branch.points = branch.points + push * np.clip(1.0 - distance / 3.0, 0.0, None)[:, None]


def _tube_distance(grid: Array, branch: _Branch) -> Array:
    """Signed distance to the tube's wall; points of ``grid`` far from it are only known to be outside."""
    reach = float(branch.radii.max()) + 2.5
    low, high = branch.points.min(axis=0) - reach, branch.points.max(axis=0) + reach
    near = np.flatnonzero(((grid > low) & (grid < high)).all(axis=1))
    close = grid[near].astype(np.float32)
    points = branch.points.astype(np.float32)
    squares = np.sum(close**2, axis=1)[:, None] + np.sum(points**2, axis=1)[None, :] - 2.0 * (close @ points.T)
    wall = np.sqrt(np.maximum(squares, 0.0)) - branch.radii[None, :].astype(np.float32)
    distance = np.full(len(grid), reach)
    distance[near] = np.min(wall, axis=1)
    return distance


def _ellipsoid_distance(rng: np.random.Generator, grid: Array, centre: Array, radius: float) -> Array:
    """Distance to an ellipsoid near a ball of ``radius``, in the ball's own measure."""
    axes = rng.uniform(0.85, 1.15, 3)
    return np.asarray(np.linalg.norm((grid - centre) / axes, axis=1) - radius)


def _lumen(distance: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(distance / WALL, -30.0, 30.0))))


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
        along = _unit(branch.points[index] - branch.points[index - 1])
        return point, _unit(np.cross(along, rng.normal(size=3))), radius
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
        distance = _ellipsoid_distance(rng, scene.grid, centre, radius)
        mask = (distance < 0.0) & (scene.vessels > 0.0)
        ball = int(np.count_nonzero(distance < 0.0))
        apart = not (taken & (distance < 2.0)).any()
        # Sunk too deep into vessels, or cut by the border, it would be nothing a reader could see.
        if apart and np.count_nonzero(mask) >= max(6, 0.5 * ball):
            scene.signal = np.maximum(scene.signal, _lumen(distance) * rng.uniform(*phantom.sac_signal))
            return mask
    return None


def _add_confounders(rng: np.random.Generator, scene: _Scene, phantom: VesselPhantom) -> None:
    for _ in range(int(rng.poisson(phantom.confounders))):  # infundibula: a small funnel where a branch leaves
        place = _on_wall(rng, scene, margin=2.0, at_fork=0.5)
        if place is not None:
            point, outwards, vessel_radius = place
            radius = float(rng.uniform(0.7, 1.0))
            centre = point + outwards * (vessel_radius + 0.2 * radius)
            scene.signal = np.maximum(scene.signal, _lumen(_ellipsoid_distance(rng, scene.grid, centre, radius)))
    for _ in range(int(rng.poisson(phantom.confounders))):  # bright spots: fat, calcium, a vessel seen end on
        centre = rng.uniform(0.1, 0.9, 3) * scene.extent
        distance = _ellipsoid_distance(rng, scene.grid, centre, float(rng.uniform(1.0, 2.0)))
        if float(np.min(scene.vessels[distance < 0.5], initial=np.inf)) > 1.5:  # touching no vessel
            scene.signal = np.maximum(scene.signal, _lumen(distance) * rng.uniform(0.7, 1.0))


def _bias(rng: np.random.Generator, scene: _Scene) -> Array:
    """Coil sensitivity: a smooth factor about 1."""
    place = scene.grid / scene.extent - 0.5
    return np.asarray(np.exp(place @ rng.normal(0.0, 0.25, 3) + rng.normal(0.0, 0.25) * np.sum(place**2, axis=1)))


def _affine(rng: np.random.Generator, phantom: VesselPhantom) -> Array:
    """An oblique block somewhere in the head; half of the cases have their first two axes flipped (LPS)."""
    tilt, turn = rng.uniform(-0.2, 0.2, 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    flip = np.diag([-1.0, -1.0, 1.0]) if rng.random() < 0.5 else np.eye(3)
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ flip @ np.diag(phantom.spacing)
    affine[:3, 3] = rng.uniform(-60.0, 60.0, 3)
    return affine


def make_case(rng: np.random.Generator, phantom: VesselPhantom, *, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` aneurysms (0: a normal case), all of it from ``rng``.

    Raises
    ------
    ValueError
        If the block is too small to hold an aneurysm on a vessel.
    """
    spacing = np.asarray(phantom.spacing)
    extent = spacing * np.asarray(phantom.shape)
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in phantom.shape), indexing="ij"), axis=-1)
    grid = (indices.reshape(-1, 3) + 0.5) * spacing
    for _ in range(50):
        branches = _trees(rng, phantom, extent)
        for branch in branches:
            if rng.random() < 0.15 * phantom.confounders:
                _kink(rng, branch)
        loops = [_loop(rng, extent) for _ in range(int(rng.poisson(0.4 * phantom.confounders)))]
        vessels = np.min([_tube_distance(grid, branch) for branch in branches + loops], axis=0)
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
    bright = np.maximum(_lumen(vessels) * rng.uniform(0.85, 1.0), scene.signal)
    clean = _bias(rng, scene) * (tissue + (1.0 - tissue) * bright)
    noisy = np.hypot(clean + rng.normal(0.0, phantom.noise, len(grid)), rng.normal(0.0, phantom.noise, len(grid)))
    gain = float(rng.uniform(250.0, 450.0))
    return PhantomCase(
        image=np.clip(gain * noisy, 0, 32767).astype(np.int16).reshape(phantom.shape),
        label=label.astype(np.uint8).reshape(phantom.shape),
        affine=_affine(rng, phantom),
    )
