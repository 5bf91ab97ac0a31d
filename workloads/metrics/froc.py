"""FROC analysis: sensitivity against false positives per case, and the partial area under it.

Definitions, since the literature has several of each:

* Sensitivity is pooled: lesions hit over all lesions of all cases. False positives are divided by
  the number of all cases, normal ones included (Bunch et al. 1977; Chakraborty 1989).
* A lesion that is hit several times counts once, with the highest score; its further hits are
  neither true nor false positives (as LUNA16 and CAMELYON16 evaluate).
* Candidates of equal score are one step of the curve; between its points the curve is linear.
* The partial area to k false positives per case is the area over [0, k] divided by k, so that a
  perfect detector scores 1; a curve that ends before k is extended flat. It is not scikit-learn's
  ``roc_auc_score(max_fpr=...)``, which is standardised after McClish (1989).

What hits a lesion is decided elsewhere (`workloads.metrics.matching`); here are only its counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.metrics.bootstrap import Interval, bootstrap

__all__ = ["CaseDetections", "Froc", "fps_at", "froc", "partial_area", "partial_area_interval", "sensitivity_at"]

NORMALISATION = "area over [0, k] false positives per case divided by k, linear, extended flat"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaseDetections:
    """The candidates of one case.

    Attributes
    ----------
    scores : ndarray of float, shape (n,)
        Higher is more suspicious.
    lesions : ndarray of int, shape (n,)
        The lesion, 1 to ``n_lesions``, that each candidate hits, or 0: a false positive.
    """

    case: str
    scores: NDArray[np.float64]
    lesions: NDArray[np.int64]
    n_lesions: int

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.scores.shape != self.lesions.shape:
            raise ValueError(f"case {self.case}: {self.scores.shape} scores but {self.lesions.shape} lesions")
        if not np.isfinite(self.scores).all():
            raise ValueError(f"case {self.case}: a score is not finite")
        if self.lesions.size and (self.lesions.min() < 0 or self.lesions.max() > self.n_lesions):
            raise ValueError(f"case {self.case}: a lesion number is not in 0..{self.n_lesions}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Froc:
    """A FROC curve, from (0, 0) on; each array has one entry per point."""

    fps_per_case: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]  # the lowest score that counts at the point; inf at (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Events:
    """All candidates that count, by falling score; ties share a step of the curve."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    cases: NDArray[np.int64]
    last_of_tie: NDArray[np.int64]
    lesions_per_case: NDArray[np.int64]


def _events(cases: Sequence[CaseDetections]) -> _Events:
    scores: list[float] = []
    hits: list[bool] = []
    owners: list[int] = []
    for owner, case in enumerate(cases):
        best: dict[int, float] = {}
        for score, lesion in zip(case.scores.tolist(), case.lesions.tolist(), strict=True):
            if lesion == 0:
                scores.append(score)
                hits.append(False)
                owners.append(owner)
            else:
                best[lesion] = max(score, best.get(lesion, -np.inf))
        scores.extend(best.values())
        hits.extend([True] * len(best))
        owners.extend([owner] * len(best))
    ranked = np.array(scores, dtype=float)
    order = np.argsort(-ranked, kind="stable")
    ranked = ranked[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if ranked.size else np.zeros(0, dtype=np.int64)
    return _Events(
        scores=ranked,
        hits=np.array(hits, dtype=bool)[order],
        cases=np.array(owners, dtype=np.int64)[order],
        last_of_tie=last,
        lesions_per_case=np.array([case.n_lesions for case in cases], dtype=np.int64),
    )


def _curve(events: _Events, counts: NDArray[np.int64]) -> Froc | None:
    """The curve where case i counts ``counts[i]`` times, or None without any lesion."""
    lesions = int(counts @ events.lesions_per_case)
    if lesions == 0:
        return None
    weights = counts[events.cases]
    last = events.last_of_tie
    found = np.cumsum(weights * events.hits)[last] / lesions
    false = np.cumsum(weights * ~events.hits)[last] / int(counts.sum())
    return Froc(
        fps_per_case=np.concatenate([[0.0], false]),
        sensitivity=np.concatenate([[0.0], found]),
        thresholds=np.concatenate([[np.inf], events.scores[last]]),
    )


def froc(cases: Sequence[CaseDetections]) -> Froc:
    """The FROC curve of ``cases``, normal ones included.

    Raises
    ------
    ValueError
        If there is no case, or no case has a lesion: sensitivity does not exist then.
    """
    curve = _curve(_events(cases), np.ones(len(cases), dtype=np.int64)) if cases else None
    if curve is None:
        raise ValueError("a FROC curve needs at least one lesion")
    return curve


def sensitivity_at(curve: Froc, fps_per_case: float) -> float:
    """Sensitivity at ``fps_per_case``: linear between points, the upper end of a vertical step, flat after the end."""
    x, y = curve.fps_per_case, curve.sensitivity
    after = int(np.searchsorted(x, fps_per_case, side="right"))
    if after == x.size:
        return float(y[-1])
    share = (fps_per_case - x[after - 1]) / (x[after] - x[after - 1])
    return float(y[after - 1] + share * (y[after] - y[after - 1]))


def fps_at(curve: Froc, sensitivity: float) -> float:
    """False positives per case at which the curve first reaches ``sensitivity``, linear between points; infinite if never."""
    x, y = curve.fps_per_case, curve.sensitivity
    reached = int(np.searchsorted(y, sensitivity, side="left"))
    if reached == y.size:
        return float("inf")
    return float(np.interp(sensitivity, y[max(reached - 1, 0) : reached + 1], x[max(reached - 1, 0) : reached + 1]))


def partial_area(curve: Froc, limit: float) -> float:
    """Area under the curve from 0 to ``limit`` false positives per case, divided by ``limit``: 0 to 1.

    Raises
    ------
    ValueError
        If ``limit`` is not positive.
    """
    if not limit > 0:
        raise ValueError(f"the limit must be positive, not {limit}")
    inside = curve.fps_per_case <= limit
    x = np.append(curve.fps_per_case[inside], limit)
    y = np.append(curve.sensitivity[inside], sensitivity_at(curve, limit))
    return float(np.trapezoid(y, x) / limit)


def partial_area_interval(
    cases: Sequence[CaseDetections], limit: float, *, resamples: int = 500, seed: int = 0
) -> Interval:
    """95 % bootstrap interval over cases of `partial_area`."""
    events = _events(cases)

    def statistic(counts: NDArray[np.int64]) -> float:
        curve = _curve(events, counts)
        return float("nan") if curve is None else partial_area(curve, limit)

    return bootstrap(statistic, len(cases), resamples=resamples, seed=seed)
