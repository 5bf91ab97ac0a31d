"""Patches to train on, drawn so that rare lesions are seen often enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.dataset import Case
from workloads.errors import WorkloadError

__all__ = ["PatchSource", "Shape", "check_patch", "class_source", "draw_patches", "patch_source", "soft_target"]

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatchSource:
    """A training case as patches are cut from it.

    Attributes
    ----------
    image : ndarray of float32, shape (x, y, z), of several channels (x, y, z, channels)
    target : ndarray of float32, shape (x, y, z, channels)
    lesion_voxels : ndarray of int, shape (n, 3)
        Where lesions are; empty in a normal case.
    """

    image: NDArray[np.float32]
    target: NDArray[np.float32]
    lesion_voxels: NDArray[np.int64]


def soft_target(lesion: NDArray[np.bool_], spacing: tuple[float, float, float], sigma: float) -> NDArray[np.float32]:
    """1 in the lesion, falling outside as a Gaussian of the distance to it (``sigma`` in mm; 0: a hard mask)."""
    if sigma <= 0 or not lesion.any():
        return lesion.astype(np.float32)
    distance = ndimage.distance_transform_edt(~lesion, sampling=spacing)
    return np.asarray(np.exp(-0.5 * (distance / sigma) ** 2), dtype=np.float32)


def patch_source(case: Case, *, sigma: float) -> PatchSource:
    """Prepare a case for `draw_patches`; ``sigma`` as in `soft_target`."""
    return PatchSource(
        image=case.image.array,
        target=soft_target(case.lesion, case.image.spacing, sigma)[..., None],
        lesion_voxels=np.argwhere(case.lesion),
    )


def class_source(case: Case, *, classes: int, sought: int) -> PatchSource:
    """Prepare a case for `draw_patches`: a target channel for each class; ``sought`` is the one to be oversampled."""
    labels = case.label.array
    return PatchSource(
        image=case.image.array,
        target=(labels[..., None] == np.arange(classes)).astype(np.float32),
        lesion_voxels=np.argwhere(labels == sought),
    )


def check_patch(cases: Sequence[Case], shape: Shape) -> None:
    """Make sure that a patch fits into every case.

    Raises
    ------
    WorkloadError
        If a case is smaller, named with its file.
    """
    for case in cases:
        if any(side > length for side, length in zip(shape, case.image.array.shape[:3], strict=True)):
            raise WorkloadError(
                f"{case.image.path}: a patch of {shape} voxels is larger than the volume, {case.image.array.shape[:3]}",
                hint="choose a smaller --patch, or a finer --spacing",
            )


def draw_patches(
    rng: np.random.Generator, sources: Sequence[PatchSource], *, shape: Shape, count: int, lesion_fraction: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw ``count`` patches, shape (count, x, y, z, channels), and their targets, (count, x, y, z, classes).

    A share of ``lesion_fraction`` of them, on average, contains a voxel of a lesion, somewhere in the
    patch; the others lie anywhere in any case. Every lesion-bearing case is drawn equally often.
    """
    with_lesion = [index for index, source in enumerate(sources) if len(source.lesion_voxels)]
    volumes = [source.image if source.image.ndim == 4 else source.image[..., None] for source in sources]
    images = np.empty((count, *shape, volumes[0].shape[-1]), dtype=np.float32)
    targets = np.empty((count, *shape, sources[0].target.shape[-1]), dtype=np.float32)
    size = np.asarray(shape)
    for row in range(count):
        on_lesion = bool(with_lesion) and rng.random() < lesion_fraction
        chosen = int(rng.choice(with_lesion)) if on_lesion else int(rng.integers(len(sources)))
        source, volume = sources[chosen], volumes[chosen]
        room = np.asarray(volume.shape[:3]) - size
        if on_lesion:
            voxel = source.lesion_voxels[int(rng.integers(len(source.lesion_voxels)))]
            corner = np.clip(voxel - rng.integers(0, size), 0, room)
        else:
            corner = rng.integers(0, room + 1)
        cut = tuple(slice(int(start), int(start) + length) for start, length in zip(corner, shape, strict=True))
        images[row] = volume[cut]
        targets[row] = source.target[cut]
    return images, targets
