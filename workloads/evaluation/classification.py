"""What every classification task does with the answers of a trained classifier: measure, and keep the evidence."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.evaluation.overview import NAME, Panel, write_overview
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.classification import balanced_accuracy, confusion, roc_auc

__all__ = ["Classified", "Shown", "intervals", "summarise", "write_artifacts"]

COLUMNS, MOST_WRONG, MOST_SHOWN = 4, 8, 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classified:
    """What a classifier says of some cases.

    Attributes
    ----------
    names : tuple of str
        The cases.
    classes : tuple of str
        Names of the classes, by number.
    truth : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
    patients : tuple of str
        Of each case; what is resampled for an interval.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    patients: tuple[str, ...]

    @property
    def answers(self) -> NDArray[np.int64]:
        """The likeliest class of each case, the first of equals."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """How a case looks in an overview: as a `Panel` without a title."""

    image: NDArray[Any]
    labels: NDArray[Any] | None = None
    names: Mapping[int, str] | None = None
    limits: tuple[float, float] | None = None


def summarise(found: Classified) -> dict[str, float]:
    """The metrics of a classification task, all finite where each class has a case.

    ``accuracy``; ``accuracy_CLASS``, the share of the class's cases that are answered so; ``balanced_accuracy``, the
    mean of these; of two classes ``auc``, the area under the ROC curve.
    """
    matrix = confusion(found.truth, found.answers, len(found.classes))
    metrics = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "balanced_accuracy": balanced_accuracy(matrix),
    }
    for number, name in enumerate(found.classes):
        if matrix[number].any():
            metrics[f"accuracy_{name}"] = float(matrix[number, number] / matrix[number].sum())
    if len(found.classes) == 2:
        metrics["auc"] = roc_auc(found.truth, found.probabilities[:, 1])
    return metrics


def intervals(found: Classified) -> dict[str, Interval]:
    """95 % bootstrap intervals of `summarise`'s measures of all classes, over patients: their cases go together."""
    patients = sorted(set(found.patients))
    patient_of = np.array([patients.index(patient) for patient in found.patients])

    def of(measure: str) -> Callable[[NDArray[np.int64]], float]:
        def statistic(counts: NDArray[np.int64]) -> float:
            drawn = np.repeat(np.arange(len(found.truth)), counts[patient_of])
            truth = found.truth[drawn]
            if measure == "auc":
                return roc_auc(truth, found.probabilities[drawn, 1])
            matrix = confusion(truth, found.answers[drawn], len(found.classes))
            return balanced_accuracy(matrix) if measure == "balanced_accuracy" else float(matrix.trace() / matrix.sum())

        return statistic

    measures = ["accuracy", "balanced_accuracy", *(["auc"] if len(found.classes) == 2 else [])]
    return {measure: bootstrap(of(measure), len(patients)) for measure in measures}


def write_artifacts(folder: Path, found: Classified, show: Callable[[int], Shown]) -> None:
    """Write ``predictions.csv``, ``confusion.csv``, ``confusion.png`` and ``overview.png``.

    Parameters
    ----------
    show : callable
        The place of a case in ``found`` to how it looks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answers = found.answers
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "truth", "answer", *(f"probability_{name}" for name in found.classes)])
        for name, truth, answer, odds in zip(found.names, found.truth, answers, found.probabilities, strict=True):
            rows.writerow([name, found.classes[truth], found.classes[answer], *(f"{value:.6g}" for value in odds)])
    matrix = confusion(found.truth, answers, len(found.classes))
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["truth", *found.classes])
        rows.writerows([name, *row] for name, row in zip(found.classes, matrix.tolist(), strict=True))
    _draw_confusion(folder / "confusion.png", matrix, found.classes)
    wrong = int(np.count_nonzero(answers != found.truth))
    write_overview(
        folder / NAME,
        _panels(found, _chosen(found), show),
        title=f"{wrong} of {len(answers)} wrong" + ("; these first" if wrong else ""),
    )


def _chosen(found: Classified) -> list[int]:
    """Cases worth a look: the wrong ones, then right ones of each class in turn; first where the truth got least."""
    of_truth = found.probabilities[np.arange(len(found.truth)), found.truth]
    order = np.argsort(of_truth, kind="stable")
    wrong = [int(index) for index in order if found.answers[index] != found.truth[index]]
    right = [int(index) for index in order if found.answers[index] == found.truth[index]]
    turns: dict[int, int] = {}
    ranked = []
    for index in right:
        number = int(found.truth[index])
        turns[number] = turns.get(number, 0) + 1
        ranked.append((turns[number], number, index))
    shown = wrong[:MOST_WRONG]
    return shown + [index for *_, index in sorted(ranked)][: MOST_SHOWN - len(shown)]


def _panels(found: Classified, chosen: Sequence[int], show: Callable[[int], Shown]) -> list[list[Panel]]:
    panels = []
    for index in chosen:
        truth, answer = int(found.truth[index]), int(found.answers[index])
        said = f"{found.classes[answer]} {found.probabilities[index, answer]:.2f}"
        verdict = said if truth == answer else f"{found.classes[truth]}, called {said}"
        shown = show(index)
        panels.append(
            Panel(
                title=f"{found.names[index]}\n{verdict}",
                image=shown.image,
                labels=shown.labels,
                names=shown.names,
                limits=shown.limits,
            )
        )
    return [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]


def _draw_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{path.name} is not drawn: matplotlib is not installed", file=sys.stderr)  # noqa: T201 - into the job's log
        return
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.7 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(matrix.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=100, format="png", metadata={"Software": None})
    partial.replace(path)
