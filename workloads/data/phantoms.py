"""Phantom data sets on disk: cases of any anatomy, written in the layout that `workloads.data.dataset` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.data.nifti import write_volume
from workloads.errors import WorkloadError

__all__ = ["lesion_counts", "write_dataset"]


class _Case(Protocol):
    """What a generator makes: an image, its label map, and where they lie."""

    @property
    def image(self) -> NDArray[Any]: ...
    @property
    def label(self) -> NDArray[Any]: ...
    @property
    def affine(self) -> NDArray[np.float64]: ...


def lesion_counts(n_cases: int, normal_fraction: float, rng: np.random.Generator) -> list[int]:
    """Lesions of each case: a fixed number of normal cases, in random places, the others with 1 or 2.

    The number of normal cases is exact, because a FROC curve changes with their fraction.
    """
    normal = round(n_cases * normal_fraction)
    counts = [0] * normal + [2 if rng.random() < 0.25 else 1 for _ in range(n_cases - normal)]
    return [counts[index] for index in rng.permutation(n_cases)]


def write_dataset(
    folder: Path,
    *,
    name: str,
    channel: str,
    lesion: str,
    sizes: Mapping[str, int],
    normal_fraction: float,
    seed: int,
    make: Callable[[np.random.Generator, int], _Case],
) -> list[str]:
    """Write a data set of phantoms with its ``dataset.json`` and ``splits.json``; return the cases' names.

    Parameters
    ----------
    sizes : mapping
        Cases of each split: ``{"train": 64, "validation": 64, "test": 32}``.
    make : callable
        Makes a case from a random generator and its number of lesions. Each case has a generator of
        its own, from ``seed`` and the case's number, so that case 7 of a larger set is the same case.

    Raises
    ------
    WorkloadError
        If the folder already holds a data set.
    """
    if (folder / "dataset.json").exists():
        raise WorkloadError(f"{folder} already holds a data set", hint="choose another folder, or remove it first")
    split: dict[str, list[str]] = {}
    number = 0
    for order, (part, size) in enumerate(sizes.items()):
        split[part] = []
        for lesions in lesion_counts(size, normal_fraction, np.random.default_rng([seed, 1, order])):
            case = make(np.random.default_rng([seed, 0, number]), lesions)
            case_name = f"{name}_{number:04d}"
            write_volume(folder / "imagesTr" / f"{case_name}_0000.nii.gz", case.image, case.affine)
            write_volume(folder / "labelsTr" / f"{case_name}.nii.gz", case.label, case.affine)
            split[part].append(case_name)
            number += 1
    description = {
        "name": name,
        "description": f"synthetic: made by a program, seed {seed}",
        "channel_names": {"0": channel},
        "labels": {"background": 0, lesion: 1},
        "numTraining": number,
        "file_ending": ".nii.gz",
    }
    (folder / "splits.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return [case for part in split.values() for case in part]
