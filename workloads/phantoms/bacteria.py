"""Phantoms of Gram-stained smears under the microscope: bacteria of four kinds among cells and deposits of stain.

Colour tells Gram-positive (purple) from Gram-negative (pink) bacteria, shape tells rods from cocci, and arrangement
clusters from chains; the strength of the stain, the focus and the light differ from picture to picture. Named after
genera that look so; they are drawings and no bacteria.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workloads.phantoms.drawing import Array, as_picture, capsule_distance, covered, painted, pixel_grid, texture

__all__ = ["KINDS", "make_picture"]

PURPLE, PINK = np.array([0.40, 0.25, 0.58]), np.array([0.80, 0.38, 0.52])
SMEAR = np.array([0.92, 0.86, 0.88])
COCCUS = (1.7, 2.3)  # radius, pixels
Segment = tuple[Array, Array, float]


def _heading(angle: float) -> Array:
    return np.array([np.sin(angle), np.cos(angle)])


def _clusters(rng: np.random.Generator, size: int) -> list[Segment]:
    """Cocci heaped like grapes."""
    found: list[Segment] = []
    for _ in range(int(rng.integers(1, 4))):
        radius, places = rng.uniform(*COCCUS), [rng.uniform(0.15, 0.85, 2) * size]
        for _ in range(int(rng.integers(5, 12))):
            beside = places[int(rng.integers(len(places)))] + 1.8 * radius * _heading(rng.uniform(0.0, 2.0 * np.pi))
            if min(np.linalg.norm(beside - place) for place in places) > 1.5 * radius:
                places.append(beside)
        found += [(place, place, radius) for place in places]
    return found


def _chains(rng: np.random.Generator, size: int) -> list[Segment]:
    """Cocci in a row."""
    found: list[Segment] = []
    for _ in range(int(rng.integers(2, 5))):
        radius, place, angle = rng.uniform(*COCCUS), rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.0, 2.0 * np.pi)
        for _ in range(int(rng.integers(3, 9))):
            found.append((place, place, radius))
            angle += rng.normal(0.0, 0.3)
            place = place + 2.1 * radius * _heading(angle)
    return found


def _rods(rng: np.random.Generator, size: int) -> list[Segment]:
    """Rods one by one, or two end to end."""
    found: list[Segment] = []
    for _ in range(int(rng.integers(3, 11))):
        start, angle, length = rng.uniform(0.08, 0.92, 2) * size, rng.uniform(0.0, 2.0 * np.pi), rng.uniform(5.0, 9.0)
        radius = rng.uniform(1.4, 2.0)
        found.append((start, start + length * _heading(angle), radius))
        if rng.random() < 0.25:
            end = start + (length + 2.2 * radius) * _heading(angle)
            found.append((end, end + length * _heading(angle + rng.normal(0.0, 0.3)), radius))
    return found


KINDS: dict[str, tuple[Callable[[np.random.Generator, int], list[Segment]], Array]] = {
    "bacillus": (_rods, PURPLE),
    "escherichia": (_rods, PINK),
    "staphylococcus": (_clusters, PURPLE),
    "streptococcus": (_chains, PURPLE),
}


def make_picture(
    rng: np.random.Generator, kind: str, *, size: int, confounders: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One field of view, shape (size, size, 3), and the mask of its bacteria, all of it from ``rng``.

    Parameters
    ----------
    confounders : float
        Mean number of white blood cells, of cell debris and of deposits of stain each.
    """
    grid = pixel_grid(size)
    light = rng.uniform(0.88, 1.04) + rng.normal(0.0, 0.02, 3)
    picture = SMEAR + 0.02 * texture(rng, size, 6.0)[..., None] + 0.02 * texture(rng, size, 1.5)[..., None] * PINK
    for _ in range(int(rng.poisson(confounders))):  # the nuclei of white cells have lobes, and take the purple
        centre = rng.uniform(0.0, 1.0, 2) * size
        body = capsule_distance(grid, centre, centre, (rng.uniform(8.0, 11.0),) * 2) + 1.5 * texture(rng, size, 4.0)
        picture = painted(picture, 0.45 * covered(body), _stained(rng, PINK))
        for _ in range(int(rng.integers(2, 5))):
            lobe = centre + rng.normal(0.0, 3.5, 2)
            nucleus = capsule_distance(grid, lobe, lobe, (rng.uniform(2.8, 4.5),) * 2) + 0.5 * texture(rng, size, 2.0)
            picture = painted(picture, 0.8 * covered(nucleus), _stained(rng, 0.5 * (PINK + PURPLE)))
    for _ in range(int(rng.poisson(confounders))):
        debris = 4.0 * texture(rng, size, 3.0) + 4.0
        picture = painted(picture, 0.35 * covered(debris), _stained(rng, PINK))
    for _ in range(int(rng.poisson(2.0 * confounders))):
        place = rng.uniform(0.0, 1.0, 2) * size
        crystal = capsule_distance(grid, place, place + rng.normal(0.0, 1.0, 2), (rng.uniform(0.5, 1.6),) * 2)
        picture = painted(picture, covered(crystal), _stained(rng, 0.7 * PURPLE))
    segments, colour = KINDS[kind]
    stain, strength = _stained(rng, colour), rng.uniform(0.65, 0.95)
    mask = np.zeros((size, size))
    for start, end, radius in segments(rng, size):
        one = covered(capsule_distance(grid, start, end, (radius, radius)))
        # Nearer bacteria lie over others: each keeps its rim.
        picture = painted(picture, strength * one, np.clip(stain + rng.normal(0.0, 0.03, 3), 0.0, 1.0))
        rim = covered(np.abs(capsule_distance(grid, start, end, (radius, radius))) - 0.2)
        picture = painted(picture, 0.35 * rim, 0.6 * stain)
        mask = np.maximum(mask, one)
    seen = as_picture(rng, picture * light, blur=rng.uniform(0.4, 0.9), noise=0.02)
    return seen, np.asarray(mask > 0.5)


def _stained(rng: np.random.Generator, colour: Array) -> Array:
    """A stain as one laboratory and another have it."""
    return np.clip(colour * rng.uniform(0.85, 1.15) + rng.normal(0.0, 0.05, 3), 0.0, 1.0)
