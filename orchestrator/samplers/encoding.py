"""How parameters become numbers and back.

Two arrays describe points. ``Z`` (points x parameters) holds what a point *is*: the unit
coordinate of a number, snapped to its grid, or the index of a choice. ``X`` (points x columns)
holds what the Gaussian process *sees*: numbers as they are, choices one-hot, inactive
conditional parameters in the middle, where they say nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Array", "Encoding", "Mask"]

Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# Two different choices are at distance 1, whatever their number.
ONE_HOT = 1.0 / math.sqrt(2.0)


class Encoding:
    """Maps points of a space of named distributions to arrays and back.

    Parameters
    ----------
    space : mapping of str to BaseDistribution
        The parameters; those with a single value are left out by the caller.

    Attributes
    ----------
    names : list of str
    choices : list of int
        Number of choices of each parameter, 0 for numbers.
    group : ndarray of int, shape (columns,)
        Parameter that each column of ``X`` belongs to.
    smooth : ndarray of bool, shape (parameters,)
        Parameters that vary continuously.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.names = sorted(space)
        self.distributions = [space[name] for name in self.names]
        self.choices = [len(d.choices) if isinstance(d, CategoricalDistribution) else 0 for d in self.distributions]
        self.group = np.repeat(np.arange(len(self.names)), [max(1, count) for count in self.choices])
        self.start = np.concatenate([[0], np.cumsum([max(1, count) for count in self.choices])]).astype(int)
        self.smooth = np.array([isinstance(d, FloatDistribution) and d.step is None for d in self.distributions])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, points: Sequence[Mapping[str, Any]]) -> tuple[Array, Mask]:
        """Coordinates of points, and which of the parameters each of them has.

        Returns
        -------
        Z, active : ndarray, shape (points, parameters)
            A parameter that a point lacks has coordinate 0 and is not active. A value outside today's
            range (the range was changed) keeps its place outside the unit interval.
        """
        Z = np.zeros((len(points), len(self)))
        active = np.zeros((len(points), len(self)), dtype=bool)
        for column, (name, distribution) in enumerate(zip(self.names, self.distributions, strict=True)):
            rows = [row for row, point in enumerate(points) if name in point]
            if isinstance(distribution, CategoricalDistribution):
                values = np.array([distribution.to_internal_repr(points[row][name]) for row in rows], dtype=float)
            else:
                values = self._unit(distribution, np.array([points[row][name] for row in rows], dtype=float))
            kept = np.isfinite(values)
            Z[np.array(rows, dtype=int)[kept], column] = values[kept]
            active[np.array(rows, dtype=int)[kept], column] = True
        return Z, active

    def draw(self, U: Array) -> Array:
        """Points of the space from uniform numbers ``U`` (points x parameters), each value equally likely."""
        Z = U.copy()
        for column, distribution in enumerate(self.distributions):
            if self.choices[column]:
                Z[:, column] = np.minimum(np.floor(U[:, column] * self.choices[column]), self.choices[column] - 1)
            elif not self.smooth[column]:
                low, high, step = _grid(distribution)
                # Half a step more on either side: the outermost values are as likely as the others.
                lower, upper = _scaled(distribution, np.array([low - step / 2, high + step / 2]))
                value = _plain(distribution, lower + U[:, column] * (upper - lower))
                Z[:, column] = self._unit(distribution, _round(value, low, high, step))
        return Z

    def snap(self, Z: Array) -> Array:
        """Move points to the nearest points of the space: inside the unit cube, on the grid of every stepped parameter."""
        Z = np.clip(Z, 0.0, np.array([max(1.0, count - 1.0) for count in self.choices]))
        for column, distribution in enumerate(self.distributions):
            if self.choices[column]:
                Z[:, column] = np.round(Z[:, column])
            elif not self.smooth[column]:
                low, high, step = _grid(distribution)
                lower, upper = _scaled(distribution, np.array([low, high]))
                value = _plain(distribution, lower + Z[:, column] * (upper - lower))
                Z[:, column] = self._unit(distribution, _round(value, low, high, step))
        return Z

    def steps(self, column: int) -> Array:
        """Every coordinate that a choice or a stepped parameter can take."""
        distribution = self.distributions[column]
        if self.choices[column]:
            return np.arange(float(self.choices[column]))
        low, high, step = _grid(distribution)
        count = math.floor((high - low) / step + 1e-9) + 1
        return self._unit(distribution, low + step * np.arange(count, dtype=np.float64))

    def features(self, Z: Array, active: Mask) -> Array:
        """Return what the Gaussian process sees of points, shape (points, columns)."""
        X = np.empty((len(Z), len(self.group)))
        for column, count in enumerate(self.choices):
            first = self.start[column]
            on = active[:, column]
            if count:
                X[:, first : first + count] = ONE_HOT * (Z[:, column, None] == np.arange(count))
                X[~on, first : first + count] = ONE_HOT / count
            else:
                X[:, first] = np.where(on, Z[:, column], 0.5)
        return X

    def write(self, z: Array) -> dict[str, Any]:
        """Name the parameters of one snapped point, in the user's own terms."""
        params: dict[str, Any] = {}
        for name, distribution, coordinate in zip(self.names, self.distributions, z, strict=True):
            if isinstance(distribution, CategoricalDistribution):
                params[name] = distribution.to_external_repr(int(coordinate))
                continue
            low, high, step = _grid(distribution)
            lower, upper = _scaled(distribution, np.array([low, high]))
            value = float(_plain(distribution, np.array([lower + coordinate * (upper - lower)]))[0])
            if step:
                value = float(_round(np.array([value]), low, high, step)[0])
            # Rounding errors must not keep the upper end out of reach.
            value = high if high - value < 1e-9 * (high - low) else max(value, low)
            params[name] = round(value) if isinstance(distribution, IntDistribution) else value
        return params

    @staticmethod
    def _unit(distribution: BaseDistribution, values: Array) -> Array:
        low, high, _ = _grid(distribution)
        lower, upper = _scaled(distribution, np.array([low, high]))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((_scaled(distribution, values) - lower) / (upper - lower), dtype=float)


def _grid(distribution: BaseDistribution) -> tuple[float, float, float]:
    """Lower end, upper end and step (0 where continuous) of a numeric distribution."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return float(distribution.low), float(distribution.high), float(distribution.step or 0.0)


def _scaled(distribution: BaseDistribution, values: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(values) if getattr(distribution, "log", False) else values


def _plain(distribution: BaseDistribution, values: Array) -> Array:
    return np.exp(values) if getattr(distribution, "log", False) else values


def _round(values: Array, low: float, high: float, step: float) -> Array:
    return np.clip(low + step * np.round((values - low) / step), low, high)
