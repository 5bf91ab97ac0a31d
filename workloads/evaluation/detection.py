"""What every detection task does with a trained network: find, match, count, and keep the evidence.

The candidate list and the lesion count of every case are written out, so that any FROC metric can be
computed again under another matching rule or normalisation without training anything again.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from workloads.data.dataset import Case
from workloads.data.nifti import Volume, write_like
from workloads.evaluation.overview import NAME, Panel, middle_slice, write_overview
from workloads.metrics.candidates import MOST, Candidate, find_candidates
from workloads.metrics.froc import CaseDetections, fps_at, froc, partial_area, sensitivity_at
from workloads.metrics.matching import Matching, match
from workloads.metrics.overlap import dice, false_volume, mean_dice_of_lesion_cases
from workloads.training.inference import predict_volume

__all__ = ["Detected", "detect", "draw_overview", "summarise", "write_artifacts"]

LESION = 0.5  # probability from which a voxel is marked as lesion, for Dice and volumes
SHOWN = 5  # candidates of a case in its overview


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detected:
    """What a network says of one case.

    Attributes
    ----------
    probability : ndarray of float64, shape (x, y, z)
        Double precision: in single, confident voxels would tie at exactly 1.
    """

    case: Case
    probability: NDArray[np.float64]
    candidates: tuple[Candidate, ...]
    detections: CaseDetections


def detect(
    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    cases: Sequence[Case],
    *,
    smoothing: float,
    matching: Matching,
    window: int,
    multiple: int,
) -> list[Detected]:
    """Apply a network to cases; ``smoothing`` in mm, the rest as in `predict_volume` and `match`."""
    found = []
    for case in cases:
        field = predict_volume(logits, case.image.array, window=window, multiple=multiple)[..., 0]
        probability = special.expit(field.astype(np.float64))
        candidates = tuple(find_candidates(probability, case.image.spacing, smoothing=smoothing))
        detections = match(case.name, candidates, case.lesion, case.image.spacing, matching)
        found.append(Detected(case=case, probability=probability, candidates=candidates, detections=detections))
    return found


def summarise(detected: Sequence[Detected]) -> dict[str, float]:
    """The metrics of a detection task, all finite.

    ``pauc`` and ``pauc_10`` to 3 and 10 false positives per case; ``sensitivity_1fp``, ``_2fp``,
    ``_4fp`` and ``_8fp`` at so many; ``fps_at_half``, false positives per case at which sensitivity first
    reaches one half, and where it never does as many as a case can have; ``dice_lesion`` over cases with a lesion;
    ``false_volume_normal`` in mm3 per normal case, where there is one.
    """
    curve = froc([case.detections for case in detected])
    masks = [(case.probability >= LESION, case.case.lesion) for case in detected]
    metrics = {
        "pauc": partial_area(curve, 3.0),
        "pauc_10": partial_area(curve, 10.0),
        **{f"sensitivity_{count}fp": sensitivity_at(curve, count) for count in (1, 2, 4, 8)},
        "fps_at_half": min(fps_at(curve, 0.5), float(MOST)),
        "dice_lesion": mean_dice_of_lesion_cases(masks),
    }
    volumes = [
        false_volume(marked, lesion, case.case.image.spacing)
        for case, (marked, lesion) in zip(detected, masks, strict=True)
        if not lesion.any()
    ]
    if volumes:
        metrics["false_volume_normal"] = float(np.mean(volumes))
    return metrics


def write_artifacts(folder: Path, detected: Sequence[Detected], *, predictions: bool) -> None:
    """Write ``cases.csv``, ``candidates.csv`` and, if asked for, ``predictions/CASE.nii.gz``.

    A prediction is the probability in percent (uint8) on the grid of the case's own image file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(
            ["case", "lesions", "lesions_hit", "candidates", "highest_false_score", "dice", "false_volume_mm3"]
        )
        for item in detected:
            found, lesion = item.detections, item.case.lesion
            marked = item.probability >= LESION
            false = found.scores[found.lesions == 0]
            rows.writerow(
                [
                    found.case,
                    found.n_lesions,
                    len(set(found.lesions[found.lesions > 0].tolist())),
                    found.scores.size,
                    repr(float(false.max())) if false.size else "",
                    f"{dice(marked, lesion):.6g}" if lesion.any() else "",
                    f"{false_volume(marked, lesion, item.case.image.spacing):.6g}",
                ]
            )
    with (folder / "candidates.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "score", "lesion", "x_mm", "y_mm", "z_mm"])
        for item in detected:
            for candidate, hit in zip(item.candidates, item.detections.lesions.tolist(), strict=True):
                place = item.case.image.position(candidate.index)
                rows.writerow([item.case.name, repr(candidate.score), hit, *(f"{value:.3f}" for value in place)])
    if predictions:
        for item in detected:
            percent = np.nan_to_num(100.0 * item.probability).round().astype(np.uint8)
            volume = Volume(array=percent, affine=item.case.image.affine, path=item.case.image.path)
            write_like(folder / "predictions" / f"{item.case.name}.nii.gz", volume)


def draw_overview(folder: Path, detected: Sequence[Detected], channels: Sequence[str], lesion: str) -> None:
    """Draw ``overview.png``: of two cases with lesions and a normal one the image, the truth, the map and the candidates.

    Parameters
    ----------
    channels : sequence of str
        Names of the image's channels.
    lesion : str
        What a lesion is called.
    """
    bearing = [item for item in detected if item.case.lesion.any()]
    normal = [item for item in detected if not item.case.lesion.any()]
    rows = [_row(item, channels, lesion) for item in (*bearing[:2], *normal[:1])]
    write_overview(
        folder / NAME, rows, title=f"Truth, probability, and the {SHOWN} best candidates in or next to the slice"
    )


def _row(item: Detected, channels: Sequence[str], lesion: str) -> list[Panel]:
    """The slice with most of the lesions; of a normal case the one with the best candidate."""
    image, truth = item.case.image.array, item.case.lesion
    volumes = image if image.ndim == 4 else image[..., None]
    where = truth.copy()
    if not where.any() and item.candidates:
        where[item.candidates[0].index] = True
    names = {1: lesion, 2: "false candidate", 3: "candidate that hits"}
    pictures = [middle_slice(volumes[..., index], where) for index in range(len(channels))]
    last = pictures[-1]
    return [
        *(
            Panel(title=f"{item.case.name}: {channel}" if index == 0 else channel, image=picture)
            for index, (channel, picture) in enumerate(zip(channels, pictures, strict=True))
        ),
        Panel(title="truth", image=last, labels=middle_slice(truth.astype(np.uint8), where), names=names),
        Panel(
            title="probability",
            image=middle_slice(np.nan_to_num(item.probability), where),
            heat=True,
            limits=(0.0, 1.0),
        ),
        Panel(title="candidates", image=last, labels=middle_slice(_crosses(item), where), names=names),
    ]


def _crosses(item: Detected) -> NDArray[np.uint8]:
    """The best candidates as crosses of two voxels to each side, in their own slice and the two next to it."""
    marks = np.zeros(item.case.label.array.shape, dtype=np.uint8)
    for candidate, hit in reversed(list(zip(item.candidates, item.detections.lesions.tolist(), strict=True))[:SHOWN]):
        x, y, z = candidate.index
        near = slice(max(z - 1, 0), z + 2)
        marks[max(x - 2, 0) : x + 3, y, near] = 3 if hit else 2
        marks[x, max(y - 2, 0) : y + 3, near] = 3 if hit else 2
    return marks
