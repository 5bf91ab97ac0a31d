"""Phantom data sets on disk: cases of any anatomy, written in the layout that `workloads.data.dataset` reads."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from workloads.data.nifti import write_volume
from workloads.errors import WorkloadError

__all__ = ["add_arguments", "lesion_counts", "make_dataset", "write_dataset"]


class _Phantom(Protocol):
    """What a phantom data set looks like, as far as all anatomies have it."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def noise(self) -> float: ...
    @property
    def confounders(self) -> float: ...


Phantom = TypeVar("Phantom", bound=_Phantom)


class _Case(Protocol):
    """What a generator makes: an image, its label map, and where they lie."""

    @property
    def image(self) -> NDArray[Any]: ...
    @property
    def label(self) -> NDArray[Any]: ...
    @property
    def affine(self) -> NDArray[np.float64]: ...


def lesion_counts(
    n_cases: int, normal_fraction: float, rng: np.random.Generator, *, further: float = 0.25, most: int = 2
) -> list[int]:
    """Lesions of each case: a fixed number of normal cases, in random places, the others with 1 to ``most``.

    The number of normal cases is exact, because a FROC curve changes with their fraction. ``further``
    is the chance that a case with lesions has one more, and then of yet another.
    """
    normal = round(n_cases * normal_fraction)
    chances = (max(rng.random(), 1e-300) for _ in range(n_cases - normal))
    counts = [0] * normal + [min(most, 1 + int(math.log(chance) / math.log(further))) for chance in chances]
    return [counts[index] for index in rng.permutation(n_cases)]


def write_dataset(
    folder: Path,
    *,
    name: str,
    channel: str | Sequence[str],
    labels: Mapping[str, int],
    sizes: Mapping[str, int],
    normal_fraction: float,
    seed: int,
    make: Callable[[np.random.Generator, int], _Case],
    further: float = 0.25,
    most: int = 2,
    normal_parts: Sequence[str] = (),
) -> list[str]:
    """Write a data set of phantoms with its ``dataset.json`` and ``splits.json``; return the cases' names.

    Parameters
    ----------
    channel : str or sequence of str
        What the image is of; of several channels their names, along the image's last axis.
    sizes : mapping
        Cases of each split: ``{"train": 64, "validation": 64, "test": 32}``.
    make : callable
        Makes a case from a random generator and its number of lesions. Each case has a generator of
        its own, from ``seed`` and the case's number, so that case 7 of a larger set is the same case.
    further, most : float and int
        As in `lesion_counts`.
    normal_parts : sequence of str
        Splits that are to have normal cases alone, whatever ``normal_fraction`` says.

    Raises
    ------
    WorkloadError
        If the folder already holds a data set.
    """
    if (folder / "dataset.json").exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    channels = (channel,) if isinstance(channel, str) else tuple(channel)
    split: dict[str, list[str]] = {}
    number = 0
    for order, (part, size) in enumerate(sizes.items()):
        split[part] = []
        for lesions in lesion_counts(
            size,
            1.0 if part in normal_parts else normal_fraction,
            np.random.default_rng([seed, 1, order]),
            further=further,
            most=most,
        ):
            case = make(np.random.default_rng([seed, 0, number]), lesions)
            case_name = f"{name}_{number:04d}"
            volumes = case.image.reshape(*case.label.shape, len(channels))
            for index in range(len(channels)):
                write_volume(folder / "imagesTr" / f"{case_name}_{index:04d}.nii.gz", volumes[..., index], case.affine)
            write_volume(folder / "labelsTr" / f"{case_name}.nii.gz", case.label, case.affine)
            split[part].append(case_name)
            number += 1
    description = {
        "name": name,
        "description": f"synthetic: made by a program, seed {seed}",
        "channel_names": {str(index): each for index, each in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": number,
        "file_ending": ".nii.gz",
    }
    (folder / "splits.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return [case for part in split.values() for case in part]


def add_arguments(
    parser: argparse.ArgumentParser, phantom: _Phantom, *, train: int = 48, validation: int = 48, test: int = 24
) -> None:
    """Say what the command line of phantoms with lesions may have; defaults from ``phantom``."""
    parser.add_argument("--train", type=int, default=train, help="training cases (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=validation, help="validation cases (default: %(default)s)")
    parser.add_argument("--test", type=int, default=test, help="test cases (default: %(default)s)")
    parser.add_argument(
        "--normal-fraction", type=float, default=0.25, help="cases without a lesion (default: %(default)s)"
    )
    parser.add_argument("--shape", type=int, nargs=3, default=phantom.shape, metavar="N", help="voxels")
    parser.add_argument("--noise", type=float, default=phantom.noise, help="its deviation (default: %(default)s)")
    parser.add_argument("--confounders", type=float, default=phantom.confounders, help="mean number of each kind")


def make_dataset(
    options: argparse.Namespace,
    phantom: Phantom,
    make: Callable[[np.random.Generator, Phantom, int], _Case],
    *,
    name: str,
    channel: str | Sequence[str],
    labels: Mapping[str, int],
    further: float = 0.25,
    most: int = 2,
    normal_parts: Sequence[str] = (),
) -> None:
    """Write to ``options.out`` a data set of ``phantom`` as the command line changes it, as in `write_dataset`.

    Raises
    ------
    WorkloadError
        If the folder holds one already, or the options leave no room for a lesion.
    """
    if not 0.0 <= options.normal_fraction < 1.0:
        raise WorkloadError(f"--normal-fraction must be at least 0 and below 1, not {options.normal_fraction:g}")
    changes: dict[str, Any] = {
        "shape": tuple(options.shape),
        "noise": options.noise,
        "confounders": options.confounders,
    }
    changed = dataclasses.replace(phantom, **changes)  # type: ignore[type-var]  # a protocol cannot ask for a dataclass
    try:
        write_dataset(
            options.out,
            name=name,
            channel=channel,
            labels=labels,
            sizes={"train": options.train, "validation": options.validation, "test": options.test},
            normal_fraction=options.normal_fraction,
            seed=options.seed,
            make=lambda rng, lesions: make(rng, changed, lesions),
            further=further,
            most=most,
            normal_parts=normal_parts,
        )
    except ValueError as error:
        raise WorkloadError(str(error), hint="choose a larger --shape") from None
