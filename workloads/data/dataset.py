"""A data set in the nnU-Net v2 layout: ``dataset.json``, ``imagesTr``, ``labelsTr``.

::

    dataset.json                 channel_names, labels, file_ending
    imagesTr/CASE_0000.nii.gz    channel 0 of CASE; CASE_0001.nii.gz its channel 1, on the same grid
    labelsTr/CASE.nii.gz         its label map

The Medical Segmentation Decathlon's is understood too, of one channel: ``modality`` instead of
``channel_names``, and images without the channel's number, ``imagesTr/CASE.nii.gz``.

Everything that can be known to be wrong is found before a training starts. Which cases train and which
validate is a split file's to say (`workloads.data.splits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workloads.data.nifti import Volume, read_volume, resample, same_geometry
from workloads.errors import WorkloadError

__all__ = [
    "Case",
    "Dataset",
    "checksum",
    "ct_window",
    "hounsfield",
    "load_case",
    "normalise",
    "open_dataset",
    "read_json",
]


CT_MIDDLE, CT_SCALE = -500.0, 500.0  # Hounsfield units that become 0, and that become 1 more


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a data set's folder holds.

    Attributes
    ----------
    channels : tuple of str
        What each image of a case is of; ``CT``, as in nnU-Net, means Hounsfield units.
    labels : mapping
        Name of each label to its number in the label maps.
    files : mapping
        Case to the paths of its images, one for each channel, and its label map, which is last.
    """

    root: Path
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    files: Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One case, ready for work: its image normalised, both on the working grid.

    The image's array is (x, y, z) of one channel, (x, y, z, channels) of several.
    """

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


def open_dataset(root: Path, *, channels: Sequence[str] | Literal["one", "all"] = "one") -> Dataset:
    """Read ``dataset.json`` and find each case's files.

    Parameters
    ----------
    channels : sequence of str, "one" or "all"
        The channels that are needed, by name, in the order in which the network takes them: the data set may have
        others, and its own order. ``one``: the only one there is, whatever its name.

    Raises
    ------
    WorkloadError
        If the folder is none, ``dataset.json`` is missing or wrong, it has not the channels that are
        needed, there is no image, or an image has no label map or lacks a channel.
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
    ending = str(description.get("file_ending", ".nii.gz"))
    suffixes = {name: part + ending for name, part in _channels(path, description, channels).items()}
    return Dataset(root=root, channels=tuple(suffixes), labels=labels, files=_files(root, suffixes, ending))


def _channels(
    path: Path, description: Mapping[str, Any], wanted: Sequence[str] | Literal["one", "all"]
) -> dict[str, str]:
    """The channels that are wanted, each with what its files' names have after the case's."""
    known = description.get("channel_names", description.get("modality"))
    if not isinstance(known, dict) or not known:
        raise WorkloadError(f'{path}: "channel_names" is missing', hint='as in {"channel_names": {"0": "MRA"}}')
    if any(not str(number).isdigit() for number in known) or len(set(map(str, known.values()))) < len(known):
        raise WorkloadError(f'{path}: "channel_names" is {known}', hint='as in {"0": "T1", "1": "T2"}: different names')
    # A case may itself be called "vessels_0000": which layout it is, dataset.json alone tells.
    numbered = "channel_names" in description
    parts = {str(name): f"_{int(number):04d}" if numbered else "" for number, name in known.items()}
    if wanted == "all":
        return parts
    if wanted == "one":
        if len(parts) != 1:
            raise WorkloadError(f"{path}: {len(parts)} channels, but this task takes one")
        return parts
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise WorkloadError(
            f"{path}: has no channel {missing[0]!r}, but {', '.join(parts)}",
            hint=f'this task takes, in "channel_names": {", ".join(wanted)}',
        )
    if not numbered and len(wanted) > 1:
        raise WorkloadError(
            f'{path}: several channels of "modality"', hint='use "channel_names" and CASE_0000.nii.gz, ...'
        )
    return {name: parts[name] for name in wanted}


def _files(root: Path, suffixes: Mapping[str, str], ending: str) -> dict[str, tuple[Path, ...]]:
    """Of each case that has an image of any channel, all its images and its label map."""
    folder = root / "imagesTr"
    cases = {
        image.name.removesuffix(suffix)
        for suffix in suffixes.values()
        for image in folder.glob(f"*{suffix}")
        if not image.name.startswith(".")
    }
    if not cases:
        raise WorkloadError(f"{folder}: holds no image that ends in {next(iter(suffixes.values()))}")
    files: dict[str, tuple[Path, ...]] = {}
    for case in sorted(cases):
        images = {name: folder / f"{case}{suffix}" for name, suffix in suffixes.items()}
        for name, image in images.items():
            if not image.is_file():
                raise WorkloadError(
                    f"{image}: no such file: case {case!r} lacks its channel {name!r}",
                    hint="add it, or take the case out of the folder: every case needs all of them",
                )
        label = root / "labelsTr" / f"{case}{ending}"
        if not label.is_file():
            raise WorkloadError(f"{next(iter(images.values()))}: has no label map", hint=f"{label} is expected")
        files[case] = (*images.values(), label)
    return files


def normalise(array: NDArray[Any], channel: str) -> NDArray[np.float32]:
    """Of CT, Hounsfield units from air to bone, -1 to 1.8; else zero median, unit distance from the 5th to the 95th percentile.

    Other scanners have no common unit. Of CT the median is air in one case and tissue in the next.
    """
    values = array.astype(np.float32)
    if channel.upper() == "CT":
        return np.asarray((np.clip(values, -1000.0, 400.0) - CT_MIDDLE) / CT_SCALE, dtype=np.float32)
    low, middle, high, top = np.percentile(values, [5.0, 50.0, 95.0, 99.95])
    return np.asarray((np.minimum(values, top) - middle) / max(float(high - low), 1e-6), dtype=np.float32)


def hounsfield(case: Case) -> NDArray[np.float32]:
    """Hounsfield units of a case of CT, as far as `load_case` keeps them: -1000 to 400."""
    return np.asarray(case.image.array * CT_SCALE + CT_MIDDLE, dtype=np.float32)


def ct_window(case: Case, *, level: float, width: float) -> Case:
    """A case of CT as a reader would see it: ``level`` Hounsfield units become 0, half of ``width`` off it -1 and 1, and no more."""
    seen = np.clip((hounsfield(case) - level) / (width / 2.0), -1.0, 1.0).astype(np.float32)
    return replace(case, image=replace(case.image, array=seen))


def load_case(dataset: Dataset, name: str, *, spacing: tuple[float, float, float] | None = None) -> Case:
    """Read a case, check it, resample it to ``spacing`` mm where one is asked for, and normalise its image.

    Raises
    ------
    WorkloadError
        If a file cannot be used, images and label map differ in shape or place, or the label map has a
        number that ``dataset.json`` does not list.
    """
    *images, label = (read_volume(path) for path in dataset.files[name])
    for other in (*images[1:], label):
        _check_same_place(other, images[0])
    label_path = label.path
    extra = sorted(set(np.unique(label.array).tolist()) - set(dataset.labels.values()))
    if extra:
        listed = sorted(dataset.labels.values())
        raise WorkloadError(f"{label_path}: holds label {extra[0]:g}, but dataset.json lists {listed}")
    if spacing is not None:
        images = [resample(image, spacing, nearest=False) for image in images]
        label = resample(label, spacing, nearest=True)
    arrays = [normalise(image.array, channel) for image, channel in zip(images, dataset.channels, strict=True)]
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)
    return Case(
        name=name,
        image=Volume(array=array, affine=images[0].affine, path=images[0].path),
        label=Volume(array=label.array.astype(np.uint8), affine=label.affine, path=label.path),
    )


def _check_same_place(volume: Volume, image: Volume) -> None:
    if not same_geometry(volume, image):
        what = "shape" if image.array.shape != volume.array.shape else "affine"
        raise WorkloadError(
            f"{volume.path}: its {what} is not that of {image.path}",
            hint=f"shapes {volume.array.shape} and {image.array.shape}, first voxels at "
            f"{_place(volume)} and {_place(image)} mm: all files of a case lie on one grid",
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
