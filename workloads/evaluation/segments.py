"""What is done with a network of lung segments: the whole lung's map, right or wrong at points, Dice where the truth is dense."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Case
from workloads.data.nifti import Volume, write_like
from workloads.data.points import Points
from workloads.evaluation.overview import NAME as OVERVIEW
from workloads.evaluation.overview import Panel, middle_slice, write_overview
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.overlap import dice_of_labels

__all__ = ["Partitioned", "accuracy_interval", "draw", "summarise", "write_artifacts"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partitioned:
    """What a network says of one case.

    Attributes
    ----------
    prediction : ndarray of uint8, shape (x, y, z)
        Segment of each voxel of lung, 0 elsewhere.
    at_points : ndarray of int, shape (n,)
        Segment that is found at each point.
    dense : bool
        Whether the label map names the segment of every voxel of lung.
    """

    case: Case
    points: Points
    prediction: NDArray[np.uint8]
    at_points: NDArray[np.int64]
    dense: bool

    @property
    def right(self) -> int:
        """Points at which the segment is the true one."""
        return int(np.count_nonzero(self.at_points == self.points.segments))


def _dice(item: Partitioned, segments: Mapping[str, int]) -> float:
    """Mean over the segments that the truth has."""
    there = {name: number for name, number in segments.items() if (item.case.label.array == number).any()}
    return float(np.mean(list(dice_of_labels(item.prediction, item.case.label.array, there).values())))


def summarise(items: Sequence[Partitioned], segments: Mapping[str, int]) -> dict[str, float]:
    """The metrics, all finite.

    ``accuracy``: share of all points at which the true segment is found; ``accuracy_worst``, that of the points of the
    segment with the lowest share. ``dice``, where truth is dense: mean over segments, and then over such cases.
    """
    right = np.concatenate([item.at_points == item.points.segments for item in items])
    of = np.concatenate([item.points.segments for item in items])
    metrics = {
        "accuracy": float(right.mean()),
        "accuracy_worst": min(float(right[of == number].mean()) for number in np.unique(of)),
    }
    values = [_dice(item, segments) for item in items if item.dense]
    return metrics | ({"dice": float(np.mean(values))} if values else {})


def accuracy_interval(items: Sequence[Partitioned]) -> Interval:
    """95 % bootstrap interval of ``accuracy`` over cases: points of one patient stand or fall together."""
    right = np.array([item.right for item in items])
    of = np.array([len(item.points.segments) for item in items])
    return bootstrap(lambda counts: float(counts @ right / (counts @ of)), len(items))


def write_artifacts(
    folder: Path, items: Sequence[Partitioned], segments: Mapping[str, int], *, predictions: bool
) -> None:
    """Write ``cases.csv``, ``points.csv`` and, if asked for, ``predictions/CASE.nii.gz`` on the grid of the image's file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {number: name for name, number in segments.items()}
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "points", "right", "dice"])
        for item in items:
            value = f"{_dice(item, segments):.6g}" if item.dense else ""
            rows.writerow([item.case.name, len(item.points.segments), item.right, value])
    with (folder / "points.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "x_mm", "y_mm", "z_mm", "segment", "found"])
        for item in items:
            for place, true, found in zip(item.points.positions, item.points.segments, item.at_points, strict=True):
                rows.writerow(
                    [item.case.name, *(f"{value:.3f}" for value in place), names[int(true)], names[int(found)]]
                )
    if predictions:
        for item in items:
            image = item.case.image
            volume = Volume(array=item.prediction, affine=image.affine, path=image.path)
            write_like(folder / "predictions" / f"{item.case.name}.nii.gz", volume)


def draw(folder: Path, items: Sequence[Partitioned], segments: Mapping[str, int]) -> None:
    """Draw the case with the fewest points right, the median and the best, from the front: ``overview.png`` in ``folder``."""
    shares = [item.right / len(item.points.segments) for item in items]
    ordered = np.argsort(shares, kind="stable").tolist()
    names = {number: name.replace("_", " ") for name, number in segments.items()}
    rows = []
    for rank in sorted({0, len(ordered) // 2, len(ordered) - 1}):
        item = items[ordered[rank]]
        # Looked at from the front, slices lie along y.
        volumes = (item.case.image.array, item.case.label.array, item.prediction)
        image, truth, found = (np.swapaxes(each, 1, 2) for each in volumes)
        image, true, marked = (middle_slice(each, truth) for each in (image, truth, found))
        share = f"{item.right} of {len(item.points.segments)} points right"
        row = [Panel(title=item.case.name, image=image)]
        if item.dense:
            row.append(Panel(title="truth", image=image, labels=true, names=names))
        rows.append([*row, Panel(title=share, image=image, labels=marked, names=names)])
    write_overview(folder / OVERVIEW, rows, title="Worst, median and best case, from the front")
