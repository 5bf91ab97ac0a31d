"""Features of patches everywhere in an organ, and what is said of patches brought back to its voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Organ", "features", "make_organ", "small_patches", "vote"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Organ:
    """An image as far as an organ goes.

    Attributes
    ----------
    image : ndarray, shape (x, y, z)
        Outside of the organ each voxel has the value of the nearest one in it: what is outside must not be seen.
    mask : ndarray of bool, shape (x, y, z)
        The organ.
    centres : ndarray of int, shape (patches, 3)
        Voxels of the organ that are centres of patches.
    """

    image: Array
    mask: NDArray[np.bool_]
    centres: NDArray[np.int64]


def make_organ(image: NDArray[np.floating], mask: NDArray[np.bool_], *, stride: int) -> Organ:
    """Fill the outside, and lay centres on every ``stride``-th voxel of the organ along x and y, in every slice."""
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    grid = np.zeros_like(mask)
    grid[::stride, ::stride] = True
    centres = np.argwhere(mask & grid)
    # A small organ may lie between the grid's lines.
    return Organ(
        image=image.astype(np.float64)[tuple(nearest)],
        mask=mask,
        centres=centres if len(centres) else np.argwhere(mask)[:1],
    )


def small_patches(organ: Organ, side: int) -> Array:
    """The square of ``side`` voxels in its slice about each voxel of the organ, shape (voxels, side * side)."""
    before = side // 2
    padded = np.pad(organ.image, [(before, side - 1 - before)] * 2 + [(0, 0)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return np.asarray(windows[organ.mask].reshape(-1, side * side))


def features(
    organ: Organ, encode: Callable[[Array], Array], *, atom: int, patch: int, slices: int, density: float
) -> Array:
    """Features of the patch about each centre, shape (patches, codes + 1).

    Parameters
    ----------
    encode : callable
        Codes of small patches of ``atom`` voxels a side: their mean over the organ's voxels in the patch is taken.
    patch, slices : int
        The patch: voxels along x and y, and along z.
    density : float
        Weight of the last feature, the patch's mean value.
    """
    size = (patch, patch, slices)
    inside = ndimage.uniform_filter(organ.mask.astype(np.float64), size, mode="constant")
    where = tuple(organ.centres.T)

    def pooled(values: Array) -> Array:
        field = np.zeros(organ.mask.shape)
        field[organ.mask] = values
        return np.asarray(ndimage.uniform_filter(field, size, mode="constant")[where] / inside[where])

    codes = encode(small_patches(organ, atom))
    columns = [pooled(codes[:, index]) for index in range(codes.shape[1])]
    return np.stack([*columns, density * pooled(organ.image[organ.mask])], axis=1)


def vote(
    organ: Organ, clusters: NDArray[np.integer], *, groups: int, patch: int, slices: int, smoothing: tuple[float, ...]
) -> NDArray[np.uint8]:
    """The cluster of each voxel, from 1, by the votes of the patches that it is in; 0 outside of the organ.

    Parameters
    ----------
    clusters : ndarray of int, shape (patches,)
        The cluster of each patch, from 0.
    smoothing : tuple of float
        Sigma of a Gaussian over the votes, voxels along each axis.
    """
    votes = np.zeros((groups, *organ.mask.shape))
    votes[(clusters, *organ.centres.T)] = 1.0
    for index in range(groups):
        spread = ndimage.uniform_filter(votes[index], (patch, patch, slices), mode="constant")
        votes[index] = ndimage.gaussian_filter(spread, smoothing, mode="constant")
    winner = np.argmax(votes, axis=0).astype(np.uint8) + np.uint8(1)
    # Beyond the reach of all patches the nearest voxel that has votes decides.
    silent = votes.sum(axis=0) < 1e-9
    nearest = ndimage.distance_transform_edt(silent, return_distances=False, return_indices=True)
    return np.where(organ.mask, winner[tuple(nearest)], np.uint8(0))
