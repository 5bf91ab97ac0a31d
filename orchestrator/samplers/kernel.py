"""The covariance of two points: what they share as a whole, plus what they share parameter by parameter.

Matern-5/2 with automatic relevance determination (Rasmussen and Williams, *Gaussian Processes for
Machine Learning*, 2006, eq. 4.17), plus the mean of one-dimensional Matern-5/2 kernels (the first order of
Duvenaud, Nickisch and Rasmussen, "Additive Gaussian Processes", NeurIPS 2011). The objectives of
tunings are largely sums of effects of single parameters; the second part learns such effects from far
fewer points, and the first part keeps the interactions. Both parts use the same length scales.

Hyperparameters are one vector ``theta``: the logarithms of a length scale per parameter, then of the variances
of the additive part, of the noise and of the joint part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.samplers.encoding import Array

__all__ = ["ADDITIVE", "JOINT", "LENGTHS", "NOISE", "Kernel", "matern", "roots", "slope"]

LENGTHS, ADDITIVE, NOISE, JOINT = slice(None, -3), -3, -2, -1
ROOT5 = math.sqrt(5.0)


def matern(r: Array) -> Array:
    """Matern-5/2 correlation at ``r``, the root of 5 times the scaled distance."""
    fall = np.exp(-r)
    value = r / 3.0
    value += 1.0
    value *= r
    value += 1.0
    value *= fall
    return np.asarray(value, dtype=float)


def slope(r: Array) -> Array:
    """Minus the derivative of `matern` by the distance, over the distance."""
    return np.asarray(5.0 / 3.0 * (1.0 + r) * np.exp(-r), dtype=float)


def roots(A: Array, B: Array, group: NDArray[np.int_]) -> Array:
    """Distances of the rows of ``A`` to those of ``B``, parameter by parameter and times the root of 5.

    Parameters
    ----------
    group : ndarray of int, shape (columns,)
        Parameter of each column; the columns of one parameter count together.

    Returns
    -------
    ndarray, shape (parameters, len(A), len(B))
    """
    found = np.zeros((int(group[-1]) + 1, len(A), len(B)))
    alone = np.bincount(group) == 1
    for column, parameter in enumerate(group):
        difference = A[:, column, None] - B[None, :, column]
        if alone[parameter]:
            found[parameter] = np.abs(difference)
        else:
            found[parameter] += difference * difference
    found[~alone] = np.sqrt(found[~alone])
    return found * ROOT5


class Kernel:
    """Covariances at several vectors of hyperparameters at once.

    Parameters
    ----------
    thetas : ndarray, shape (models, hyperparameters)
        Laid out as the module says.
    """

    def __init__(self, thetas: Array) -> None:
        self.shrink = np.exp(-thetas[:, LENGTHS])
        self.joint = np.exp(thetas[:, JOINT])
        self.additive = np.exp(thetas[:, ADDITIVE]) / self.shrink.shape[1]
        self.noise = np.exp(thetas[:, NOISE])
        self.variance = self.joint + np.exp(thetas[:, ADDITIVE])

    def matrix(self, root: Array) -> Array:
        """Covariances at the distances of `roots`, shape (models, A, B)."""
        flat = root.reshape(len(root), -1)
        whole = self.joint[:, None] * matern(np.sqrt(self.shrink**2 @ (flat * flat)))
        for model, shrink in enumerate(self.shrink):
            whole[model] += self.additive[model] * matern(flat * shrink[:, None]).sum(axis=0)
        return whole.reshape(-1, *root.shape[1:])

    def pull(self, root: Array, weights: Array) -> Array:
        """Return the derivatives of ``(weights * matrix(root)).sum()`` that make its gradient.

        Returns
        -------
        ndarray, shape (parameters, A, B)
            The gradient by a row ``a`` of ``A`` is, in the columns of a parameter, the sum over ``b`` of these
            times ``b - a``.
        """
        flat = root.reshape(len(root), -1)
        weights = weights.reshape(len(weights), -1)
        whole = weights * self.joint[:, None] * slope(np.sqrt(self.shrink**2 @ (flat * flat)))
        found = (self.shrink**2).T @ whole
        for model, shrink in enumerate(self.shrink):
            found += self.additive[model] * shrink[:, None] ** 2 * weights[model] * slope(flat * shrink[:, None])
        return found.reshape(root.shape)
