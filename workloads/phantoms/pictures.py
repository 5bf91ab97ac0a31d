"""Pictures of shapes and patterns on clutter, in colour: what an image classifier is tried on where no photographs are at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "make_picture", "make_pictures"]

CLASSES = ("disc", "ring", "square", "triangle", "cross", "stripes", "checks", "dots")


def make_picture(rng: np.random.Generator, kind: str, *, size: int = 32, noise: float = 0.06) -> NDArray[np.uint8]:
    """One picture of ``kind``, at a place, angle, size and colour of its own, before a gradient with two stray bars.

    Parameters
    ----------
    kind : str
        One of `CLASSES`.
    size : int
        Pixels a side.
    noise : float
        Standard deviation, of the range of intensities.

    Returns
    -------
    ndarray, shape (size, size, 3)

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    ground, colour = rng.uniform(0.1, 0.6, 3), rng.uniform(0.2, 0.9, 3)
    # Shape and ground are told apart by their contrast, not by their colours.
    colour = ground + np.sign(colour - ground) * np.maximum(np.abs(colour - ground), 0.4)
    slope = rng.uniform(-0.3, 0.3, 2)
    picture = ground + (slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5))[..., None]
    for _ in range(2):
        bar = np.abs(_turned(rng, rows, columns, rng.uniform(0.1, 0.9, 2))[0]) < 0.02
        picture = np.where(bar[..., None], rng.uniform(0.1, 0.9, 3), picture)
    radius = rng.uniform(0.25, 0.38)
    u, v = _turned(rng, rows, columns, rng.uniform(0.4, 0.6, 2))
    mask = _mask(kind, u / radius, v / radius)
    picture = np.where(mask[..., None], colour, picture) + rng.normal(0.0, noise, (size, size, 3))
    return np.asarray(np.clip(picture * 255.0, 0, 255), dtype=np.uint8)


def make_pictures(
    rng: np.random.Generator, count: int, *, size: int = 32, noise: float = 0.06
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``count`` pictures and the numbers of their classes, as many of each class as can be, in random order."""
    numbers = rng.permutation(np.arange(count) % len(CLASSES))
    return np.stack([make_picture(rng, CLASSES[number], size=size, noise=noise) for number in numbers]), numbers


def _turned(
    rng: np.random.Generator, rows: NDArray[np.float64], columns: NDArray[np.float64], centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates about ``centre`` along axes of a random direction."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    y, x = rows - centre[0], columns - centre[1]
    return np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y


def _mask(kind: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where the shape is, in units of its radius."""
    radius = np.hypot(u, v)
    within = np.maximum(np.abs(u), np.abs(v)) < 0.95
    third = 2.0 * np.pi / 3.0
    masks = {
        "disc": radius < 1.0,
        "ring": (radius < 1.1) & (radius > 0.6),
        "square": np.maximum(np.abs(u), np.abs(v)) < 0.85,
        "triangle": np.max([u * np.cos(third * k) + v * np.sin(third * k) for k in range(3)], axis=0) < 0.6,
        "cross": (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 1.1),
        "stripes": within & (np.sin(u * 3.0 * np.pi) > 0),
        "checks": within & (np.sin(u * 2.2 * np.pi) * np.sin(v * 2.2 * np.pi) > 0),
        "dots": within & (np.cos(u * 2.6 * np.pi) + np.cos(v * 2.6 * np.pi) > 0.9),
    }
    if kind not in masks:
        raise ValueError(f"no picture is called {kind!r}: there is {', '.join(CLASSES)}")
    return np.asarray(masks[kind])
