"""What every segmentation task does with a trained network: mark each voxel, measure, and keep the evidence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from workloads.data.dataset import Case
from workloads.data.nifti import Volume, write_like
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.overlap import dice
from workloads.metrics.surface import SurfaceDistances, surface_distances
from workloads.training.inference import predict_volume

__all__ = ["Segmented", "dice_interval", "segment", "summarise", "write_artifacts"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """What a network says of one case.

    Attributes
    ----------
    prediction : ndarray of uint8, shape (x, y, z)
        Label numbers.
    percent : mapping
        Probability of each label but background in percent, as uint8 of the same shape.
    dice : mapping
        Dice of each label but background; NaN for one that neither the prediction nor the truth has.
    surfaces : mapping
        Distances between the surfaces of each label but background.
    """

    case: Case
    prediction: NDArray[np.uint8]
    percent: Mapping[str, NDArray[np.uint8]]
    dice: Mapping[str, float]
    surfaces: Mapping[str, SurfaceDistances]


def segment(
    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    cases: Sequence[Case],
    labels: Mapping[str, int],
    *,
    window: tuple[int, int, int],
    multiple: tuple[int, int, int],
) -> list[Segmented]:
    """Apply a network to cases; of several answers the first counts. ``window`` and ``multiple`` as in `predict_volume`."""
    found = []
    for case in cases:
        field = predict_volume(logits, case.image.array, window=window, multiple=multiple)[..., : len(labels)]
        field = np.nan_to_num(field)
        prediction = np.argmax(field, axis=-1).astype(np.uint8)
        percent = (100.0 * special.softmax(field, axis=-1)).round().astype(np.uint8)
        masks = {name: (prediction == number, case.label.array == number) for name, number in labels.items() if number}
        found.append(
            Segmented(
                case=case,
                prediction=prediction,
                percent={name: percent[..., number] for name, number in labels.items() if number},
                dice={name: dice(*pair) for name, pair in masks.items()},
                surfaces={name: surface_distances(*pair, case.image.spacing) for name, pair in masks.items()},
            )
        )
    return found


def _bears(item: Segmented, number: int) -> bool:
    return bool((item.case.label.array == number).any())


def summarise(segmented: Sequence[Segmented], labels: Mapping[str, int], *, tolerance: float) -> dict[str, float]:
    """The metrics of a segmentation task, all finite.

    ``dice_NAME`` and ``surface_dice_NAME`` (to ``tolerance`` mm) of each label, means over the cases that have it;
    ``dice``, the mean of the former; ``hd95_NAME`` in mm where each of these cases has something marked;
    ``false_volume_NAME``, ml marked in the cases that do not have it, a mean, where there is such a case.
    """
    metrics: dict[str, float] = {}
    for name, number in labels.items():
        if not number:
            continue
        with_it = [item for item in segmented if _bears(item, number)]
        metrics[f"dice_{name}"] = float(np.mean([item.dice[name] for item in with_it]))
        metrics[f"surface_dice_{name}"] = float(np.mean([item.surfaces[name].dice(tolerance) for item in with_it]))
        far = [item.surfaces[name].hausdorff(95) for item in with_it]
        if np.isfinite(far).all():
            metrics[f"hd95_{name}"] = float(np.mean(far))
        without = [
            np.count_nonzero(item.prediction == number) * float(np.prod(item.case.image.spacing)) / 1000.0
            for item in segmented
            if not _bears(item, number)
        ]
        if without:
            metrics[f"false_volume_{name}"] = float(np.mean(without))
    metrics["dice"] = float(np.mean([value for name, value in metrics.items() if name.startswith("dice_")]))
    return metrics


def dice_interval(segmented: Sequence[Segmented], labels: Mapping[str, int], *, region: str | None = None) -> Interval:
    """95 % bootstrap interval over cases of ``dice``, or of that of one region."""
    names = [name for name, number in labels.items() if number and region in {None, name}]
    bears = np.array([[_bears(item, labels[name]) for name in names] for item in segmented])
    values = np.where(bears, [[item.dice[name] for name in names] for item in segmented], 0.0)

    def statistic(counts: NDArray[np.int64]) -> float:
        cases = counts @ bears
        return float(np.mean((counts @ values) / cases)) if cases.all() else float("nan")

    return bootstrap(statistic, len(segmented))


def write_artifacts(
    folder: Path,
    segmented: Sequence[Segmented],
    labels: Mapping[str, int],
    *,
    tolerance: float,
    predictions: bool,
) -> None:
    """Write ``cases.csv`` and, if asked for, ``predictions`` and ``probabilities``, on the grid of the image's file.

    ``predictions/CASE.nii.gz`` is a label map, ``probabilities/CASE_LABEL.nii.gz`` one label's probability in percent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "label", "volume_ml", "marked_ml", "dice", "surface_dice", "hd95_mm", "average_mm"])
        for item in segmented:
            voxel = float(np.prod(item.case.image.spacing)) / 1000.0
            for name, surfaces in item.surfaces.items():
                measures = [
                    np.count_nonzero(item.case.label.array == labels[name]) * voxel,
                    np.count_nonzero(item.prediction == labels[name]) * voxel,
                    item.dice[name],
                    surfaces.dice(tolerance),
                    surfaces.hausdorff(95),
                    surfaces.average,
                ]
                # What does not exist is left empty; an infinite distance is said.
                cells = ["" if np.isnan(value) else f"{value:.6g}" for value in measures]
                rows.writerow([item.case.name, name, *cells])
    if predictions:
        for item in segmented:
            name, image = item.case.name, item.case.image
            arrays = {folder / "predictions" / f"{name}.nii.gz": item.prediction}
            arrays |= {
                folder / "probabilities" / f"{name}_{label}.nii.gz": each for label, each in item.percent.items()
            }
            for path, array in arrays.items():
                write_like(path, Volume(array=array, affine=image.affine, path=image.path))
