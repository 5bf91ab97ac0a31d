"""Whether a network knows what it does not know: calibration, and uncertainty beside error.

All without TensorFlow, over samples: the cases of a classifier, the voxels of a segmenter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.metrics.classification import roc_auc

__all__ = ["Reliability", "error_detection", "reliability", "risk_coverage", "write_figure"]

Numbers = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reliability:
    """How often answers of some confidence are right, over bins of equal width from 0 to 1.

    Attributes
    ----------
    counts, confidence, accuracy : ndarray, shape (bins,)
        Samples, mean confidence, and share of right answers of each bin; the latter two NaN where a bin is empty.
    """

    counts: NDArray[np.int64]
    confidence: Numbers
    accuracy: Numbers

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini 2015, Guo 2017): mean distance of both, weighted by samples."""
        if not self.counts.any():
            return float("nan")
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float(np.sum(gaps * self.counts) / self.counts.sum())


def reliability(probabilities: Numbers, truth: NDArray[np.integer], *, bins: int = 10) -> Reliability:
    """Compare the probability of the likeliest class with the share of samples that are of it.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
    truth : ndarray of int, shape (n,)
    bins : int
        A confidence on an edge belongs to the bin above it, 1 to the last.
    """
    confidence, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = (np.bincount(place, each, minlength=bins) / counts for each in (confidence, right))
        return Reliability(counts=counts, confidence=next(means), accuracy=next(means))


def error_detection(uncertainty: Numbers, wrong: NDArray[np.bool_]) -> float:
    """Chance that a wrong sample is more uncertain than a right one (ROC area); NaN where all are right, or wrong."""
    return roc_auc(wrong.astype(np.int64), uncertainty)


def risk_coverage(uncertainty: Numbers, wrong: NDArray[np.bool_]) -> tuple[Numbers, Numbers, float]:
    """The share of errors among the samples that are kept when the most uncertain ones are left out (Geifman 2017).

    Samples of equal uncertainty are kept or left out together in expectation: each has their mean error.

    Returns
    -------
    coverage, risk : ndarray, shape (n,)
        Share of samples that are kept, and that of errors among them.
    area : float
        Under the curve: the mean of ``risk``. It is the share of all errors if uncertainty says nothing.
    """
    order = np.argsort(uncertainty, kind="stable")
    _, group = np.unique(uncertainty[order], return_inverse=True)
    errors = (np.bincount(group, wrong[order]) / np.bincount(group))[group]
    kept = np.arange(1, len(errors) + 1)
    risk = np.cumsum(errors) / kept
    return kept / len(errors), risk, float(risk.mean()) if len(risk) else float("nan")


def write_figure(path: Path, found: Reliability, uncertainty: Numbers, wrong: NDArray[np.bool_]) -> None:
    """Draw the reliability diagram, and risk over coverage, into a PNG file, whole by rename."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0.0, 1.0, len(found.counts) + 1)
    left.bar(edges[:-1], np.nan_to_num(found.accuracy), width=1.0 / len(found.counts), align="edge",
             color="#2f9fe0", edgecolor="white")  # fmt: skip
    left.plot([0, 1], [0, 1], color="0.3", linestyle="--", linewidth=1)
    left.plot(found.confidence, found.accuracy, "o", color="#e8833a", markersize=4)
    left.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1))
    left.set_title(f"reliability, ECE {found.error:.3f}", fontsize=10)
    coverage, risk, area = risk_coverage(uncertainty, wrong)
    _, best, _ = risk_coverage(wrong.astype(np.float64), wrong)
    some = np.unique(np.linspace(0, len(risk) - 1, 500).astype(int))
    right.plot(coverage[some], risk[some], color="#2f9fe0", label=f"by uncertainty, area {area:.3g}")
    right.plot(coverage[some], best[some], color="0.6", linewidth=1, label="errors left out first")
    right.axhline(float(wrong.mean()), color="0.3", linestyle="--", linewidth=1, label="at random")
    right.set(xlabel="share of samples kept", ylabel="share of errors among them", xlim=(0, 1))
    right.set_ylim(bottom=0)
    right.set_title(f"uncertainty finds errors, AUC {error_detection(uncertainty, wrong):.3f}", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=100, format="png", metadata={"Software": None})
    partial.replace(path)
