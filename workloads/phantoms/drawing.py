"""Pictures in colour from shapes: distances in pixels, colours and coverages from 0 to 1.

A grid is the places of a picture's pixels, shape (rows, columns, 2), row first; a field over it has shape (rows, columns).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.pictures import FOLDER, write_picture
from workloads.errors import WorkloadError

__all__ = [
    "Array",
    "add_arguments",
    "as_picture",
    "capsule_distance",
    "covered",
    "painted",
    "pixel_grid",
    "texture",
    "write_pictures",
]

Array = NDArray[np.float64]


def pixel_grid(size: int) -> Array:
    """Places of the pixels of a square picture."""
    return np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1).astype(np.float64)


def capsule_distance(grid: Array, start: Array, end: Array, radii: tuple[float, float]) -> Array:
    """Signed distance to a bar with round ends, whose radius goes from the first of ``radii`` to the other."""
    axis = end - start
    along = np.clip(((grid - start) @ axis) / max(float(axis @ axis), 1e-9), 0.0, 1.0)
    nearest = start + along[..., None] * axis
    return np.asarray(np.linalg.norm(grid - nearest, axis=-1) - (radii[0] + along * (radii[1] - radii[0])))


def covered(distance: Array) -> Array:
    """Share of each pixel that lies inside of a shape."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def painted(picture: Array, coverage: Array, colour: Array) -> Array:
    """``picture`` with ``colour``, one or one for each pixel, where ``coverage`` says."""
    return np.asarray(picture + coverage[..., None] * (colour - picture))


def texture(rng: np.random.Generator, size: int, pixels: float) -> Array:
    """A smooth random field of mean 0 and deviation 1 that changes over so many pixels."""
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), pixels, mode="reflect")
    return np.asarray((field - field.mean()) / field.std())


def as_picture(rng: np.random.Generator, colours: Array, *, blur: float, noise: float) -> NDArray[np.uint8]:
    """What a camera makes of ``colours``: a focus, in pixels, and a sensor with noise."""
    seen = ndimage.gaussian_filter(colours, (blur, blur, 0.0), mode="nearest") + rng.normal(0.0, noise, colours.shape)
    return np.asarray((255.0 * np.clip(seen, 0.0, 1.0)).round(), dtype=np.uint8)


def add_arguments(
    parser: argparse.ArgumentParser, *, train: int, each: str, validation: int, test: int, size: int
) -> None:
    """Say what the command line of phantoms that are pictures may have; ``each`` says what ``--train`` counts."""
    parser.add_argument("--train", type=int, default=train, help=f"training pictures of {each} (default: %(default)s)")
    parser.add_argument(
        "--validation", type=int, default=validation, help="validation pictures of each class (default: %(default)s)"
    )
    parser.add_argument("--test", type=int, default=test, help="test pictures of each class (default: %(default)s)")
    parser.add_argument("--size", type=int, default=size, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--confounders", type=float, default=1.0, help="mean number of each kind")


def write_pictures(
    folder: Path,
    counts: Mapping[str, Mapping[str, int]],
    make: Callable[[np.random.Generator, str], tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    *,
    name: str,
    seed: int,
) -> None:
    """Write a data set of pictures, as `workloads.data.pictures` reads it, with ``splits.json`` and ``masks``.

    Parameters
    ----------
    counts : mapping
        Pictures of each class in each part of the split.
    make : callable
        Makes a picture and the mask of what its class is known by from a random generator and its class. Each
        picture has a generator of its own, from ``seed`` and the picture's number.

    Raises
    ------
    WorkloadError
        If the folder already holds a data set, or a class has no picture.
    """
    if (folder / FOLDER).exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    if min(min(each.values()) for part, each in counts.items() if part != "test") < 1:
        raise WorkloadError("each class needs a picture to train and one to validate on")
    split: dict[str, list[str]] = {part: [] for part in counts}
    number = 0
    for part, classes in counts.items():
        for kind, count in classes.items():
            for _ in range(count):
                case = f"{name}_{number:04d}"
                picture, mask = make(np.random.default_rng([seed, number]), kind)
                write_picture(folder / FOLDER / kind / f"{case}.png", picture)
                write_picture(folder / "masks" / f"{case}.png", np.where(mask, 255, 0).astype(np.uint8))
                split[part].append(case)
                number += 1
    text = json.dumps({part: names for part, names in split.items() if names}, indent=1)
    (folder / "splits.json").write_text(text + "\n", encoding="utf-8")
