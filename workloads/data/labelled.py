"""Data sets of which each case has a class, whatever a case is: a picture, a volume.

Which cases train and which validate is a split file's to say, as of all data sets (`workloads.data.splits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Dataset
from workloads.data.splits import Split
from workloads.errors import WorkloadError

__all__ = ["Labelled", "Samples", "check_classes", "load_samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A data set of which each case has a class.

    Attributes
    ----------
    dataset : Dataset
        Folder and files.
    classes : tuple of str
        Names in alphabetical order; a class's number is its place in it.
    class_of : mapping
        Case to the number of its class.
    read : callable
        A case's name to the array that a network sees, shape (x, y[, z], channels).
    """

    dataset: Dataset
    classes: tuple[str, ...]
    class_of: Mapping[str, int]
    read: Callable[[str], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Cases in memory.

    Attributes
    ----------
    images : ndarray of float32, shape (n, x, y[, z], channels)
    classes : ndarray of int, shape (n,)
    """

    names: tuple[str, ...]
    images: NDArray[np.float32]
    classes: NDArray[np.int64]


def check_classes(data: Labelled, split: Split, parts: Iterable[str] = ("train", "validation")) -> None:
    """Make sure that each class is there where it is learnt and where it is measured.

    Raises
    ------
    WorkloadError
        If one of ``parts`` has no case of some class.
    """
    for part in parts:
        found = {data.class_of[name] for name in getattr(split, part)}
        for number, name in enumerate(data.classes):
            if number not in found:
                raise WorkloadError(
                    f'no case of the split\'s "{part}" is of class "{name}"',
                    hint="what has no sample can be neither learnt nor measured: split anew, or take the class out",
                )


def load_samples(data: Labelled, names: tuple[str, ...]) -> Samples:
    """Read cases, all of one size.

    Raises
    ------
    WorkloadError
        If a file cannot be used, or two cases differ in size.
    """
    images: list[NDArray[np.float32]] = []
    for name in names:
        image = data.read(name)
        if images and image.shape != images[0].shape:
            one, other = (" x ".join(map(str, each.shape[:-1])) for each in (image, images[0]))
            raise WorkloadError(
                f"{data.dataset.files[name][0]}: is {one}, but {data.dataset.files[names[0]][0]} is {other}",
                hint="a classifier takes one size: bring all to it with --size",
            )
        images.append(image)
    classes = np.array([data.class_of[name] for name in names], dtype=np.int64)
    return Samples(names=names, images=np.stack(images), classes=classes)
