"""What an earlier study teaches this one: a mean function for its Gaussian process, as far as its own trials bear it out.

The *source* is a list of configurations and what came of them: an earlier study, a smaller data set, a table. A Gaussian
process is fitted to it, and its posterior mean m(x) goes into the model of the study's own values,

    y(x) = a + s m(x) + g(x),

with the study's own process g for all that the source does not say. The offset a and the scale s have normal priors and are
integrated in closed form, given the hyperparameters of g (Rasmussen and Williams, *Gaussian Processes for Machine
Learning*, 2006, section 2.7): a source may be in other units. Whether it counts at all is judged by the evidence for this
model against the one without it, for each draw of the hyperparameters by itself, on the trials that did not fail: failures have
a model of their own. So an unrelated source loses its say after a few trials. Every fourth trial is looked for without the
source: only trials elsewhere can show that it is wrong. All of this depends on the source and the history alone.

Until enough trials are complete, every other one repeats one of the source's best configurations, which differ much
among themselves, as long as these do better than the others; those stay random, because good ones alone would not show
whether the source is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import TrialState
from scipy.linalg import lapack
from scipy.special import expit

from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.fitting import fit
from orchestrator.samplers.gp import Posterior, Prior, cholesky
from orchestrator.samplers.kernel import Kernel, roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from orchestrator.samplers.encoding import Array
    from orchestrator.samplers.fitting import Fitted

__all__ = ["ScaledMean", "Shifted", "Source", "Transfer", "alone", "opens"]

# Trials of a source that its model uses at most.
CAP = 150
# Standard deviation of the offset, mean and standard deviation of the scale.
OFFSET = 1.0
SCALE = (0.5, 0.7)
# One trial in so many is looked for without the source.
ALONE = 4
# The opening takes from this share of the source's trials, the best of them.
BEST = 0.2


@dataclass(frozen=True, slots=True)
class Source:
    """Earlier trials.

    Attributes
    ----------
    points : tuple of mapping
        Parameters by name, in the terms of the new study; a point may lack some.
    values : tuple of float
        As the new study would have been told them, the better the smaller or larger as its direction is; nan where the
        trial failed. Their unit does not matter.
    """

    points: tuple[Mapping[str, Any], ...]
    values: tuple[float, ...]


def opens(study: Study, trial: FrozenTrial) -> bool:
    """Whether ``trial``, one of the first, is taken from the source: every other one, unless random ones do better so far."""
    sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
    best = [math.inf, math.inf]
    for seen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        value = seen.value
        if value is not None and seen.number < trial.number:
            best[seen.number % 2] = min(best[seen.number % 2], sign * value)
    return trial.number % 2 == 0 and best[0] <= best[1]


def alone(number: int) -> bool:
    """Whether a trial with this number is looked for without the source."""
    return number % ALONE == ALONE - 1


class Transfer:
    """A model of the source over the space of the new study.

    Parameters
    ----------
    source : Source
    encoding : Encoding
        Of the new study's space.
    standardise : callable
        As for the new study's own values: makes outputs of values that are better the smaller they are, and infinite
        where the trial failed.
    sign : float
        What makes values better the smaller they are.
    seed : int
        The study's seed.
    """

    def __init__(
        self, source: Source, encoding: Encoding, standardise: Callable[[Array], Array], *, sign: float, seed: int
    ) -> None:
        self.encoding = encoding
        values = sign * np.array(source.values, dtype=float)
        values = np.where(np.isfinite(values), values, np.inf)
        kept = _thinned(values)
        self.Z, self.active = encoding.read([source.points[index] for index in kept])
        self.failed = ~np.isfinite(values[kept])
        # What the source does not know of plays no part in its model.
        known = np.flatnonzero(self.active.any(axis=0))
        self.columns = np.flatnonzero(np.isin(encoding.group, known))
        own = Encoding({encoding.names[index]: encoding.distributions[index] for index in known})
        X = own.features(self.Z[:, known], self.active[:, known])
        y = standardise(values[kept])
        fitted = fit(X, y, np.zeros(len(y), dtype=bool), own, models=1, seed=seed)
        self.posterior = Posterior(X, y[:, None], fitted.thetas, own.group)

    def mean(self, X: Array) -> Array:
        """Posterior mean at the features ``X`` of the new study's space, shape (len(X),)."""
        return np.asarray(self.posterior.predict(X[:, self.columns])[0][0, :, 0])

    def best(
        self, count: int, rng: np.random.Generator, admitted: Callable[[Array], NDArray[np.bool_]] | None = None
    ) -> Array:
        """Configurations of the source that are good and differ from each other, the best one first.

        Parameters
        ----------
        count : int
            How many at most.
        rng : Generator
            Draws the values that the source does not say.
        admitted : callable, optional
            Which points may be returned.
        """
        Z = self.encoding.snap(np.where(self.active, self.Z, self.encoding.draw(rng.random(self.Z.shape))))
        good = np.flatnonzero(~self.failed if admitted is None else ~self.failed & admitted(Z))
        X = self.encoding.features(Z, self.active)
        order = good[np.argsort(self.mean(X[good]), kind="stable")] if len(good) else good
        near = order[: max(count, math.ceil(BEST * len(order)))]
        chosen = list(near[:1])
        while len(chosen) < min(count, len(near)):
            apart = ((X[near][:, None] - X[chosen][None]) ** 2).sum(axis=2).min(axis=1)
            chosen.append(near[int(np.argmax(apart))])
        return np.asarray(Z[chosen])

    def learn(
        self,
        X: Array,
        y: Array,
        complete: NDArray[np.bool_],
        group: NDArray[np.int_],
        refit: Callable[[Array], Fitted],
    ) -> tuple[Fitted, ScaledMean | None]:
        """Find what the source says of the new study, from the new study's own trials.

        Parameters
        ----------
        X, y : ndarray
            Features of the study's ended trials and their standardised outputs.
        complete : ndarray of bool
            Which of them did not fail.
        group : ndarray of int
            See `Encoding`.
        refit : callable
            Fits hyperparameters to outputs at ``X``.

        Returns
        -------
        fitted, mean
            Hyperparameters of the study's own process, and the mean function for each draw of them; None where the
            source has no say.
        """
        m = self.mean(X)
        seen = X[complete], y[complete], m[complete]
        start = _weigh(*seen, Prior.of(int(group[-1]) + 1).mean, group)
        fitted = refit(y - start.offset - start.scale * m if start.odds > 0.0 else y)
        found = [_weigh(*seen, theta, group) for theta in fitted.thetas]
        share = float(np.mean([expit(each.odds) for each in found]))
        used = (np.arange(len(found)) + 0.5) / len(found) < share
        if not used.any():
            return (refit(y) if start.odds > 0.0 else fitted), None
        offsets = np.where(used, [each.offset for each in found], 0.0)
        return fitted, ScaledMean(self, offsets, np.where(used, [each.scale for each in found], 0.0))


@dataclass(frozen=True, slots=True)
class ScaledMean:
    """The mean function ``offset + scale * m(x)``, for each of several models."""

    transfer: Transfer
    offset: Array
    scale: Array

    def __call__(self, X: Array) -> Array:
        """Values, shape (models, len(X))."""
        return np.asarray(self.offset[:, None] + self.scale[:, None] * self.transfer.mean(X))

    def pull(self, X: Array, weights: Array) -> Array:
        """Gradient by ``X`` of the sum of the values, each times its weight, shape (len(X), columns)."""
        columns = self.transfer.columns
        _, _, pull = self.transfer.posterior.differentiate(X[:, columns])
        found = np.zeros_like(X)
        found[:, columns] = pull((self.scale @ weights)[None, :, None], np.zeros((1, len(X))))
        return found


class Shifted(Posterior):
    """`Posterior` about a mean function.

    Parameters
    ----------
    mean : ScaledMean
    X, Y, thetas, group, exact :
        As for `Posterior`.
    """

    def __init__(
        self, mean: ScaledMean, X: Array, Y: Array, thetas: Array, group: NDArray[np.int_], exact: int = 0
    ) -> None:
        self.mean = mean
        super().__init__(X, Y - mean(X)[:, :, None], thetas, group, exact)

    def differentiate(self, X: Array) -> tuple[Array, Array, Callable[[Array, Array], Array]]:
        """As `Posterior.differentiate`."""
        means, variances, pull = super().differentiate(X)

        def both(by_mean: Array, by_variance: Array) -> Array:
            return pull(by_mean, by_variance) + self.mean.pull(X, by_mean.sum(axis=2))

        return means, variances, both

    def _means(self, X: Array, K: Array) -> Array:
        return super()._means(X, K) + self.mean(X)[:, :, None]


@dataclass(frozen=True, slots=True)
class _Weight:
    """Log odds that the source counts, and the means of offset and scale if it does."""

    odds: float
    offset: float
    scale: float


def _weigh(X: Array, y: Array, m: Array, theta: Array, group: NDArray[np.int_]) -> _Weight:
    """Regress ``y`` on ``m`` under the process with the hyperparameters ``theta``."""
    kernel = Kernel(theta[None, :])
    K = kernel.matrix(roots(X, X, group))[0]
    K.flat[:: len(K) + 1] += kernel.noise[0]
    L = cholesky(K)
    H = np.stack([np.ones_like(m), m], axis=1)
    solved, _ = lapack.dpotrs(L, np.column_stack([H, y - SCALE[0] * m, y]), lower=1)
    deviations = np.array([OFFSET, SCALE[1]])
    with_source, weights = _evidence(H, y - SCALE[0] * m, solved[:, :2], solved[:, 2], deviations)
    without, _ = _evidence(H[:, :1], y, solved[:, :1], solved[:, 3], deviations[:1])
    return _Weight(with_source - without, float(weights[0]), SCALE[0] + float(weights[1]))


def _evidence(H: Array, r: Array, solved_H: Array, solved_r: Array, deviations: Array) -> tuple[float, Array]:
    """Log evidence, up to what both models share, of weights of ``H`` with normal priors; and their posterior means."""
    A = H.T @ solved_H + np.diag(deviations**-2.0)
    b = H.T @ solved_r
    weights = np.linalg.solve(A, b)
    volume = 0.5 * float(np.linalg.slogdet(A)[1]) + float(np.log(deviations).sum())
    return 0.5 * float(b @ weights) - 0.5 * float(r @ solved_r) - volume, np.asarray(weights, dtype=float)


def _thinned(values: Array) -> NDArray[np.int_]:
    """Which trials the model uses: the best half, and an even spread of the others."""
    if len(values) <= CAP:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    rest = np.sort(order[CAP // 2 :])
    spread = rest[np.linspace(0, len(rest) - 1, CAP - CAP // 2).astype(int)]
    return np.sort(np.concatenate([order[: CAP // 2], spread]))
