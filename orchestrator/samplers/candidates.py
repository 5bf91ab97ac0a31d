"""Where an acquisition function is largest on a space of mixed and conditional parameters.

A broad pool (uniform points, and mutations of the best points seen) is scored; the best few are
then improved by turns: gradient ascent over the continuous parameters, one step of every discrete one.
Every point is snapped to the grid of its parameters before it is scored. A search may be held to
a box around the best point seen, as in Eriksson et al., "Scalable Global Optimization via Local Bayesian Optimization"
(NeurIPS 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.samplers.conditions import Conditions
    from orchestrator.samplers.encoding import Array, Encoding, Mask

__all__ = ["Surface", "maximise"]


class Surface(Protocol):
    """An acquisition function over feature rows."""

    def __call__(self, X: Array) -> Array:
        """Values, shape (len(X),)."""
        ...

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Values and their gradients."""
        ...


def maximise(
    surface: Surface,
    encoding: Encoding,
    conditions: Conditions,
    elite: Array,
    taken: Array,
    *,
    pool: int,
    starts: int,
    ascents: int,
    rng: np.random.Generator,
    reach: float = math.inf,
    admitted: Callable[[Array], Mask] | None = None,
) -> Array:
    """Point with the largest value, among those not taken.

    Parameters
    ----------
    elite : ndarray, shape (points, parameters)
        Points to mutate, best first.
    taken : ndarray, shape (points, parameters)
        Points that must not come back, as far as the space has others.
    pool : int
        Points scored at first.
    starts, ascents : int
        How many of them are improved, and the evaluations of each ascent.
    reach : float
        Numbers keep so close to those of the best point; only a few of its choices change.
    admitted : callable, optional
        Which points may be returned; where none is found that may, one is that may not.
    """
    local = math.isfinite(reach)
    box = Box.around(encoding, elite[0], reach)
    search = _Search(surface, encoding, conditions, taken, starts, box, admitted)
    if local:
        search.offer(near(encoding, elite[0], box, pool, rng))
    else:
        search.offer(_even(encoding, pool // 2, rng, admitted))
        search.offer(mutate(encoding, elite[rng.integers(len(elite), size=pool - pool // 2)], rng))
    for _ in range(2):
        search.offer(box.hold(encoding, mutate(encoding, np.repeat(search.best, 16, axis=0), rng)))
        search.offer(search.ascended(ascents))
        search.offer(np.concatenate([search.neighbours(z) for z in search.best[:2]]))
    if local and search.values[0] == -np.inf:
        # Every point of the box is taken: a small discrete space has others further away.
        return maximise(
            surface, encoding, conditions, elite, taken,
            pool=pool, starts=starts, ascents=ascents, rng=rng, admitted=admitted,
        )  # fmt: skip
    return np.asarray(search.best[0])


def _even(encoding: Encoding, count: int, rng: np.random.Generator, admitted: Callable[[Array], Mask] | None) -> Array:
    """Points evenly drawn; of a space that is cut by conditions as many as that, if so many are easily found."""
    Z = encoding.draw(rng.random((count, len(encoding))))
    if admitted is None:
        return Z
    kept = [Z[admitted(Z)]]
    for _ in range(_MORE):
        if sum(map(len, kept)) >= count:
            break
        Z = encoding.draw(rng.random((count, len(encoding))))
        kept.append(Z[admitted(Z)])
    return np.concatenate(kept) if any(map(len, kept)) else Z


_MORE = 16


@dataclass(frozen=True, slots=True)
class Box:
    """Bounds of every coordinate; those of choices are open."""

    low: Array
    high: Array

    @classmethod
    def around(cls, encoding: Encoding, z: Array, reach: float) -> Box:
        """Points no further than ``reach`` from ``z`` in any number."""
        last = np.array([max(1.0, count - 1.0) for count in encoding.choices])
        numeric = np.array(encoding.choices) == 0
        return cls(
            np.where(numeric, np.clip(z - reach, 0.0, 1.0), 0.0), np.where(numeric, np.clip(z + reach, 0.0, 1.0), last)
        )

    def hold(self, encoding: Encoding, Z: Array) -> Array:
        """Points of the space that lie in the box, or on the nearest step to it."""
        return encoding.snap(np.clip(Z, self.low, self.high))


def near(encoding: Encoding, z: Array, box: Box, count: int, rng: np.random.Generator) -> Array:
    """Points around ``z``, evenly in the box; all, half or few of the coordinates change, and fewer of the choices."""
    parameters = len(z)
    changed = rng.random((count, parameters)) < rng.choice([1.0, 0.5, min(1.0, 1.5 / parameters)], size=(count, 1))
    categorical = np.array(encoding.choices) > 0
    changed[:, categorical] &= rng.random((count, int(categorical.sum()))) < 0.3
    even = box.low + (box.high - box.low) * rng.random((count, parameters))
    even[:, categorical] = encoding.draw(rng.random((count, parameters)))[:, categorical]
    return encoding.snap(np.where(changed, even, z))


def mutate(encoding: Encoding, Z: Array, rng: np.random.Generator) -> Array:
    """Points near ``Z``: each parameter changes with a probability, numbers by steps of many sizes."""
    count, parameters = Z.shape
    changed = rng.random(Z.shape) < rng.choice([1.0, 0.5, min(1.0, 1.5 / parameters)], size=(count, 1))
    changed[np.arange(count), rng.integers(parameters, size=count)] = True
    width = np.exp(rng.uniform(np.log(0.003), np.log(0.3), size=(count, 1)))
    moved = Z + width * rng.standard_normal(Z.shape)
    fresh = encoding.draw(rng.random(Z.shape))
    categorical = np.array(encoding.choices) > 0
    moved[:, categorical] = fresh[:, categorical]
    changed[:, categorical] &= rng.random((count, int(categorical.sum()))) < 0.5
    return encoding.snap(np.where(changed, moved, Z))


class _Search:
    """The best points so far, and the ways to find better ones."""

    def __init__(
        self,
        surface: Surface,
        encoding: Encoding,
        conditions: Conditions,
        taken: Array,
        count: int,
        box: Box,
        admitted: Callable[[Array], Mask] | None = None,
    ) -> None:
        self.box = box
        self.admitted = admitted
        self.surface = surface
        self.encoding = encoding
        self.conditions = conditions
        self.count = count
        self.taken = set(_keys(self._features(taken)))
        self.best = np.empty((0, len(encoding)))
        self.values = np.empty(0)

    def offer(self, Z: Array) -> None:
        """Score points and keep the best of all, best first. What is taken or not admitted comes last, what is known is passed over."""
        known = set(_keys(self._features(self.best)))
        X = self._features(Z)
        fresh: dict[bytes, int] = {}
        for index, key in enumerate(_keys(X)):
            if key not in known:
                fresh.setdefault(key, index)
        if not fresh:
            return
        rows = list(fresh.values())
        values = self.surface(X[rows])
        values[[key in self.taken for key in fresh]] = -np.inf
        if self.admitted is not None:
            values[~self.admitted(Z[rows])] = -np.inf
        values = np.concatenate([self.values, values])
        order = np.argsort(-values, kind="stable")[: self.count]
        self.best, self.values = np.concatenate([self.best, Z[rows]])[order], values[order]

    def ascended(self, evaluations: int) -> Array:
        """Improve the continuous parameters of all best points at once (L-BFGS-B on the sum of their values)."""
        Z = self.best
        active = self.conditions.active(Z)
        free = active & self.encoding.smooth
        if not free.any():
            return Z
        columns = self.encoding.start[:-1]
        low, high = (np.broadcast_to(bound, Z.shape)[free] for bound in (self.box.low, self.box.high))

        def loss(flat: Array) -> tuple[float, Array]:
            moved = Z.copy()
            moved[free] = flat
            values, slopes = self.surface.gradient(self.encoding.features(moved, active))
            return -float(values.sum()), -slopes[:, columns][free]

        found = minimize(
            loss,
            np.clip(Z[free], low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxfun": evaluations},
        )
        moved = Z.copy()
        moved[free] = np.clip(found.x, low, high)
        return moved

    def neighbours(self, z: Array) -> Array:
        """Points that differ from ``z`` in one discrete parameter: any other choice, a step up or down."""
        found: list[Array] = [z[None, :]]
        for column in np.flatnonzero(~self.encoding.smooth):
            steps = self.encoding.steps(int(column))
            if not self.encoding.choices[column]:
                here = int(np.argmin(np.abs(steps - z[column])))
                steps = steps[max(0, here - 2) : here + 3]
            copies = np.repeat(z[None, :], len(steps), axis=0)
            copies[:, column] = steps
            found.append(copies)
        return np.concatenate(found)

    def _features(self, Z: Array) -> Array:
        return self.encoding.features(Z, self.conditions.active(Z))


def _keys(X: Array) -> list[bytes]:
    """One for each row, the same where rows are the same."""
    return [row.tobytes() for row in np.round(X, 9) + 0.0]  # + 0.0: minus zero is zero
