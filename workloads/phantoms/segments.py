"""Phantoms of chest CT whose lungs are partitioned into the 18 bronchopulmonary segments, with points that name some.

A bronchial tree with its artery enters each lung at the hilum and forks into lobes and segments, at places that vary
between patients. A segment is what lies nearest to its own branch (a Voronoi partition): so its artery is in its
middle, faint veins run along its borders, and where two lobes meet there is a fissure. Lengths mm, Hounsfield units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from workloads.phantoms.lung import AIR, BONE, LUNG, SOFT, ellipsoid, lay_down, lungs, texture
from workloads.phantoms.shapes import Array, PhantomCase, voxel_centres

__all__ = ["LABELS", "SegmentsPhantom", "draw_points", "make_case"]

# Lobe, and place in the box of its lung, -1 to 1: from the middle of the body outwards, from front to back, from below.
RIGHT = {
    "S1": ("upper", (0.0, 0.0, 0.75)),
    "S2": ("upper", (0.3, 0.6, 0.45)),
    "S3": ("upper", (0.2, -0.6, 0.4)),
    "S4": ("middle", (0.5, -0.55, -0.15)),
    "S5": ("middle", (-0.4, -0.65, -0.25)),
    "S6": ("lower", (0.1, 0.65, 0.05)),
    "S7": ("lower", (-0.6, 0.1, -0.5)),
    "S8": ("lower", (0.5, -0.1, -0.6)),
    "S9": ("lower", (0.65, 0.35, -0.55)),
    "S10": ("lower", (-0.1, 0.65, -0.6)),
}
LEFT = {
    "S1+2": ("upper", (0.0, 0.3, 0.7)),
    "S3": ("upper", (0.1, -0.55, 0.5)),
    "S4": ("upper", (0.2, -0.55, 0.0)),
    "S5": ("upper", (-0.1, -0.6, -0.4)),
    "S6": ("lower", (0.1, 0.6, 0.1)),
    "S8": ("lower", (0.3, -0.1, -0.6)),
    "S9": ("lower", (0.6, 0.3, -0.55)),
    "S10": ("lower", (-0.1, 0.6, -0.6)),
}
NAMES = (*(f"right_{name}" for name in RIGHT), *(f"left_{name}" for name in LEFT))
LABELS = {"background": 0, **{name: number for number, name in enumerate(NAMES, start=1)}}
HILUM = (-0.9, 0.05, 0.05)
ARTERY, VEIN, FISSURE = -250.0, -600.0, -350.0
BORDER = 3.0  # to either side of where two segments meet, as far as veins and fissures are seen


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsPhantom:
    """What a phantom looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size.
    noise : float
        Standard deviation, HU.
    variation, single : float
        Standard deviation of the places of segments, in halves of their lung's box: of all of a lung together, from
        front to back and from below, and of each by itself.
    """

    shape: tuple[int, int, int] = (32, 26, 26)
    spacing: tuple[float, float, float] = (9.0, 9.0, 9.0)
    noise: float = 20.0
    variation: float = 0.25
    single: float = 0.06


def _branches(
    rng: np.random.Generator, low: Array, high: Array, phantom: SegmentsPhantom, *, left: bool
) -> list[Array]:
    """Points along the branch of each segment of a lung in the box from ``low`` to ``high``, from its lobe's fork on."""
    outwards = np.array([1.0 if left else -1.0, 1.0, 1.0])  # x grows to the patient's left

    def place(relative: Array) -> Array:
        return np.asarray((low + high) / 2.0 + relative * outwards * (high - low) / 2.0)

    segments = LEFT if left else RIGHT
    shift = rng.normal(0.0, phantom.variation, 3) * [0.0, 1.0, 1.0]
    tips = {name: np.array(tip) + shift + rng.normal(0.0, phantom.single, 3) for name, (_, tip) in segments.items()}
    branches = []
    for name, (lobe, _) in segments.items():
        centre = np.mean([tips[other] for other, (lobe_of, _) in segments.items() if lobe_of == lobe], axis=0)
        fork = 0.5 * (np.array(HILUM) + centre)
        ways = np.linspace(0.25, 1.1, 12)[:, None]
        branches.append(place(fork + ways * (tips[name] - fork)))
    return branches


def make_case(rng: np.random.Generator, phantom: SegmentsPhantom) -> PhantomCase:
    """Make one case, all of it from ``rng``; half of the files have their first two axes the other way round.

    Raises
    ------
    ValueError
        If the block is too small for lungs.
    """
    shape, spacing = phantom.shape, np.asarray(phantom.spacing)
    if min(shape) < 12:
        raise ValueError(f"no room for segments in a block of {shape} voxels")
    grid = voxel_centres(shape, phantom.spacing)
    extent = spacing * np.asarray(shape)
    torso, lung = lungs(rng, grid, extent)
    inside = lung < 1.0
    segment, border, artery = _partition(rng, grid, inside, extent, phantom)
    values = np.where(torso < 1.0, SOFT + 15.0 * texture(rng, shape, 1.2), AIR)
    spine = ellipsoid(grid, extent * np.array([0.5, 0.82, 0.5]), extent * np.array([0.08, 0.09, 9.0])) < 1.0
    values = np.where(spine, BONE, values)
    values = np.where(inside, np.maximum(LUNG + 25.0 * texture(rng, shape, 2.0), border), values)
    # A vessel of some mm does not fill its voxels.
    near = np.exp(-0.5 * (artery / (0.5 * spacing.max())) ** 2)
    values = np.where(inside, values + (ARTERY - LUNG) * near, values)
    seen = values.reshape(shape) + rng.normal(0.0, phantom.noise, shape)
    image = np.clip(seen, -1024, 3071).astype(np.int16)
    label = segment.astype(np.uint8).reshape(shape)
    return lay_down(rng, image, label, phantom.spacing)


def _partition(
    rng: np.random.Generator, grid: Array, inside: NDArray[np.bool_], extent: Array, phantom: SegmentsPhantom
) -> tuple[NDArray[np.int64], Array, Array]:
    """Of each voxel its segment (0 outside), what its border shows there in HU, and the distance to its artery."""
    segment = np.zeros(len(grid), dtype=np.int64)
    border, artery = np.full(len(grid), LUNG), np.full(len(grid), np.inf)
    for left in (False, True):
        own = np.flatnonzero(inside & ((grid[:, 0] > extent[0] / 2.0) == left))
        if not len(own):
            raise ValueError("no room for two lungs in the block")
        places = grid[own]
        branches = _branches(rng, places.min(axis=0), places.max(axis=0), phantom, left=left)
        distances = np.stack([cKDTree(branch).query(places)[0] for branch in branches], axis=1)
        ordered = np.argsort(distances, axis=1)
        nearest = np.take_along_axis(distances, ordered, axis=1)
        first, second = ordered[:, 0], ordered[:, 1]
        lobes = np.array(_lobes(left=left))
        gap = (nearest[:, 1] - nearest[:, 0]) / 2.0  # to the border, about
        kind = np.where(lobes[first] == lobes[second], VEIN, FISSURE)
        border[own] = np.where(gap < BORDER, kind, LUNG)
        artery[own] = nearest[:, 0]
        segment[own] = first + 1 + (len(RIGHT) if left else 0)
    return segment, border, artery


def _lobes(*, left: bool) -> list[int]:
    names = [lobe for lobe, _ in (LEFT if left else RIGHT).values()]
    return [sorted(set(names)).index(name) for name in names]


def draw_points(
    rng: np.random.Generator, case: PhantomCase, count: int
) -> list[tuple[int, tuple[float, float, float]]]:
    """Segment and place, mm RAS, of ``count`` points: any segment as often as another, anywhere in it."""
    points = []
    for number in rng.choice(np.unique(case.label[case.label > 0]), count).tolist():
        voxels = np.argwhere(case.label == number)
        voxel = voxels[int(rng.integers(len(voxels)))] + rng.uniform(-0.4, 0.4, 3)
        x, y, z = (case.affine[:3, :3] @ voxel + case.affine[:3, 3]).tolist()
        points.append((int(number), (x, y, z)))
    return points
