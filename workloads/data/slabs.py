"""Thick slices from thin ones, and thin ones guessed back by cubic interpolation: pairs for super-resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Dataset, read_json
from workloads.data.nifti import Volume, read_volume
from workloads.errors import WorkloadError

__all__ = ["ThickCase", "cubic_weights", "load_thick", "open_images", "thicken"]

LEAST = 11  # thin slices: as many as the window of SSIM has


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThickCase:
    """A case in thick and in thin slices, along z.

    Attributes
    ----------
    thin : Volume
        The truth, clipped to the range of values that is judged, from -1 to 1; a multiple of ``factor`` slices.
    thick : Volume
        Each slice the mean of ``factor`` thin ones.
    cubic : ndarray of float32, shape of ``thin``
        ``thick`` interpolated to thin slices.
    """

    name: str
    thin: Volume
    thick: Volume
    cubic: NDArray[np.float32]


def open_images(root: Path) -> Dataset:
    """A data set of images alone, of one channel: ``dataset.json`` and ``imagesTr/CASE_0000.nii.gz``.

    Raises
    ------
    WorkloadError
        If the folder is none, ``dataset.json`` is missing or wrong, or there is no image.
    """
    if not root.is_dir():
        raise WorkloadError(f"{root}: no such folder", hint="make phantoms with: python -m workloads phantom")
    path = root / "dataset.json"
    description = read_json(path, hint="a data folder needs dataset.json and imagesTr/")
    channels = description.get("channel_names") if isinstance(description, dict) else None
    if not isinstance(channels, dict) or len(channels) != 1:
        raise WorkloadError(
            f'{path}: "channel_names" must name one channel', hint='as in {"channel_names": {"0": "CT"}}'
        )
    suffix = "_0000" + str(description.get("file_ending", ".nii.gz"))
    images = sorted(each for each in (root / "imagesTr").glob(f"*{suffix}") if not each.name.startswith("."))
    if not images:
        raise WorkloadError(f"{root / 'imagesTr'}: holds no image that ends in {suffix}")
    files: dict[str, tuple[Path, ...]] = {each.name.removesuffix(suffix): (each,) for each in images}
    return Dataset(root=root, channels=tuple(map(str, channels.values())), labels={}, files=files)


def thicken(volume: Volume, factor: int) -> Volume:
    """Mean of each ``factor`` slices along z; the first thick slice lies in the middle of the thin ones that it is made of."""
    x, y, slices = volume.array.shape
    whole = volume.array[:, :, : slices // factor * factor]
    array = whole.reshape(x, y, -1, factor).mean(axis=3, dtype=np.float64).astype(np.float32)
    to_thin = np.diag([1.0, 1.0, float(factor), 1.0])
    to_thin[2, 3] = (factor - 1) / 2.0
    return Volume(array=array, affine=volume.affine @ to_thin, path=volume.path)


def cubic_weights(count: int, factor: int) -> NDArray[np.float32]:
    """Weights of ``count`` thick slices in each thin one, shape (count * factor, count): cubic convolution, a = -1/2 (Keys 1981).

    Along one axis bicubic interpolation is this. Beyond the first and the last slice they are repeated.
    """
    place = (np.arange(count * factor) + 0.5) / factor - 0.5
    weights = np.zeros((count * factor, count), dtype=np.float64)
    first = np.floor(place).astype(int) - 1
    for offset in range(4):
        far = np.abs(place - (first + offset))
        near = (1.5 * far - 2.5) * far**2 + 1.0
        tail = ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0
        column = np.clip(first + offset, 0, count - 1)
        np.add.at(
            weights, (np.arange(count * factor), column), np.where(far <= 1.0, near, np.where(far < 2.0, tail, 0.0))
        )
    return weights.astype(np.float32)


def load_thick(dataset: Dataset, name: str, *, factor: int, values: tuple[float, float]) -> ThickCase:
    """Read a case and make its thick slices.

    Parameters
    ----------
    values : tuple of float
        The range that is judged: what lies outside is clipped, and the ends become -1 and 1.

    Raises
    ------
    WorkloadError
        If the file cannot be used, or has too few slices.
    """
    volume = read_volume(dataset.files[name][0])
    slices = volume.array.shape[2] // factor * factor
    if slices < max(LEAST, 2 * factor):
        raise WorkloadError(
            f"{volume.path}: has {volume.array.shape[2]} slices along z, {max(LEAST, 2 * factor)} are needed",
            hint="leave it out, or choose a smaller --factor",
        )
    if min(volume.array.shape[:2]) < LEAST:
        raise WorkloadError(f"{volume.path}: slices of {volume.array.shape[:2]} are smaller than {LEAST} a side")
    low, high = values
    scaled = (np.clip(volume.array[:, :, :slices].astype(np.float32), low, high) - low) * (2.0 / (high - low)) - 1.0
    thin = Volume(array=scaled.astype(np.float32), affine=volume.affine, path=volume.path)
    thick = thicken(thin, factor)
    cubic = np.einsum("xyk,zk->xyz", thick.array, cubic_weights(slices // factor, factor))
    return ThickCase(name=name, thin=thin, thick=thick, cubic=np.clip(cubic, -1.0, 1.0).astype(np.float32))
