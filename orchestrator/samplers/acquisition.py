"""Expected improvement with pending trials in view.

The outcomes of pending trials are unknown, so they are imagined: each *fantasy* is one joint draw
of their values from the posterior. Given a fantasy the improvement has a closed form; the expectation
over fantasies, and over draws of the hyperparameters, is a mean. This is noisy parallel expected improvement
with all but the new point integrated out (Snoek, Larochelle and Adams, "Practical Bayesian
Optimization of Machine Learning Algorithms", NeurIPS 2012, section 3.2; Letham et al., "Constrained Bayesian Optimization
with Noisy Experiments", 2019), in the logarithmic form of Ament et al., "Unexpected Improvements to
Expected Improvement for Bayesian Optimization" (NeurIPS 2023), which has a gradient everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from orchestrator.samplers.gp import EXACT, Posterior, cholesky

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from orchestrator.samplers.encoding import Array

__all__ = ["Feasibility", "LogEI", "log_improvement"]

LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


def log_improvement(z: Array) -> Array:
    """``log(pdf(z) + z cdf(z))`` of the standard normal, exact to -1e5 and beyond."""
    near, far = np.maximum(z, -1.0), np.minimum(z, -1.0)
    direct = np.log(np.exp(-0.5 * near * near - LOG_ROOT_2PI) + near * ndtr(near))
    # pdf(z) (1 - |z| cdf(z) / pdf(z)), where the ratio is Mills': sqrt(pi / 2) erfcx(|z| / sqrt 2)
    mills = math.sqrt(0.5 * math.pi) * erfcx(-far / math.sqrt(2.0)) * -far
    with np.errstate(divide="ignore"):
        tail = np.where(far > -1e3, np.log1p(-mills), -2.0 * np.log(-far))
    return np.where(z > -1.0, direct, -0.5 * far * far - LOG_ROOT_2PI + tail)


class Feasibility:
    """Probability that a point's trial will not fail, from the trials that did and did not.

    A Gaussian process on the labels (1 failed, 0 did not), read through the normal distribution
    function: failures have length scales of their own, which need not be those of the objective.
    """

    def __init__(self, X: Array, failed: NDArray[np.bool_], theta: Array, group: NDArray[np.int_]) -> None:
        self.rate = float(failed.mean())
        self.posterior = Posterior(X, (failed.astype(np.float64) - self.rate)[:, None], theta[None, :], group)

    def log_probability(self, X: Array) -> Array:
        """Log probability of success, shape (len(X),)."""
        means, variances = self.posterior.predict(X)
        return np.asarray(log_ndtr((0.5 - self.rate - means[0, :, 0]) / self._spread(variances)[0]))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """`log_probability` and its gradient by ``X``."""
        means, variances, pull = self.posterior.differentiate(X)
        spread = self._spread(variances)
        score = (0.5 - self.rate - means[:, :, 0]) / spread
        value = log_ndtr(score)
        by_score = np.exp(-0.5 * score * score - LOG_ROOT_2PI - value)
        return value[0], pull((-by_score / spread)[:, :, None], -0.5 * by_score * score / spread**2)

    def _spread(self, variances: Array) -> Array:
        # A label is no sharper than a tenth, however sure the fit is.
        return np.asarray(np.sqrt(variances + self.posterior.kernel.noise[:, None] + 0.01))


class LogEI:
    """Log of the expected improvement (for minimisation), averaged over models and fantasies.

    Parameters
    ----------
    X, y : ndarray
        Points seen and their standardised outputs.
    pending : ndarray, shape (pending, columns)
        Points whose outcome is not known yet.
    thetas : ndarray, shape (models, hyperparameters)
        Draws of the hyperparameters; one model for each.
    fantasies : int
        Draws of the pending outcomes for each model.
    feasibility : Feasibility, optional
        Its log probability is added.
    process : callable
        Makes the `Posterior`, which may have a mean function of its own.
    """

    def __init__(
        self,
        X: Array,
        y: Array,
        pending: Array,
        thetas: Array,
        group: NDArray[np.int_],
        *,
        fantasies: int,
        rng: np.random.Generator,
        feasibility: Feasibility | None = None,
        process: Callable[..., Posterior] = Posterior,
    ) -> None:
        self.feasibility = feasibility
        self.posterior = process(X, y[:, None], thetas, group)
        self.best = self.posterior.predict(X)[0].min(axis=1)
        if len(pending):
            means, covariances = self.posterior.joint(pending)
            tiny = EXACT * self.posterior.kernel.variance
            factors = np.stack([cholesky(c + t * np.eye(len(pending))) for c, t in zip(covariances, tiny, strict=True)])
            draws = means + factors @ rng.standard_normal((len(thetas), len(pending), fantasies))
            seen = np.broadcast_to(y[:, None], (len(thetas), len(y), fantasies))
            everything = np.concatenate([X, pending])
            outputs = np.concatenate([seen, draws], axis=1)
            self.posterior = process(everything, outputs, thetas, group, exact=len(pending))
            # The incumbent is the lowest mean, not the luckiest observation: observations are noisy.
            self.best = self.posterior.predict(everything)[0].min(axis=1)

    def __call__(self, X: Array) -> Array:
        """Values at the points ``X``, shape (len(X),)."""
        means, variances = self.posterior.predict(X)
        spread = np.sqrt(variances)[:, :, None]
        logs = log_improvement((self.best[:, None, :] - means) / spread) + np.log(spread)
        total = _log_sum(logs) - math.log(logs.shape[0] * logs.shape[2])
        return np.asarray(total if self.feasibility is None else total + self.feasibility.log_probability(X))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Values and their gradients by ``X``, shapes (len(X),) and (len(X), columns)."""
        means, variances, pull = self.posterior.differentiate(X)
        spread = np.sqrt(variances)[:, :, None]
        z = (self.best[:, None, :] - means) / spread
        logs = log_improvement(z) + np.log(spread)
        total = _log_sum(logs)
        # d EI / d mean = -cdf(z) and d EI / d spread = pdf(z), both over the sum of all
        by_mean = -np.exp(log_ndtr(z) - total[:, None])
        by_spread = np.exp(-0.5 * z * z - LOG_ROOT_2PI - total[:, None]).sum(axis=2)
        slopes = pull(by_mean, by_spread / (2.0 * spread[:, :, 0]))
        total = total - math.log(logs.shape[0] * logs.shape[2])
        if self.feasibility is None:
            return total, slopes
        value, slope = self.feasibility.gradient(X)
        return total + value, slopes + slope


def _log_sum(logs: Array) -> Array:
    """Log of the sum of exponentials over models and fantasies; SciPy's own costs several times as much on so few."""
    top = logs.max(axis=(0, 2))
    return np.asarray(top + np.log(np.exp(logs - top[:, None]).sum(axis=(0, 2))))
