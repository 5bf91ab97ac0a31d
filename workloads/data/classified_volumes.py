"""Volumes of CT with their segmentation, each case of a class.

::

    dataset.json, imagesTr, labelsTr     as of all volumes (`workloads.data.dataset`), of one channel, CT; a case's
                                         label map is its segmentation: by hand, or by a network
    classes.json                         {CASE: CLASS, ...}
    splits.json, patients.json           as of all data sets (`workloads.data.splits`)
    masks/CASE.nii.gz                    where the thing is, for explanations; not read by a training
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.dataset import Dataset, load_case, open_dataset, read_json
from workloads.data.labelled import Labelled
from workloads.data.nifti import write_volume
from workloads.errors import WorkloadError

__all__ = ["CLASSES", "LABEL_STEP", "open_volumes", "read_classified", "write_volumes"]

CLASSES = "classes.json"
LABEL_STEP = 0.5  # of the second channel, from one label to the next
MOST_LABELS = 256

Size = tuple[int, int, int]
Row = tuple[str, str, str, NDArray[Any], NDArray[Any], NDArray[np.float64]]


def open_volumes(root: Path, *, size: Size | None = None) -> Labelled:
    """Find the volumes of a folder and their classes.

    Parameters
    ----------
    size : tuple of int, optional
        As of `read_classified`.

    Raises
    ------
    WorkloadError
        If the data set cannot be used (`open_dataset`), or ``classes.json`` is missing, names a case that is not
        there, leaves one out, or has fewer than two classes.
    """
    dataset = open_dataset(root, channels=("CT",))
    path = root / CLASSES
    content = read_json(path, hint='it says of each case its class, as in {"CASE": "high", ...}')
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise WorkloadError(f"{path}: is not of the form" + ' {"CASE": "CLASS", ...}')
    for case in content:
        if case not in dataset.files:
            raise WorkloadError(f"{path}: names {case!r}, which {root / 'imagesTr'} does not have")
    missing = sorted(set(dataset.files) - set(content))
    if missing:
        raise WorkloadError(f"{path}: does not name {missing[0]!r}", hint="each case of imagesTr needs a class")
    classes = tuple(sorted(set(content.values())))
    if len(classes) < 2:
        raise WorkloadError(f"{path}: has {len(classes)} class", hint="two at least")
    return Labelled(
        dataset=dataset,
        classes=classes,
        class_of={case: classes.index(name) for case, name in content.items()},
        read=functools.partial(_read, dataset, size),
    )


def read_classified(image: Path, segmentation: Path, *, size: Size | None = None) -> NDArray[np.float32]:
    """A volume and its segmentation as a network sees them.

    Parameters
    ----------
    image, segmentation : Path
        CT in Hounsfield units, and its label map on the same grid.
    size : tuple of int, optional
        Voxels to bring both to, cut to the box of what is segmented; whole and as they are unless given.

    Returns
    -------
    ndarray of float32, shape (x, y, z, 2)
        In RAS: Hounsfield units, -1000 to 400 as -1 to 1.8; the label's number times `LABEL_STEP`.

    Raises
    ------
    WorkloadError
        If a file cannot be used, they do not fit together, or nothing is segmented in what is to be cut.
    """
    name = image.name
    labels = {str(number): number for number in range(MOST_LABELS)}
    return _read(
        Dataset(root=image.parent, channels=("CT",), labels=labels, files={name: (image, segmentation)}), size, name
    )


def _read(dataset: Dataset, size: Size | None, name: str) -> NDArray[np.float32]:
    case = load_case(dataset, name)
    image, label = case.image.array, case.label.array
    if size is not None:
        if not label.any():
            raise WorkloadError(
                f"{dataset.files[name][-1]}: nothing is segmented",
                hint="--size cuts a volume to its segmented lungs: segment them, or leave the case out",
            )
        box = ndimage.find_objects((label > 0).astype(np.uint8))[0]
        image, label = _resized(image[box], size, order=1), _resized(label[box], size, order=0)
    return np.stack([image, LABEL_STEP * label], axis=-1).astype(np.float32)


def _resized(array: NDArray[Any], size: Size, *, order: int) -> NDArray[Any]:
    places = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, array.shape, strict=True)]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    return np.asarray(ndimage.map_coordinates(array, grid, order=order, mode="nearest"))


def write_volumes(folder: Path, cases: Sequence[Row], *, labels: Mapping[str, int], marked: int) -> None:
    """Write a data set with ``splits.json`` and ``masks``.

    Parameters
    ----------
    cases : sequence
        Of each case the split's part, its name, its class, its image, its label map and their affine.
    marked : int
        The label that ``masks`` show.

    Raises
    ------
    WorkloadError
        If the folder already holds a data set.
    """
    if (folder / "dataset.json").exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    split: dict[str, list[str]] = {}
    for part, name, _, image, label, affine in cases:
        write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", image, affine)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", label, affine)
        write_volume(folder / "masks" / f"{name}.nii.gz", (label == marked).astype(np.uint8), affine)
        split.setdefault(part, []).append(name)
    description = {
        "description": "synthetic: made by a program",
        "channel_names": {"0": "CT"},
        "labels": dict(labels),
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    contents = {"splits.json": split, CLASSES: {case[1]: case[2] for case in cases}, "dataset.json": description}
    for file, content in contents.items():
        (folder / file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
