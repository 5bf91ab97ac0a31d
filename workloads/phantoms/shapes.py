"""Shapes from which phantoms are built, as signed distances (negative inside), and what a scanner adds to them.

A grid is the centres of a block's voxels in mm, shape (n, 3); a field over it has shape (n,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Branch",
    "PhantomCase",
    "bias_field",
    "ellipsoid_distance",
    "filled",
    "place_in_patient",
    "scan",
    "tube_distance",
    "unit",
    "vessel_trees",
    "voxel_centres",
]

Array = NDArray[np.float64]
MURRAY = 0.5 ** (1.0 / 3.0)  # daughter's radius over parent's at an even fork
WALL = 0.3  # mm over which the signal falls from inside to outside: partial volume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomCase:
    """One case.

    Attributes
    ----------
    image : ndarray of int16, shape (x, y, z), of several channels (x, y, z, channels)
    label : ndarray of uint8, shape (x, y, z)
        1 in lesions.
    affine : ndarray of float, shape (4, 4)
        Oblique, sometimes flipped, as scanners write it.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Array


@dataclass(slots=True, eq=False)
class Branch:
    """A tube about a line of points, shape (m, 3), with a radius at each; ``end_forks``: two others begin at its end."""

    points: Array
    radii: Array
    end_forks: bool = False


def voxel_centres(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Array:
    """Centres of all voxels of a block, in the order of its array."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return np.asarray((indices.reshape(-1, 3) + 0.5) * np.asarray(spacing))


def unit(vector: Array) -> Array:
    """``vector`` at length 1."""
    return np.asarray(vector / np.linalg.norm(vector))


def _walk(
    rng: np.random.Generator, start: Array, direction: Array, radius: float, length: float, bend: float
) -> Branch:
    step = 0.5
    count = max(4, int(length / step))
    points, radii = [start], [radius]
    turn = rng.normal(0.0, bend, 3)
    for index in range(1, count):
        turn = 0.8 * turn + rng.normal(0.0, 0.6 * bend, 3)  # a walk whose curvature is smooth
        direction = unit(direction + turn)
        points.append(points[-1] + step * direction)
        radii.append(radius * (1.0 - 0.25 * index / count))
    return Branch(points=np.array(points), radii=np.array(radii))


def _grow(
    rng: np.random.Generator, start: Array, direction: Array, radius: float, extent: Array, depth: int
) -> list[Branch]:
    """Grow a vessel and, ``depth`` times, the two that it forks into, after Murray's law (r0^3 = r1^3 + r2^3)."""
    length = float(rng.uniform(0.35, 0.6) * extent.max())
    branch = _walk(rng, start, direction, radius, length, bend=0.10)
    if depth == 0:
        return [branch]
    branch.end_forks = True
    forward = unit(branch.points[-1] - branch.points[-3])
    side = unit(np.cross(forward, rng.normal(size=3)))
    angle = float(rng.uniform(0.4, 0.9))
    branches = [branch]
    for sign in (1.0, -1.0):
        heading = unit(np.cos(angle) * forward + sign * np.sin(angle) * side)
        branches += _grow(rng, branch.points[-1], heading, float(branch.radii[-1]) * MURRAY, extent, depth - 1)
    return branches


def vessel_trees(rng: np.random.Generator, radii: tuple[float, float], extent: Array) -> list[Branch]:
    """One or two trees that enter the block from a side; ``radii``: smallest and largest where they enter."""
    branches: list[Branch] = []
    for _ in range(int(rng.integers(1, 3))):
        axis = int(rng.integers(3))
        start = rng.uniform(0.2, 0.8, 3) * extent
        start[axis] = 0.0
        towards = rng.uniform(0.35, 0.65, 3) * extent - start
        branches += _grow(rng, start, unit(towards), float(rng.uniform(*radii)), extent, depth=2)
    return branches


def tube_distance(grid: Array, branch: Branch) -> Array:
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


def ellipsoid_distance(rng: np.random.Generator, grid: Array, centre: Array, radius: float) -> Array:
    """Distance to an ellipsoid near a ball of ``radius``, in the ball's own measure."""
    axes = rng.uniform(0.85, 1.15, 3)
    return np.asarray(np.linalg.norm((grid - centre) / axes, axis=1) - radius)


def filled(distance: Array) -> Array:
    """1 inside of a shape, 0 outside, with a soft edge."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(distance / WALL, -30.0, 30.0))))


def bias_field(rng: np.random.Generator, grid: Array, extent: Array) -> Array:
    """Coil sensitivity: a smooth factor about 1."""
    place = grid / extent - 0.5
    return np.asarray(np.exp(place @ rng.normal(0.0, 0.25, 3) + rng.normal(0.0, 0.25) * np.sum(place**2, axis=1)))


def place_in_patient(rng: np.random.Generator, spacing: tuple[float, float, float], *, tilt: float = 0.2) -> Array:
    """Affine of a block somewhere in the patient, turned by up to ``tilt`` about two axes.

    Half of the cases have their first two axes flipped (LPS).
    """
    first, turn = rng.uniform(-tilt, tilt, 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(first), -np.sin(first)], [0, np.sin(first), np.cos(first)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    flip = np.diag([-1.0, -1.0, 1.0]) if rng.random() < 0.5 else np.eye(3)
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ flip @ np.diag(spacing)
    affine[:3, 3] = rng.uniform(-60.0, 60.0, 3)
    return affine


def scan(
    rng: np.random.Generator,
    signal: Array,
    label: NDArray[np.bool_],
    *,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    noise: float,
) -> PhantomCase:
    """What a scanner makes of ``signal``, a field over the block's grid: coils, Rician noise, gain, an oblique place.

    Parameters
    ----------
    noise : float
        Standard deviation in each of the two channels of which the magnitude is taken.
    """
    grid = voxel_centres(shape, spacing)
    clean = bias_field(rng, grid, np.asarray(spacing) * np.asarray(shape)) * signal
    noisy = np.hypot(clean + rng.normal(0.0, noise, len(grid)), rng.normal(0.0, noise, len(grid)))
    gain = float(rng.uniform(250.0, 450.0))
    return PhantomCase(
        image=np.clip(gain * noisy, 0, 32767).astype(np.int16).reshape(shape),
        label=label.astype(np.uint8).reshape(shape),
        affine=place_in_patient(rng, spacing),
    )
