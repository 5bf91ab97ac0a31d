"""Phantoms of chest CT with a typicality and a PCR result each, and the maps that a segmenter would make of them.

The more typical the images, the more lesions, on average; positive PCR results go with typical images. A map is not
the truth blurred: the segmenter is too cautious, blurs borders, and sees small lesions where there are none.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from workloads.data.nifti import write_volume
from workloads.errors import WorkloadError
from workloads.phantoms import datasets
from workloads.phantoms.lung import LABELS, LungPhantom, make_case
from workloads.phantoms.shapes import PhantomCase

__all__ = ["add_arguments", "make_dataset"]

LESIONS = {"1": (3, 6), "2": (2, 5), "3": (0, 3), "4": (0, 1)}  # at least and at most, by typicality: 1 is typical
PCR = {"1": "PPPU", "2": "PPUN", "3": "PUNN", "4": "UNNN"}  # each as likely as it is written often
CAUTION, SLOPE = 0.55, 5.0  # of the logits
SPECKS = 4.0  # mean number of false lesions in a map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line may have."""
    phantom = LungPhantom()
    parser.add_argument("--train", type=int, default=4, help="cases in no measure but the table (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=20, help="validation cases (default: %(default)s)")
    parser.add_argument("--test", type=int, default=20, help="test cases (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=phantom.shape, metavar="N", help="voxels")


def make_dataset(options: argparse.Namespace) -> None:
    """Write to ``options.out`` a data set with ``cases.csv`` and ``probabilities``.

    Raises
    ------
    WorkloadError
        If the folder holds one already, or the options leave no room for lungs.
    """
    phantom = dataclasses.replace(LungPhantom(), shape=tuple(options.shape))
    grades: list[str] = []
    maps: list[tuple[NDArray[np.uint8], NDArray[np.float64]]] = []

    def make(rng: np.random.Generator, _lesions: int) -> PhantomCase:
        grades.append(str(1 + len(grades) % len(LESIONS)))
        low, high = LESIONS[grades[-1]]
        case = make_case(rng, phantom, int(rng.integers(low, high + 1)))
        maps.append((_seen(rng, case), case.affine))
        return case

    sizes = {"train": options.train, "validation": options.validation, "test": options.test}
    try:
        names = datasets.write_dataset(
            options.out,
            name="lungs",
            channel="CT",
            labels=LABELS,
            sizes=sizes,
            normal_fraction=0.0,
            seed=options.seed,
            make=make,
        )
    except ValueError as error:
        raise WorkloadError(str(error), hint="choose a larger --shape") from None
    rng = np.random.default_rng([options.seed, 2])
    with Path(options.out, "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows: Any = csv.writer(stream)
        rows.writerow(["case", "typicality", "pcr"])
        for name, grade, (percent, affine) in zip(names, grades, maps, strict=True):
            rows.writerow([name, grade, str(rng.choice(list(PCR[grade])))])
            write_volume(options.out / "probabilities" / f"{name}_abnormal.nii.gz", percent, affine)


def _seen(rng: np.random.Generator, case: PhantomCase) -> NDArray[np.uint8]:
    """What a segmenter sees of a case, in percent."""
    truth = (case.label == LABELS["abnormal"]).astype(float)
    lung = np.argwhere(case.label == LABELS["normal"])
    for voxel in lung[rng.integers(len(lung), size=int(rng.poisson(SPECKS)))].tolist():
        truth[tuple(slice(max(0, place - 1), place + 2) for place in voxel)] = 1.0
    blurred = ndimage.gaussian_filter(truth, 0.7)
    doubt = ndimage.gaussian_filter(rng.normal(size=truth.shape), 1.0)
    logits = 2.0 * SLOPE * (blurred - 0.5) - CAUTION * SLOPE / 2.0 + 0.8 * doubt / doubt.std()
    return np.asarray(np.round(100.0 * special.expit(logits)), dtype=np.uint8)
