"""Images as a network sees them, the truth that lies beside them, and maps written on their own grid.

A picture is read as by `workloads.data.pictures`, a volume as by `workloads.data.dataset`: normalised by what
``dataset.json`` of its folder says that its channels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.classified_volumes import CLASSES, open_volumes, read_classified
from workloads.data.dataset import Dataset, load_case, normalise, open_dataset
from workloads.data.nifti import Volume, read_volume, same_geometry, write_like
from workloads.data.pictures import FOLDER, read_picture
from workloads.errors import WorkloadError
from workloads.evaluation.overview import middle_slice
from workloads.explain.network import Array

__all__ = ["Image", "read_image", "read_mask", "unique_names", "write_map"]

VOLUMES = (".nii", ".nii.gz")
LEVELS = 2**16 - 1  # of a map as PNG


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One image.

    Attributes
    ----------
    name : str
        What its maps are called after.
    array : ndarray, shape (x, y, z, channels) or (rows, columns, channels)
        As a network sees it.
    volume : Volume, optional
        Its place, of a volume.
    label : ndarray of int, shape (x, y, z), optional
        Its label map, of a volume of a data set.
    class_number : int, optional
        Its class, of a picture in a folder of its class, or of a volume that ``classes.json`` names.
    classes : tuple of str
        Names of all classes, of a label map or of folders, by number; empty where they are not known.
    """

    name: str
    path: Path
    array: Array
    volume: Volume | None = None
    label: NDArray[np.uint8] | None = None
    class_number: int | None = None
    classes: tuple[str, ...] = ()

    def called(self, number: int) -> str:
        """How people call a class: by its name, where the folder of the image tells it."""
        return self.classes[number] if number < len(self.classes) else f"class {number}"

    def shown(self, values: NDArray[Any] | None = None, where: NDArray[Any] | None = None) -> NDArray[Any]:
        """What people look at: the picture, or a slice, of the image itself or of ``values`` on its grid.

        ``where`` chooses the slice, as of `workloads.evaluation.overview.middle_slice`.
        """
        if self.volume is not None:
            return middle_slice(self.array[..., 0] if values is None else values, where)
        if values is not None:
            return values
        picture = np.clip((self.array + 1.0) / 2.0, 0.0, 1.0)
        return np.asarray(picture if picture.shape[-1] == 3 else picture[..., 0])


def read_image(path: Path, *, channels: int, size: tuple[int, int] | None = None, channel: str | None = None) -> Image:
    """Read an image for a network.

    Parameters
    ----------
    channels : int
        That the network takes. Of one, a picture is its mean of red, green and blue; of two, the second one of a CT
        is its segmentation, as of `workloads.data.classified_volumes`.
    size : tuple of int, optional
        Rows and columns to which a picture is brought.
    channel : str, optional
        What a volume outside of a data set is of; ``CT`` means Hounsfield units.

    Raises
    ------
    WorkloadError
        If it is missing, damaged, or has not the channels.
    """
    ending = next((each for each in reversed(VOLUMES) if path.name.endswith(each)), None)
    if ending is None:
        picture = read_picture(path, size=size)
        if channels not in {1, 3}:
            raise WorkloadError(f"{path}: has 3 channels, but the network takes {channels}")
        if channels == 1:
            picture = picture.mean(axis=-1, keepdims=True)
        number, classes = _class_of(path)
        return Image(name=path.stem, path=path, array=picture, class_number=number, classes=classes)
    root = path.absolute().parent.parent
    if (root / "dataset.json").is_file() and channel is None:
        dataset = open_dataset(root, channels="all")
        for name, files in dataset.files.items():
            if path.absolute() in files[:-1]:
                return _of_dataset(dataset, name, path, channels)
    found = read_volume(path)
    array = normalise(found.array, channel or "")[..., None]
    return Image(name=path.name.removesuffix(ending), path=path, array=array, volume=found)


def _of_dataset(dataset: Dataset, name: str, path: Path, channels: int) -> Image:
    """A case; of a network of two channels where the data set has one, with its segmentation as the other."""
    case = load_case(dataset, name)
    array = case.image.array if case.image.array.ndim == 4 else case.image.array[..., None]
    if channels == 2 and array.shape[-1] == 1:
        array = read_classified(dataset.files[name][0], dataset.files[name][-1])
    number, classes = None, tuple(sorted(dataset.labels, key=lambda label: dataset.labels[label]))
    if (dataset.root / CLASSES).is_file():
        labelled = open_volumes(dataset.root)
        number, classes = labelled.class_of[name], labelled.classes
    return Image(
        name=name,
        path=path,
        array=array,
        volume=case.image,
        label=case.label.array,
        class_number=number,
        classes=classes,
    )


def _class_of(path: Path) -> tuple[int | None, tuple[str, ...]]:
    """The class of a picture that lies in a folder of its class, and all classes, numbered as a training numbers them."""
    folder = path.absolute().parent
    if folder.parent.name != FOLDER:
        return None, ()
    classes = sorted(each.name for each in folder.parent.iterdir() if each.is_dir() and not each.name.startswith("."))
    return classes.index(folder.name), tuple(classes)


def read_mask(path: Path, image: Image) -> NDArray[np.bool_]:
    """Where a mask is not 0 (a picture: where it is light), on the grid of ``image``.

    Raises
    ------
    WorkloadError
        If it cannot be read, or is not of the image's size and place.
    """
    if image.volume is None:
        mask = read_picture(path).mean(axis=-1) > 0.0
        if mask.shape != image.array.shape[:-1]:
            mask = read_picture(path, size=(image.array.shape[0], image.array.shape[1])).mean(axis=-1) > 0.0
        return np.asarray(mask)
    found = read_volume(path)
    if not same_geometry(found, image.volume if image.volume.array.ndim == 3 else _first(image.volume)):
        raise WorkloadError(
            f"{path}: is not of the shape and place of {image.path}", hint="a mask lies on the grid of its image"
        )
    return np.asarray(found.array != 0)


def _first(volume: Volume) -> Volume:
    return Volume(array=volume.array[..., 0], affine=volume.affine, path=volume.path)


def write_map(folder: Path, image: Image, method: str, values: NDArray[np.floating]) -> tuple[Path, list[float]]:
    """Write a map whole, by rename: ``NAME_METHOD.nii.gz`` on the grid of the image's file, or ``NAME_METHOD.png``.

    A PNG has 16 bits of grey, from the map's lowest value to its highest.

    Returns
    -------
    Path
    list of float
        Lowest and highest value: of a PNG, what black and white stand for.
    """
    limits = [float(values.min()), float(values.max())]
    array = np.asarray(values, dtype=np.float32)
    if image.volume is not None:
        path = folder / f"{image.name}_{method}.nii.gz"
        write_like(path, Volume(array=array, affine=image.volume.affine, path=image.volume.path))
        return path, limits
    from PIL import Image as Pictures

    path = folder / f"{image.name}_{method}.png"
    scaled = (array - limits[0]) / ((limits[1] - limits[0]) or 1.0) * LEVELS
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    Pictures.fromarray(scaled.round().astype(np.uint16)).save(partial)
    partial.replace(path)
    return path, limits


def unique_names(images: Sequence[Image]) -> None:
    """Make sure that no map would be written over another.

    Raises
    ------
    WorkloadError
        If two images have one name.
    """
    seen: dict[str, Path] = {}
    for image in images:
        if image.name in seen:
            raise WorkloadError(
                f"{image.path}: {seen[image.name]} is called {image.name} too",
                hint="explain them into different folders, or give one channel of each case",
            )
        seen[image.name] = image.path
