"""Pictures in colour, one folder for each class.

::

    classes/CLASS/NAME.png    PNG, JPEG, TIFF or BMP of 8 bits; NAME is the case
    splits.json               as of all data sets (`workloads.data.splits`)
    patients.json             {NAME: PATIENT, ...}, where pictures share a patient, an operation, a specimen
    masks/NAME.png            where the thing is, for explanations; not read by a training
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Dataset
from workloads.data.labelled import Labelled
from workloads.errors import WorkloadError

__all__ = ["ENDINGS", "FOLDER", "open_pictures", "read_picture", "write_picture"]

FOLDER = "classes"
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # Pillow's modes of 8 bits a channel at most


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise WorkloadError(
            "Pillow is not installed", hint="pip install 'survey-orchestrator[workloads-cpu]'"
        ) from None
    return Image


def open_pictures(root: Path, *, size: tuple[int, int] | None = None) -> Labelled:
    """Find the pictures of a folder and their classes.

    Parameters
    ----------
    size : tuple of int, optional
        As of `read_picture`.

    Raises
    ------
    WorkloadError
        If the folder is none, there are fewer than two classes, one has no picture, or two pictures have one name.
    """
    top = root / FOLDER
    if not top.is_dir():
        what = "no such folder" if not root.is_dir() else f"has no folder {FOLDER}/"
        raise WorkloadError(f"{root}: {what}", hint=f"pictures lie in {top}/CLASS/NAME.png, one folder for each class")
    folders = sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise WorkloadError(f"{top}: holds {len(folders)} folders", hint="two classes at least, a folder for each")
    files: dict[str, tuple[Path, ...]] = {}
    class_of: dict[str, int] = {}
    for number, folder in enumerate(folders):
        pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
        pictures = [path for path in pictures if not path.name.startswith(".")]
        if not pictures:
            raise WorkloadError(
                f"{folder}: holds no picture", hint=f"a class needs pictures that end in {', '.join(ENDINGS)}"
            )
        for path in pictures:
            if path.stem in files:
                raise WorkloadError(
                    f"{path}: {files[path.stem][0]} has the same name", hint="a split file could not tell them apart"
                )
            files[path.stem], class_of[path.stem] = (path,), number
    names = tuple(folder.name for folder in folders)
    labels = {name: number for number, name in enumerate(names)}
    return Labelled(
        dataset=Dataset(root=root, channels=("RGB",), labels=labels, files=files),
        classes=names,
        class_of=class_of,
        read=functools.partial(_read_case, files, size),
    )


def _read_case(files: dict[str, tuple[Path, ...]], size: tuple[int, int] | None, name: str) -> NDArray[np.float32]:
    return read_picture(files[name][0], size=size)


def read_picture(path: Path, *, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """A picture as a network sees it: red, green, blue from -1 to 1, upright as its camera says.

    Parameters
    ----------
    size : tuple of int, optional
        Rows and columns to bring it to, whatever its aspect; as it is unless given.

    Returns
    -------
    ndarray of float32, shape (rows, columns, 3)

    Raises
    ------
    WorkloadError
        If it is missing, no picture, or of more than 8 bits a channel.
    """
    image_module = _pillow()
    from PIL import ImageOps

    try:
        with image_module.open(path) as file:
            if file.mode not in BITS:
                raise WorkloadError(f"{path}: has more than 8 bits a channel", hint="convert it to 8 bits")
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's formats raise where a file is damaged
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkloadError(
            f"{path}: is no picture that can be read ({reason})", hint="remove it, or copy it again if it is damaged"
        ) from None
    if size is not None and picture.size != size[::-1]:
        picture = picture.resize(size[::-1], image_module.Resampling.BILINEAR)  # averages where it makes smaller
    return np.asarray(np.asarray(picture, dtype=np.float32) / 127.5 - 1.0, dtype=np.float32)


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture, (rows, columns, 3) or (rows, columns) of uint8, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _pillow().fromarray(picture).save(path)
