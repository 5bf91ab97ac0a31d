"""Percentile bootstrap over cases: lesions of one patient are not independent, patients are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A percentile interval.

    Attributes
    ----------
    used, asked : int
        Resamples on which the statistic exists, and resamples drawn.
    """

    low: float
    high: float
    level: float
    used: int
    asked: int


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n_cases: int,
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of ``statistic`` over resamples of cases with replacement (Efron's percentile method).

    Parameters
    ----------
    statistic : callable
        Given how often each case was drawn, shape (n_cases,), the statistic of that resample, or
        NaN where it does not exist (no lesion was drawn); such resamples are left out and counted.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_cases, np.full(n_cases, 1.0 / n_cases), size=resamples)
    values = np.array([statistic(row) for row in counts], dtype=float)
    values = values[np.isfinite(values)]
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.percentile(values, [tail, 100.0 - tail]) if values.size else (np.nan, np.nan)
    return Interval(low=float(low), high=float(high), level=level, used=int(values.size), asked=resamples)
