"""Geometric augmentation: patches shifted, scaled and bent, in two dimensions or three."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["deform"]

Batch = NDArray[np.float32]
SHIFT, SCALE, BEND = 0.1, 0.15, 0.06  # at strength 1: of the side, of the logarithm, of the side
KNOTS = 4  # control points along each axis, between which the displacement is smooth


def deform(rng: np.random.Generator, images: Batch, targets: Batch, strength: float) -> tuple[Batch, Batch]:
    """Shift, scale and elastically deform patches; ``strength`` 0 changes nothing, 1 is strong.

    Parameters
    ----------
    images, targets : ndarray, shape (n, x, y[, z], channels)
        Both move alike. Images are interpolated linearly; a target takes its nearest neighbour's classes, so that
        no new ones arise. What comes in from outside of the patch repeats its border.
    """
    if strength <= 0:
        return images, targets
    shape = images.shape[1:-1]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"))
    sides = np.asarray(shape, dtype=np.float64).reshape(-1, *(1,) * len(shape))
    middle = (sides - 1.0) / 2.0
    moved, moved_targets = np.empty_like(images), np.empty_like(targets)
    for index in range(len(images)):
        shift = rng.uniform(-SHIFT, SHIFT, sides.shape) * strength * sides
        scale = np.exp(rng.normal(0.0, SCALE * strength))
        places = middle + (grid - middle) * scale + shift + _bend(rng, shape, strength)
        for channel in range(images.shape[-1]):
            moved[index, ..., channel] = ndimage.map_coordinates(
                images[index, ..., channel], places, order=1, mode="nearest"
            )
        # One look-up for all classes.
        nearest = np.clip(np.rint(places), 0, sides - 1).astype(np.intp)
        moved_targets[index] = targets[index][tuple(nearest)]
    return moved, moved_targets


def _bend(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> NDArray[np.float64]:
    """A smooth random displacement in voxels, shape (dimensions, *shape)."""
    fields = []
    for side in shape:
        field = rng.normal(0.0, BEND * strength * side, (KNOTS,) * len(shape))
        for length in shape:  # each turn takes the first axis away and puts the longer one last
            field = np.tensordot(field, _splines(length), axes=(0, 1))
        fields.append(field)
    return np.stack(fields)


@functools.cache
def _splines(length: int) -> NDArray[np.float64]:
    """Cubic splines, each 1 at one knot and 0 at the others, at ``length`` places; shape (length, `KNOTS`)."""
    factors = (length / KNOTS, 1.0)
    return np.asarray(ndimage.zoom(np.eye(KNOTS), factors, order=3, mode="nearest", grid_mode=True))
