"""A set of pictures of one size in one file, ``pictures.npz``: what is small enough for memory needs no file a picture."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError

__all__ = ["FILE", "PictureSet", "read_pictures", "write_pictures"]

FILE = "pictures.npz"
_LAYOUT = (
    "it holds train_pictures and validation_pictures (n, rows, columns, channels) in uint8, train_classes and "
    "validation_classes (n) as whole numbers from 0, and classes, their names"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSet:
    """Pictures to train and to validate on.

    Attributes
    ----------
    classes : tuple of str
        Names, by number.
    training, validation : ndarray of uint8, shape (n, rows, columns, channels)
    training_classes, validation_classes : ndarray of int, shape (n,)
    """

    classes: tuple[str, ...]
    training: NDArray[np.uint8]
    training_classes: NDArray[np.int64]
    validation: NDArray[np.uint8]
    validation_classes: NDArray[np.int64]
    checksum: str

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a picture."""
        rows, columns, channels = self.training.shape[1:]
        return rows, columns, channels


def read_pictures(folder: Path) -> PictureSet:
    """Read ``pictures.npz`` of ``folder``.

    Raises
    ------
    WorkloadError
        If it cannot be read, or what it holds does not fit together.
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise WorkloadError(
            f"{path}: no such file", hint=f"python -m workloads phantom scaling-image --out {folder} makes one"
        ) from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise WorkloadError(f"{path} cannot be read: {error}", hint=_LAYOUT) from error
    missing = {
        "classes",
        *(f"{part}_{what}" for part in ("train", "validation") for what in ("pictures", "classes")),
    } - set(arrays)
    if missing:
        raise WorkloadError(f"{path} has no array {', '.join(sorted(missing))}", hint=_LAYOUT)
    names = tuple(str(name) for name in np.atleast_1d(arrays["classes"]))
    for part in ("train", "validation"):
        _check(path, part, arrays[f"{part}_pictures"], arrays[f"{part}_classes"], names)
    if arrays["train_pictures"].shape[1:] != arrays["validation_pictures"].shape[1:]:
        shapes = " and ".join(str(arrays[f"{part}_pictures"].shape[1:]) for part in ("train", "validation"))
        raise WorkloadError(f"{path}: pictures of different sizes, {shapes}", hint="bring them to one size")
    return PictureSet(
        classes=names,
        training=arrays["train_pictures"],
        training_classes=arrays["train_classes"].astype(np.int64),
        validation=arrays["validation_pictures"],
        validation_classes=arrays["validation_classes"].astype(np.int64),
        checksum=hashlib.sha256(content).hexdigest(),
    )


def write_pictures(
    folder: Path,
    classes: Sequence[str],
    training: NDArray[np.uint8],
    training_classes: NDArray[np.int64],
    validation: NDArray[np.uint8],
    validation_classes: NDArray[np.int64],
) -> None:
    """Write ``pictures.npz`` into ``folder``.

    Raises
    ------
    WorkloadError
        If there is one already.
    """
    path = folder / FILE
    if path.exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{FILE}")
    np.savez_compressed(
        partial,
        classes=np.array(classes),
        train_pictures=training,
        train_classes=training_classes,
        validation_pictures=validation,
        validation_classes=validation_classes,
    )
    partial.replace(path)


def _check(
    path: Path, part: str, pictures: NDArray[np.uint8], numbers: NDArray[np.int64], names: Sequence[str]
) -> None:
    if pictures.ndim != 4 or pictures.dtype != np.uint8:
        raise WorkloadError(f"{path}: {part}_pictures is {pictures.dtype} of shape {pictures.shape}", hint=_LAYOUT)
    if numbers.shape != pictures.shape[:1] or not np.issubdtype(numbers.dtype, np.integer):
        raise WorkloadError(
            f"{path}: {part}_classes is {numbers.dtype} of shape {numbers.shape} for {len(pictures)} pictures",
            hint=_LAYOUT,
        )
    if len(names) < 2 or (numbers.size and (numbers.min() < 0 or numbers.max() >= len(names))):
        raise WorkloadError(f"{path}: {part}_classes do not go from 0 to {len(names) - 1}", hint=_LAYOUT)
    empty = [name for number, name in enumerate(names) if not np.any(numbers == number)]
    if empty:
        raise WorkloadError(
            f'{path}: {part}_pictures has no picture of class "{empty[0]}"', hint="add some, or leave the class out"
        )
