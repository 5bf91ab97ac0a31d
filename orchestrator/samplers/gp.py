"""A Gaussian process over encoded points: evidence, fit and draws of hyperparameters, posterior.

Zero mean, for standardised outputs; the covariance is `orchestrator.samplers.kernel`'s. The length
scales have the dimension-scaled log-normal prior of Hvarfner, Hellsten and Nardi, "Vanilla Bayesian
Optimization Performs Great in High Dimensions" (ICML 2024), shifted to shorter scales and narrowed: a search of some tens of trials
cannot tell scales that far apart, and scales that are only thought short make it explore what is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize

from orchestrator.samplers.kernel import ADDITIVE, JOINT, LENGTHS, NOISE, Kernel, matern, roots, slope

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from orchestrator.samplers.encoding import Array

__all__ = ["EXACT", "Evidence", "Posterior", "Prior", "cholesky"]

# Noise variance, relative to the kernel's, of points that are known exactly.
EXACT = 1e-6
# Distances that are worked on at a time: they stay in the cache, which is several times faster.
BLOCK = 40_000


def cholesky(K: Array) -> Array:
    """Lower factor of ``K``; what little is needed is added to the diagonal where ``K`` is not quite positive."""
    jitter = 0.0
    while True:
        factor, info = lapack.dpotrf(K + jitter * np.eye(len(K)) if jitter else K, lower=1, clean=1)
        if info == 0 and math.isfinite(factor[-1, -1]):
            return np.asarray(factor)
        jitter = max(1e-10 * float(np.trace(K)) / len(K), 10.0 * jitter)
        if not jitter < 1e3:
            raise np.linalg.LinAlgError("the covariance matrix has entries that are not finite")


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal priors of the logarithms of the hyperparameters: mean and standard deviation."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, parameters: int) -> Prior:
        """Build the prior for a space of that many parameters."""
        length = math.sqrt(2.0) + 0.5 * math.log(parameters) - 2.2
        return cls(
            np.concatenate([np.full(parameters, length), [0.0, -7.0, -1.2]]),
            np.concatenate([np.full(parameters, 0.9), [1.0, 2.0, 1.0]]),
        )


class Evidence:
    """Log posterior of the hyperparameters, given data.

    Parameters
    ----------
    X : ndarray, shape (points, columns)
    y : ndarray, shape (points,)
        Standardised outputs.
    group : ndarray of int, shape (columns,)
        Parameter of each column; the columns of one parameter share a length scale.
    prior : Prior
    """

    def __init__(self, X: Array, y: Array, group: NDArray[np.int_], prior: Prior) -> None:
        self.y = y
        self.prior = prior
        # Every pair of points once: the lower triangle, row by row.
        self.rows, self.columns = np.tril_indices(len(y), -1)
        self.root = roots(X, X, group)[:, self.rows, self.columns]
        self.squared = self.root**2

    def loss(self, theta: Array) -> tuple[float, Array]:
        """Minus the log posterior density (up to a constant) and its gradient."""
        shrink = np.exp(-theta[LENGTHS])
        additive, joint = math.exp(theta[ADDITIVE]), math.exp(theta[JOINT])
        r = np.sqrt(shrink**2 @ self.squared)
        each = self.root * shrink[:, None]
        fall = np.exp(-each)
        whole = matern(r)
        parts = ((1.0 + each * (1.0 + each / 3.0)) * fall).mean(axis=0)
        L, alpha, value = self._solve(theta, joint * whole + additive * parts)
        inverse, _ = lapack.dpotri(L, lower=1)
        diagonal = float(np.diag(inverse).sum() - alpha @ alpha)
        # Off the diagonal each pair counts twice, which cancels the half.
        W = inverse[self.rows, self.columns] - alpha[self.rows] * alpha[self.columns]
        gradient = np.empty_like(theta)
        gradient[LENGTHS] = joint * shrink**2 / 5.0 * (self.squared @ (W * slope(r)))
        gradient[LENGTHS] += additive / (3.0 * len(shrink)) * ((each * each * (1.0 + each) * fall) @ W)
        gradient[ADDITIVE] = additive * (float(W @ parts) + 0.5 * diagonal)
        gradient[NOISE] = 0.5 * math.exp(theta[NOISE]) * diagonal
        gradient[JOINT] = joint * (float(W @ whole) + 0.5 * diagonal)
        residual = (theta - self.prior.mean) / self.prior.deviation
        return 0.5 * float(residual @ residual) - value, gradient + residual / self.prior.deviation

    def likelihood(self, theta: Array) -> float:
        """Log likelihood alone, up to a constant."""
        return self._solve(theta, self._pairs(theta))[2]

    def left_out(self, theta: Array) -> Array:
        """Log density of each output given all the others (Rasmussen and Williams 2006, equations 5.10 to 5.12)."""
        L, alpha, _ = self._solve(theta, self._pairs(theta))
        inverse, _ = lapack.dpotri(L, lower=1)
        precision = np.diag(inverse)
        return np.asarray(0.5 * (np.log(precision / (2.0 * math.pi)) - alpha**2 / precision))

    def _pairs(self, theta: Array) -> Array:
        """Covariances of all pairs of points."""
        shrink = np.exp(-theta[LENGTHS])
        parts = matern(self.root * shrink[:, None]).mean(axis=0)
        whole = matern(np.sqrt(shrink**2 @ self.squared))
        return np.asarray(math.exp(theta[JOINT]) * whole + math.exp(theta[ADDITIVE]) * parts)

    def _solve(self, theta: Array, pairs: Array) -> tuple[Array, Array, float]:
        """Cholesky factor, weights of the data and log likelihood, from the covariances of the pairs."""
        K = np.zeros((len(self.y), len(self.y)))
        K[self.rows, self.columns] = pairs
        np.fill_diagonal(K, np.exp(theta[ADDITIVE:]).sum())
        L = cholesky(K)
        alpha, _ = lapack.dpotrs(L, self.y, lower=1)
        return L, alpha, -0.5 * float(self.y @ alpha) - float(np.log(np.diag(L)).sum())

    def fit(self, *, evaluations: int) -> Array:
        """Find the most probable hyperparameters, from the prior's mean downhill (L-BFGS-B)."""
        centre, width = self.prior.mean, 4.0 * self.prior.deviation
        bounds = list(zip(centre - width, centre + width, strict=True))
        found = minimize(self.loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": evaluations})
        return np.asarray(found.x)

    def draws(self, start: Array, count: int, *, thin: int, rng: np.random.Generator) -> Array:
        """Draw hyperparameters from their posterior by elliptical slice sampling.

        Murray, Adams and MacKay, "Elliptical slice sampling" (AISTATS 2010): it needs no step size
        because the prior is normal.
        """
        theta, level, found = start, self.likelihood(start), []
        for _ in range(count):
            for _ in range(thin):
                theta, level = self._slice(theta, level, rng)
            found.append(theta)
        return np.stack(found)

    def _slice(self, theta: Array, level: float, rng: np.random.Generator) -> tuple[Array, float]:
        mean = self.prior.mean
        other = self.prior.deviation * rng.standard_normal(len(theta))
        floor = level + math.log(rng.random())
        angle = rng.uniform(0.0, 2.0 * math.pi)
        low, high = angle - 2.0 * math.pi, angle
        while True:
            proposal = mean + (theta - mean) * math.cos(angle) + other * math.sin(angle)
            value = self.likelihood(proposal)
            if value > floor or high - low < 1e-9:
                return proposal, value
            low, high = (angle, high) if angle < 0.0 else (low, angle)
            angle = rng.uniform(low, high)


class Posterior:
    """Gaussian processes given data: several models, each with several versions of the outputs.

    Parameters
    ----------
    X : ndarray, shape (points, columns)
    Y : ndarray, shape (points, outputs) or (models, points, outputs)
        The outputs, such as fantasies.
    thetas : ndarray, shape (models, hyperparameters)
    group : ndarray of int, shape (columns,)
    exact : int
        So many of the last points are known without noise.
    """

    def __init__(self, X: Array, Y: Array, thetas: Array, group: NDArray[np.int_], exact: int = 0) -> None:
        self.kernel = Kernel(thetas)
        self.group = group
        self.points = X
        K = self.kernel.matrix(roots(X, X, group))
        noise = np.repeat(self.kernel.noise[:, None], len(X), axis=1)
        noise[:, len(X) - exact :] = EXACT * self.kernel.variance[:, None]
        for model in range(len(K)):
            K[model].flat[:: len(X) + 1] += noise[model]
        self.inverse = np.stack([lapack.dtrtri(cholesky(k), lower=1)[0] for k in K])
        self.alpha = self.inverse.transpose(0, 2, 1) @ (self.inverse @ Y)

    def predict(self, X: Array) -> tuple[Array, Array]:
        """Means, shape (models, len(X), outputs), and variances without the noise, shape (models, len(X))."""
        block = max(1, BLOCK // (len(self.points) * (int(self.group[-1]) + 1)))
        if len(X) > block:
            parts = [self.predict(X[start : start + block]) for start in range(0, len(X), block)]
            return np.concatenate([m for m, _ in parts], axis=1), np.concatenate([v for _, v in parts], axis=1)
        K = self.kernel.matrix(roots(X, self.points, self.group))
        return self._means(X, K), self._variances(K @ self.inverse.transpose(0, 2, 1))

    def joint(self, X: Array) -> tuple[Array, Array]:
        """Means, as `predict`, and covariances of ``X`` without the noise, shape (models, len(X), len(X))."""
        K = self.kernel.matrix(roots(X, self.points, self.group))
        V = K @ self.inverse.transpose(0, 2, 1)
        return self._means(X, K), self.kernel.matrix(roots(X, X, self.group)) - V @ V.transpose(0, 2, 1)

    def differentiate(self, X: Array) -> tuple[Array, Array, Callable[[Array, Array], Array]]:
        """Return what `predict` returns, and a function that makes gradients by ``X``.

        Its arguments are the derivatives of something by the means and by the variances, in
        their shapes; it returns the gradient of that by ``X``, summed over the models.
        """
        root = roots(X, self.points, self.group)
        K = self.kernel.matrix(root)
        V = K @ self.inverse.transpose(0, 2, 1)

        def pull(by_mean: Array, by_variance: Array) -> Array:
            weights = by_mean @ self.alpha.transpose(0, 2, 1) - 2.0 * by_variance[:, :, None] * (V @ self.inverse)
            parts = self.kernel.pull(root, weights)[self.group]
            return np.asarray(np.einsum("jab,bj->aj", parts, self.points) - parts.sum(axis=2).T * X)

        return self._means(X, K), self._variances(V), pull

    def _means(self, X: Array, K: Array) -> Array:  # noqa: ARG002 - for processes whose mean depends on the point
        """Means at ``X``, whose covariances with the points are ``K``."""
        return np.asarray(K @ self.alpha)

    def _variances(self, V: Array) -> Array:
        variance = self.kernel.variance[:, None]
        return np.asarray(np.maximum(variance - np.einsum("hab,hab->ha", V, V), 1e-12 * variance))
