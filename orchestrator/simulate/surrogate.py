"""What a configuration that was not measured would have come to, from its neighbours in a table.

Shepard's interpolation in its local form (Franke and Nielson, "Smooth interpolation of large sets of scattered
data", Int J Numer Methods Eng 15:1691-1704, 1980) over the nearest configurations: it passes through every
measured value, lies never beyond them, and is neither the Gaussian process nor the trees nor the densities
with which search engines model, so that none of them finds its own assumptions fulfilled. How much each
parameter counts in the distance, and how many neighbours there are, is what predicts left-out ranks best.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.parameters import CategoricalParameter, FixedParameter, FloatParameter, IntParameter, same

if TYPE_CHECKING:
    from orchestrator.config.parameters import Parameter
    from orchestrator.model import Json
    from orchestrator.simulate.table import Table

__all__ = ["Expected", "Neighbours"]

_MOST_FOR_METRIC = 400  # configurations that the metric is learned from: the cost grows with their square
_SWEEPS = 2
_FACTORS = (0.0, 0.3, 0.6, 1.0, 1.7, 3.0)
_COUNTS = (4, 8, 16)
_ABSENT = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one training would come to; ``metrics`` None where it would fail."""

    metrics: Mapping[str, float] | None
    seconds: float | None
    progress: tuple[tuple[int, float], ...] = ()


class Neighbours:
    """Interpolates a table.

    Parameters
    ----------
    objective : str
        The metric whose prediction decides the distance.

    Attributes
    ----------
    fit : float
        Spearman's correlation of the objective with its prediction from the other configurations.
    importance : mapping
        Weight of each parameter in the distance, the largest 1.
    """

    def __init__(self, table: Table, space: Mapping[str, Parameter], objective: str) -> None:
        self._space = {name: each for name, each in space.items() if not isinstance(each, FixedParameter)}
        groups: dict[str, list[Any]] = {}
        for row in table.rows:
            groups.setdefault(repr(sorted(row.params.items())), []).append(row)
        self._groups = list(groups.values())
        self._repeats = table.repeats
        self._points = np.array([self._place(group[0].params) for group in self._groups])
        self._failed = np.array([all(row.metrics is None for row in group) for group in self._groups])
        values = [[row.metrics[objective] for row in group if row.metrics is not None] for group in self._groups]
        means = np.array([np.mean(each) if each else math.nan for each in values])
        self._learn(means)

    def expect(self, params: Mapping[str, Json], seed: int) -> Expected:
        """What a training with these parameters comes to; ``seed`` chooses which of the repeats it resembles."""
        return self.repeat(params, random.Random(seed).randrange(self._repeats))

    def repeat(self, params: Mapping[str, Json], repeat: int) -> Expected:
        """What it comes to in one of the repeats, numbered from 0."""
        distance = self._distances(self._place(params), self._points)
        if self._failed[int(distance.argmin())]:
            return Expected(metrics=None, seconds=None)
        known = np.flatnonzero(~self._failed)
        weights = _weights(distance[known][None, :], self._count)[0]
        near = np.flatnonzero(weights)
        rows = [self._repeat(self._groups[known[index]], repeat) for index in near]
        shares = weights[near] / weights[near].sum()
        names = set.intersection(*(set(row.metrics) for row in rows))
        metrics = {name: float(shares @ [row.metrics[name] for row in rows]) for name in sorted(names)}
        timed = all(row.seconds is not None for row in rows)
        seconds = float(shares @ [row.seconds for row in rows]) if timed else None
        steps = [step for step, _ in rows[0].progress]
        alike = all([step for step, _ in row.progress] == steps for row in rows)
        progress = [
            (step, float(shares @ [row.progress[index][1] for row in rows]))
            for index, step in enumerate(steps)
            if alike
        ]
        return Expected(metrics=metrics, seconds=seconds, progress=tuple(progress))

    def _repeat(self, group: Sequence[Any], repeat: int) -> Any:
        done = [row for row in group if row.metrics is not None]
        return done[repeat % len(done)]

    def _place(self, params: Mapping[str, Json]) -> list[float]:
        """One number per parameter: its place in the range, the index of a choice, NaN where it does not exist."""
        return [_coordinate(each, params[name]) if name in params else _ABSENT for name, each in self._space.items()]

    def _distances(self, point: Sequence[float], others: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(_differences(np.array([point]), others, self._is_choice)[:, 0, :].T @ self._factors))

    @property
    def _is_choice(self) -> NDArray[np.bool_]:
        return np.array([isinstance(each, CategoricalParameter) for each in self._space.values()], dtype=bool)

    def _learn(self, means: NDArray[np.float64]) -> None:
        """Coordinate descent over the parameters' weights, on ranks: a diverged loss must not outweigh the rest."""
        known = np.flatnonzero(np.isfinite(means))
        chosen = known[np.linspace(0, len(known) - 1, min(len(known), _MOST_FOR_METRIC)).round().astype(int)]
        ranks = _ranks(means[chosen])
        squares = _differences(self._points[chosen], self._points[chosen], self._is_choice)
        factors, self._count, best = np.ones(len(self._space)), _COUNTS[1], math.inf
        for _ in range(_SWEEPS):
            for column in range(len(factors)):
                for factor in _FACTORS:
                    trial = factors.copy()
                    trial[column] = factor
                    if factor == factors[column] and math.isfinite(best):
                        continue
                    if trial.any() and (error := _left_out(squares, ranks, trial, self._count)[0]) < best - 1e-12:
                        best, factors = error, trial
        for count in _COUNTS:
            if (error := _left_out(squares, ranks, factors, count)[0]) < best:
                best, self._count = error, count
        self._factors = factors / factors.max()
        predicted = _left_out(squares, ranks, factors, self._count)[1]
        moving = len(ranks) > 2 and ranks.std() > 0 and predicted.std() > 0
        self.fit = float(np.corrcoef(_ranks(predicted), ranks)[0, 1]) if moving else math.nan
        self.importance = dict(zip(self._space, self._factors.tolist(), strict=True))


def _coordinate(parameter: Parameter, value: Json) -> float:
    if isinstance(parameter, CategoricalParameter):
        return float(next(index for index, choice in enumerate(parameter.choices) if same(choice, value)))
    assert isinstance(parameter, FloatParameter | IntParameter)
    assert isinstance(value, int | float)
    low, high = float(parameter.low), float(parameter.high)
    if low == high:
        return 0.5
    if parameter.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _differences(
    one: NDArray[np.float64], other: NDArray[np.float64], is_choice: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Squared differences, shape (parameters, points, others); 1 where but one of two has the parameter."""
    left, right = one.T[:, :, None], other.T[:, None, :]
    gap = np.where(is_choice[:, None, None], (left != right).astype(float), (left - right) ** 2)
    gap = np.where(np.isnan(left) & np.isnan(right), 0.0, gap)
    return np.where(np.isnan(left) ^ np.isnan(right), 1.0, gap)


def _weights(distance: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Shares of the ``count`` nearest of each row; a point at no distance has all."""
    kept = min(count, distance.shape[1] - 1)
    if kept < 1:
        return np.ones_like(distance)
    radius = np.partition(distance, kept, axis=1)[:, kept : kept + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = (np.maximum(radius - distance, 0.0) / (radius * distance)) ** 2
    exact = distance <= 1e-12
    weights = np.where(exact.any(axis=1, keepdims=True), exact.astype(float), np.nan_to_num(weights, posinf=0.0))
    # All of them equally far: none is nearer than the radius.
    lone = ~weights.any(axis=1)
    weights[lone] = (distance[lone] <= radius[lone]).astype(float)
    return weights


def _left_out(
    squares: NDArray[np.float64], ranks: NDArray[np.float64], factors: NDArray[np.float64], count: int
) -> tuple[float, NDArray[np.float64]]:
    """Mean squared error of each configuration's rank as predicted by the others, and the predictions."""
    distance = np.sqrt(np.tensordot(factors, squares, axes=1))
    np.fill_diagonal(distance, np.inf)
    with np.errstate(invalid="ignore"):
        weights = _weights(distance, count)
    predicted = (weights @ ranks) / weights.sum(axis=1)
    return float(((predicted - ranks) ** 2).mean()), predicted


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0 to 1, ties sharing their mean."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 1) / max(1, len(values) - 1))
