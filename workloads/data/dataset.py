"""A data set in the nnU-Net v2 layout: ``dataset.json``, ``imagesTr``, ``labelsTr``.

::

    dataset.json                 channel_names, labels, file_ending
    imagesTr/CASE_0000.nii.gz    channel 0 of CASE
    labelsTr/CASE.nii.gz         its label map

The Medical Segmentation Decathlon's is understood too: ``modality`` instead of ``channel_names``,
and images without the channel's number, ``imagesTr/CASE.nii.gz``.

Everything that can be known to be wrong is found before a training starts. Which cases train and which
validate is a split file's to say (`workloads.data.splits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.nifti import Volume, read_volume, resample, same_geometry
from workloads.errors import WorkloadError

__all__ = ["Case", "Dataset", "checksum", "load_case", "open_dataset", "read_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a data set's folder holds.

    Attributes
    ----------
    channel : str
        What the image is of; ``CT``, as in nnU-Net, means Hounsfield units.
    labels : mapping
        Name of each label to its number in the label maps.
    files : mapping
        Case to the paths of its image and its label map.
    """

    root: Path
    channel: str
    labels: Mapping[str, int]
    files: Mapping[str, tuple[Path, Path]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One case, ready for work: its image normalised, both on the working grid."""

    name: str
    image: Volume
    label: Volume

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Mask of everything that is not background."""
        return np.asarray(self.label.array > 0)


def read_json(path: Path, hint: str) -> Any:
    """What a JSON file holds; ``hint`` says what to do if there is no such file.

    Raises
    ------
    WorkloadError
        If it is missing, cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise WorkloadError(f"{path}:{error.lineno}: is not JSON ({error.msg})") from None


def open_dataset(root: Path) -> Dataset:
    """Read ``dataset.json`` and find each case's files.

    Raises
    ------
    WorkloadError
        If the folder is none, ``dataset.json`` is missing or wrong, there are several channels, there
        is no image, or an image has no label map.
    """
    if not root.is_dir():
        raise WorkloadError(f"{root}: no such folder", hint="make phantoms with: python -m workloads phantom")
    path = root / "dataset.json"
    description = read_json(path, hint="a data folder needs dataset.json, imagesTr/ and labelsTr/")
    if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
        raise WorkloadError(f'{path}: "labels" is missing', hint='as in {"labels": {"background": 0, "aneurysm": 1}}')
    labels: dict[str, int] = {}
    for name, number in description["labels"].items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise WorkloadError(f'{path}: label "{name}" is {number!r}, not a whole number')
        labels[str(name)] = number
    channels = description.get("channel_names", description.get("modality"))
    if not isinstance(channels, dict):
        raise WorkloadError(f'{path}: "channel_names" is missing', hint='as in {"channel_names": {"0": "MRA"}}')
    if len(channels) != 1:
        raise WorkloadError(f"{path}: {len(channels)} channels, but this task takes one")
    ending = str(description.get("file_ending", ".nii.gz"))
    files: dict[str, tuple[Path, Path]] = {}
    # A case may itself be called "vessels_0000": which layout it is, dataset.json alone tells.
    suffix = ("_0000" if "channel_names" in description else "") + ending
    for image in sorted((root / "imagesTr").glob(f"*{suffix}")):
        if image.name.startswith("."):
            continue
        case = image.name.removesuffix(suffix)
        label = root / "labelsTr" / f"{case}{ending}"
        if not label.is_file():
            raise WorkloadError(f"{image}: has no label map", hint=f"{label} is expected")
        files[case] = (image, label)
    if not files:
        raise WorkloadError(f"{root / 'imagesTr'}: holds no image that ends in {suffix}")
    return Dataset(root=root, channel=str(next(iter(channels.values()))), labels=labels, files=files)


def _normalise(array: NDArray[Any], channel: str) -> NDArray[np.float32]:
    """Of CT, Hounsfield units from air to bone, -1 to 1.8; else zero median, unit distance from the 5th to the 95th percentile.

    Other scanners have no common unit. Of CT the median is air in one case and tissue in the next.
    """
    values = array.astype(np.float32)
    if channel.upper() == "CT":
        return np.asarray((np.clip(values, -1000.0, 400.0) + 500.0) / 500.0, dtype=np.float32)
    low, middle, high, top = np.percentile(values, [5.0, 50.0, 95.0, 99.95])
    return np.asarray((np.minimum(values, top) - middle) / max(float(high - low), 1e-6), dtype=np.float32)


def load_case(dataset: Dataset, name: str, *, spacing: tuple[float, float, float] | None = None) -> Case:
    """Read a case, check it, resample it to ``spacing`` mm where one is asked for, and normalise its image.

    Raises
    ------
    WorkloadError
        If a file cannot be used, image and label map differ in shape or place, or the label map has a
        number that ``dataset.json`` does not list.
    """
    image_path, label_path = dataset.files[name]
    image, label = read_volume(image_path), read_volume(label_path)
    if not same_geometry(image, label):
        what = "shape" if image.array.shape != label.array.shape else "affine"
        raise WorkloadError(
            f"{label_path}: its {what} is not that of {image_path}",
            hint=f"shapes {label.array.shape} and {image.array.shape}, first voxels at "
            f"{_place(label)} and {_place(image)} mm",
        )
    extra = sorted(set(np.unique(label.array).tolist()) - set(dataset.labels.values()))
    if extra:
        listed = sorted(dataset.labels.values())
        raise WorkloadError(f"{label_path}: holds label {extra[0]:g}, but dataset.json lists {listed}")
    if spacing is not None:
        image, label = resample(image, spacing, nearest=False), resample(label, spacing, nearest=True)
    return Case(
        name=name,
        image=Volume(array=_normalise(image.array, dataset.channel), affine=image.affine, path=image.path),
        label=Volume(array=label.array.astype(np.uint8), affine=label.affine, path=label.path),
    )


def _place(volume: Volume) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in volume.affine[:3, 3]) + ")"


def checksum(dataset: Dataset, names: Iterable[str]) -> str:
    """SHA-256 over the files of ``names``, in the order of their names: which data a result stands on."""
    digest = hashlib.sha256()
    for name in sorted(names):
        for path in dataset.files[name]:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
