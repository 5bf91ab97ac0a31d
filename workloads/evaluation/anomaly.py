"""What is done with an autoencoder of normal cases: error maps, a score for each case, a threshold, and the evidence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.dataset import Case
from workloads.data.nifti import Volume, write_like
from workloads.evaluation.overview import NAME, Panel, middle_slice, write_overview
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.classification import roc_auc, sensitivity_specificity
from workloads.training.inference import predict_volume

__all__ = ["Examined", "auc_interval", "draw_overview", "examine", "summarise", "write_artifacts", "youden_threshold"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examined:
    """What an autoencoder makes of one case.

    Attributes
    ----------
    drawn : ndarray of float32, shape (x, y, z)
        The image as the network draws it.
    errors : ndarray of float32, shape (x, y, z)
        Mean squared error of the patch about each voxel.
    peak : tuple of int
        Where it is largest.
    score : float
        How large it is there.
    """

    case: Case
    drawn: NDArray[np.float32]
    errors: NDArray[np.float32]
    peak: tuple[int, int, int]
    score: float

    @property
    def abnormal(self) -> bool:
        """Whether the case has anything labelled."""
        return bool(self.case.lesion.any())

    @property
    def located(self) -> bool:
        """Whether the largest error is in a lesion."""
        return bool(self.case.lesion[self.peak])


def examine(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    cases: Sequence[Case],
    *,
    side: float,
    unit: float,
    window: int,
    multiple: int,
) -> list[Examined]:
    """Draw cases and measure how far they are from it; a case's score is the largest error of all its patches.

    Parameters
    ----------
    side : float
        Of the patches over which squared errors are averaged, mm: one about each voxel.
    unit : float
        What 1 in an image is: errors are in squared units.
    window, multiple : int
        As in `predict_volume`.
    """
    found = []
    for case in cases:
        image = case.image.array
        drawn = np.nan_to_num(predict_volume(network, image, window=window, multiple=multiple)[..., 0])
        squares = (unit * (drawn.astype(np.float64) - image)) ** 2
        sides = [max(1, 2 * round((side / step - 1.0) / 2.0) + 1) for step in case.image.spacing]
        errors = ndimage.uniform_filter(squares, sides, mode="nearest")
        peak = np.unravel_index(int(np.argmax(errors)), errors.shape)
        found.append(
            Examined(
                case=case,
                drawn=drawn,
                errors=errors.astype(np.float32),
                peak=(int(peak[0]), int(peak[1]), int(peak[2])),
                score=float(errors.max()),
            )
        )
    return found


def _scores(examined: Sequence[Examined]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return np.array([item.abnormal for item in examined]), np.array([item.score for item in examined])


def youden_threshold(examined: Sequence[Examined]) -> float:
    """The score from which cases are called abnormal: sensitivity plus specificity is largest (Youden 1950).

    It lies half way between two scores; of equal choices the highest.
    """
    truth, scores = _scores(examined)
    values = np.unique(scores)
    thresholds = [values[0], *((values[1:] + values[:-1]) / 2.0)]
    sums = [sum(sensitivity_specificity(truth, scores, float(each))) for each in thresholds]
    return float(thresholds[len(sums) - 1 - int(np.argmax(sums[::-1]))])


def summarise(examined: Sequence[Examined], threshold: float) -> dict[str, float]:
    """The metrics of cases of which some are normal and some are not.

    ``auc`` of the scores; ``sensitivity`` and ``specificity`` at ``threshold``; ``located``, the share of abnormal cases whose
    largest error is in a lesion; ``explained``, the share of the normal cases' variance that is drawn: 0, or less, of a
    network that draws one grey, which any score may still part from what is abnormal.
    """
    normal = [item for item in examined if not item.abnormal]
    missed = sum(float(np.sum((item.drawn - item.case.image.array) ** 2)) for item in normal)
    there = sum(float(np.sum((item.case.image.array - item.case.image.array.mean()) ** 2)) for item in normal)
    truth, scores = _scores(examined)
    sensitivity, specificity = sensitivity_specificity(truth, scores, threshold)
    return {
        "auc": roc_auc(truth, scores),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "located": float(np.mean([item.located for item in examined if item.abnormal])),
        "explained": 1.0 - missed / max(there, 1e-12),
    }


def auc_interval(examined: Sequence[Examined]) -> Interval:
    """95 % bootstrap interval over cases of ``auc``."""
    truth, scores = _scores(examined)
    return bootstrap(
        lambda counts: roc_auc(np.repeat(truth, counts), np.repeat(scores, counts)), len(examined), resamples=500
    )


def write_artifacts(folder: Path, examined: Sequence[Examined], threshold: float, *, predictions: bool) -> None:
    """Write ``cases.csv`` and, if asked for, ``errors/CASE.nii.gz``: the error map on the grid of the case's image file."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "abnormal", "score", "called_abnormal", "located", "x_mm", "y_mm", "z_mm"])
        for item in examined:
            answers = [int(item.abnormal), repr(item.score), int(item.score >= threshold), int(item.located)]
            rows.writerow([item.case.name, *answers, *(f"{each:.3f}" for each in item.case.image.position(item.peak))])
    if predictions:
        for item in examined:
            image = item.case.image
            volume = Volume(array=item.errors, affine=image.affine, path=image.path)
            write_like(folder / "errors" / f"{item.case.name}.nii.gz", volume)


def draw_overview(folder: Path, examined: Sequence[Examined], labels: Mapping[str, int], threshold: float) -> None:
    """Draw ``overview.png``: of a case with each label and of a normal one the image, the truth, what is drawn, the errors."""
    names = {number: name for name, number in labels.items() if number}
    chosen = [next((item for item in examined if (item.case.label.array == number).any()), None) for number in names]
    chosen.append(next((item for item in examined if not item.abnormal), None))
    rows = [_row(item, names, threshold) for item in chosen if item is not None]
    write_overview(folder / NAME, rows, title=f"A case is called abnormal from an error of {threshold:.3g}")


def _row(item: Examined, names: Mapping[int, str], threshold: float) -> list[Panel]:
    image, label = item.case.image.array, item.case.label.array
    where = label.copy()
    if not where.any():
        where[item.peak] = 1
    seen = middle_slice(image, where)
    return [
        Panel(title=item.case.name, image=seen, limits=(-1.0, 1.0)),
        Panel(title="truth", image=seen, labels=middle_slice(label, where), names=names, limits=(-1.0, 1.0)),
        Panel(title="as drawn", image=middle_slice(item.drawn, where), limits=(-1.0, 1.0)),
        Panel(
            title=f"error (score {item.score:.3g})",
            image=middle_slice(item.errors, where),
            heat=True,
            limits=(0.0, 2.0 * max(threshold, 1e-12)),
        ),
    ]
