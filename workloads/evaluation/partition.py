"""What is done with an unsupervised partition of an organ: named by the truth, measured, and kept as evidence."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Case
from workloads.data.nifti import Volume, write_like
from workloads.evaluation.overview import NAME, Panel, middle_slice, write_overview
from workloads.metrics.overlap import dice
from workloads.metrics.partition import adjusted_rand_index, match, overlaps

__all__ = ["Partition", "name_clusters", "partition", "summarise", "write_artifacts"]

SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition:
    """What is said of one case: ``prediction`` has the numbers of labels, 0 outside of the organ."""

    case: Case
    prediction: NDArray[np.uint8]


def partition(
    cases: Sequence[Case], clusters: Sequence[NDArray[np.uint8]], names: NDArray[np.integer]
) -> list[Partition]:
    """Give the voxels of clusters (from 1; 0 is outside) the labels that ``names`` has for each."""
    numbers = np.concatenate([[0], names]).astype(np.uint8)
    return [Partition(case=case, prediction=numbers[found]) for case, found in zip(cases, clusters, strict=True)]


def _table(cases: Sequence[Case], clusters: Sequence[NDArray[np.uint8]], groups: int) -> NDArray[np.int64]:
    truth = np.concatenate([case.label.array[case.lesion] for case in cases])
    found = np.concatenate([each[case.lesion] for case, each in zip(cases, clusters, strict=True)])
    return overlaps(truth.astype(np.int64) - 1, found.astype(np.int64) - 1, classes=groups, groups=groups)


def name_clusters(
    cases: Sequence[Case], clusters: Sequence[NDArray[np.uint8]], labels: Mapping[str, int]
) -> NDArray[np.int64]:
    """The label of each cluster, matched to the truth of all ``cases`` together: `workloads.metrics.partition.match`."""
    return match(_table(cases, clusters, len(labels) - 1)) + 1


def summarise(partitions: Sequence[Partition], labels: Mapping[str, int]) -> dict[str, float]:
    """The metrics: ``ari`` over all voxels of the organ in all cases; ``dice_NAME``, means over the cases that have it; ``dice``, their mean.

    Where the truth is of one region alone and so is the partition, ``ari`` is 0: there is nothing to tell apart.
    """
    cases = [item.case for item in partitions]
    ari = adjusted_rand_index(_table(cases, [item.prediction for item in partitions], len(labels) - 1))
    metrics = {
        f"dice_{name}": float(
            np.mean(
                [
                    dice(item.prediction == number, item.case.label.array == number)
                    for item in partitions
                    if (item.case.label.array == number).any()
                ]
            )
        )
        for name, number in labels.items()
        if number
    }
    return {"ari": float(np.nan_to_num(ari)), "dice": float(np.mean(list(metrics.values()))), **metrics}


def write_artifacts(
    folder: Path,
    partitions: Sequence[Partition],
    labels: Mapping[str, int],
    *,
    beside: Sequence[Partition],
    predictions: bool,
) -> None:
    """Write ``cases.csv``, ``overview.png`` and, if asked for, ``predictions/CASE.nii.gz`` on the grid of the image's file.

    ``beside`` is the partition of the same cases, in the same order, that the overview compares it with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    regions = {name: number for name, number in labels.items() if number}
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "region", "volume_ml", "marked_ml", "dice"])
        for item in partitions:
            voxel = float(np.prod(item.case.image.spacing)) / 1000.0
            for name, number in regions.items():
                truth, marked = item.case.label.array == number, item.prediction == number
                overlap = dice(marked, truth)
                volumes = [np.count_nonzero(mask) * voxel for mask in (truth, marked)]
                cells = ["" if np.isnan(value) else f"{value:.6g}" for value in (*volumes, overlap)]
                rows.writerow([item.case.name, name, *cells])
    # Cases with the most regions first, as there is the most to see in them.
    pairs = zip(partitions, beside, strict=True)
    order = sorted(pairs, key=lambda pair: -len(np.unique(pair[0].case.label.array)))[:SHOWN]
    names = {number: name for name, number in regions.items()}
    shown = []
    for item, plain in order:
        truth = item.case.label.array
        rare = truth == max(names) if (truth == max(names)).any() else truth > 0
        image = middle_slice(item.case.image.array, rare)
        overlays = {"truth": truth, "partition": item.prediction, "k-means of voxels": plain.prediction}
        panels = [Panel(title=item.case.name, image=image, limits=(-1.0, 1.2))]
        panels += [
            Panel(title=title, image=image, labels=middle_slice(each, rare), names=names, limits=(-1.0, 1.2))
            for title, each in overlays.items()
        ]
        shown.append(panels)
    write_overview(folder / NAME, shown)
    if predictions:
        for item in partitions:
            image_of = item.case.image
            found = Volume(array=item.prediction, affine=image_of.affine, path=image_of.path)
            write_like(folder / "predictions" / f"{item.case.name}.nii.gz", found)
