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
from workloads.evaluation.overview import NAME as OVERVIEW
from workloads.evaluation.overview import Panel, middle_slice, write_overview
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.overlap import dice, false_volume
from workloads.metrics.surface import SurfaceDistances, surface_distances
from workloads.training.inference import predict_volume

__all__ = ["Refine", "Segmented", "dice_interval", "draw", "judge", "segment", "summarise", "write_artifacts"]

Refine = Callable[[NDArray[np.uint8], tuple[float, float, float]], NDArray[np.uint8]]


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
    refine: Refine | None = None,
) -> list[Segmented]:
    """Apply a network to cases; of several answers the first counts.

    ``window`` and ``multiple`` as in `predict_volume`, ``refine`` as in `judge`.
    """
    found = []
    for case in cases:
        field = predict_volume(logits, case.image.array, window=window, multiple=multiple)[..., : len(labels)]
        found.append(judge(case, special.softmax(np.nan_to_num(field), axis=-1), labels, refine=refine))
    return found


def judge(
    case: Case, probabilities: NDArray[np.floating], labels: Mapping[str, int], *, refine: Refine | None = None
) -> Segmented:
    """Each voxel's most probable label, beside the truth.

    Parameters
    ----------
    probabilities : ndarray, shape (x, y, z, labels)
    refine : callable, optional
        What is done with a prediction of a spacing in mm, before it is measured.
    """
    prediction = np.argmax(probabilities, axis=-1).astype(np.uint8)
    if refine is not None:
        prediction = refine(prediction, case.image.spacing)
    percent = (100.0 * probabilities).round().astype(np.uint8)
    masks = {name: (prediction == number, case.label.array == number) for name, number in labels.items() if number}
    return Segmented(
        case=case,
        prediction=prediction,
        percent={name: percent[..., number] for name, number in labels.items() if number},
        dice={name: dice(*pair) for name, pair in masks.items()},
        surfaces={name: surface_distances(*pair, case.image.spacing) for name, pair in masks.items()},
    )


def _bears(item: Segmented, number: int) -> bool:
    return bool((item.case.label.array == number).any())


def summarise(segmented: Sequence[Segmented], labels: Mapping[str, int], *, tolerance: float) -> dict[str, float]:
    """The metrics of a segmentation task, all finite.

    ``dice_NAME`` and ``surface_dice_NAME`` (to ``tolerance`` mm) of each label, means over the cases that have it;
    ``dice``, the mean of the former; ``hd95_NAME`` in mm where each of these cases has something marked;
    ``outside_NAME``, ml marked outside of the true region, mean over all cases; ``false_volume_NAME``, the same over
    the cases that do not have it, where there is such a case.
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
        outside = [
            false_volume(item.prediction == number, item.case.label.array == number, item.case.image.spacing) / 1000.0
            for item in segmented
        ]
        metrics[f"outside_{name}"] = float(np.mean(outside))
        without = [volume for volume, item in zip(outside, segmented, strict=True) if not _bears(item, number)]
        if without:
            metrics[f"false_volume_{name}"] = float(np.mean(without))
    metrics["dice"] = float(np.mean([value for name, value in metrics.items() if name.startswith("dice_")]))
    return metrics


def dice_interval(
    segmented: Sequence[Segmented],
    labels: Mapping[str, int],
    *,
    region: str | None = None,
    other: Sequence[Segmented] | None = None,
) -> Interval:
    """95 % bootstrap interval over cases of ``dice``, or of that of one region.

    Parameters
    ----------
    other : sequence of Segmented, optional
        What another network says of the same cases: then it is that of the paired difference, this one's Dice less
        the other's.
    """
    names = [name for name, number in labels.items() if number and region in {None, name}]
    bears = np.array([[_bears(item, labels[name]) for name in names] for item in segmented])
    values = np.where(bears, [[item.dice[name] for name in names] for item in segmented], 0.0)
    if other is not None:
        values -= np.where(bears, [[item.dice[name] for name in names] for item in other], 0.0)

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


def draw(
    folder: Path,
    segmented: Sequence[Segmented],
    labels: Mapping[str, int],
    *,
    others: Mapping[str, Sequence[Segmented]] | None = None,
) -> None:
    """Draw the worst, the median and the best case beside the truth: ``overview.png`` in ``folder``.

    A case that has no region, and so no Dice, is the worst where something is marked in it, and else the best.

    Parameters
    ----------
    others : mapping, optional
        What other networks say of the same cases, by their names, to be shown beside it.
    """

    def score(item: Segmented) -> float:
        values = [item.dice[name] for name, number in labels.items() if number and _bears(item, number)]
        return float(np.mean(values)) if values else float(not item.prediction.any())

    scores = [score(item) for item in segmented]
    ordered = np.argsort(scores, kind="stable").tolist()
    names = {number: name.replace("_", " ") for name, number in labels.items() if number}
    rows = []
    for rank in sorted({0, len(ordered) // 2, len(ordered) - 1}):
        index = ordered[rank]
        case = segmented[index].case
        truth = case.label.array
        where = truth if truth.any() else segmented[index].prediction
        image = middle_slice(case.image.array, where)
        row = [
            Panel(title=case.name, image=image),
            Panel(title="truth", image=image, labels=middle_slice(truth, where), names=names),
        ]
        answers = {name: items[index] for name, items in (others or {}).items()} | {"prediction": segmented[index]}
        for name, item in answers.items():
            measure = f"Dice {score(item):.2f}" if truth.any() else "nothing is there"
            marked = middle_slice(item.prediction, where)
            row.append(Panel(title=f"{name}, {measure}", image=image, labels=marked, names=names))
        rows.append(row)
    write_overview(folder / OVERVIEW, rows, title="Worst, median and best case")
