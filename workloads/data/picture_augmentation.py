"""Augmentation of pictures: flips, shifts, scales and brightness, each as strong as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Augmentation", "augment_pictures"]

Pictures = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How strong: 0 leaves all as it is.

    Attributes
    ----------
    flip : float
        Chance of each of both flips.
    shift : float
        Largest shift along each axis, in sides of the picture.
    scale : float
        Standard deviation of the logarithm of the magnification.
    brightness : float
        Standard deviation of what is added to each picture, and of the logarithm of its contrast, in units of the
        half range of intensities.
    """

    flip: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0


def augment_pictures(rng: np.random.Generator, pictures: Pictures, how: Augmentation) -> Pictures:
    """Change each picture, shape (n, rows, columns, channels) and -1 to 1, by an amount of its own.

    What comes in from outside of a picture repeats its border; intensities stay in their range.
    """
    count = len(pictures)
    # All is drawn whatever is asked for, so that one kind does not change what another draws.
    flips = rng.random((count, 2)) < how.flip
    shifts = rng.uniform(-how.shift, how.shift, (count, 2))
    scales = np.exp(how.scale * rng.normal(size=count))
    added = how.brightness * rng.normal(size=(count, 1, 1, 1))
    contrast = np.exp(how.brightness * rng.normal(size=(count, 1, 1, 1)))
    changed = pictures
    if how.flip or how.shift or how.scale:
        changed = np.empty_like(pictures)
        for index, picture in enumerate(pictures):
            moved = picture
            for axis in (0, 1):
                moved = _moved(moved, axis, bool(flips[index, axis]), shifts[index, axis], scales[index])
            changed[index] = moved
    if how.brightness:
        changed = np.clip(changed * contrast + added, -1.0, 1.0).astype(np.float32)
    return changed


def _moved(picture: Pictures, axis: int, flipped: bool, shift: float, scale: float) -> Pictures:
    """``picture`` magnified about its middle and shifted along one axis, between pixels linearly."""
    side = picture.shape[axis]
    middle = (side - 1) / 2.0
    places = (np.arange(side) - middle) / scale + middle - shift * side
    places = np.clip(places[::-1] if flipped else places, 0.0, side - 1.0)
    below = np.minimum(places.astype(np.intp), max(side - 2, 0))
    above = np.minimum(below + 1, side - 1)
    weight = (places - below).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return np.asarray(np.take(picture, below, axis) * (1.0 - weight) + np.take(picture, above, axis) * weight)
