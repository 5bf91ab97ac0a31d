"""Hyperparameters of a history, fitted once for all the trials that are asked for on it.

When several slots are free at once, each asks on the same ended trials, with one pending trial more. The fit
does not depend on pending trials, and its random numbers come from the study's seed and the history
alone, not from the trial: so it may be kept, and whether it was kept changes nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.samplers.gp import Evidence, Prior
from orchestrator.samplers.outcomes import Outcomes, warped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.samplers.encoding import Array, Encoding

__all__ = ["Fitted", "fit"]

# Longer histories lend at most so many of their trials to the fit of the hyperparameters.
FITTED = 100
# Fits that are kept; a study needs one.
KEPT = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learnt from a history.

    Attributes
    ----------
    y : ndarray, shape (points,)
        The standardised outcomes, as the Gaussian process sees them.
    thetas : ndarray, shape (models, hyperparameters)
        Of the values.
    failures : ndarray, shape (hyperparameters,), optional
        Of the failures; None where nothing failed.
    """

    y: Array
    thetas: Array
    failures: Array | None


_kept: OrderedDict[bytes, Fitted] = OrderedDict()
_keeping = threading.Lock()


def fit(X: Array, values: Array, encoding: Encoding, *, clip: float, models: int, seed: int) -> Fitted:
    """Fit hyperparameters, or find those of an earlier fit to the same history.

    Parameters
    ----------
    X, values : ndarray
        Points and their outcomes, infinite where the trial failed.
    clip : float
        Where the bad tail is cut, see `orchestrator.samplers.outcomes`.
    models : int
        Draws of the hyperparameters while the history is short.
    seed : int
        The study's seed.
    """
    options = f"{clip} {models} {seed} {encoding.choices} {X.shape}"
    key = hashlib.blake2b(options.encode() + X.tobytes() + values.tobytes(), digest_size=16).digest()
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    failed = np.isinf(values)
    rows = _lent(values, rng)
    y, top = _likeliest(X, warped(values, clip), encoding, rows, evaluations=40 if len(rows) == len(X) else 25)
    thetas = top[None, :]
    if len(rows) == len(X) and models > 1:
        thetas = Evidence(X, y, encoding.group, Prior.of(len(encoding))).draws(top, models, thin=3, rng=rng)
    failures = None
    if failed.any():
        labels = Outcomes(failed - failed.mean(), np.zeros(len(X)))
        failures = _likeliest(X, [labels], encoding, _lent(labels.y, rng), evaluations=25)[1]
    found = Fitted(y, thetas, failures)
    with _keeping:
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _lent(y: Array, rng: np.random.Generator) -> NDArray[np.int_]:
    """Rows that the fit looks at: all, or the best of a long history and some others."""
    if len(y) <= FITTED:
        return np.arange(len(y))
    best = np.argsort(y, kind="stable")[: FITTED // 3]
    return np.unique(np.concatenate([best, rng.permutation(len(y))[: FITTED // 2]]))


def _likeliest(
    X: Array, choices: list[Outcomes], encoding: Encoding, rows: NDArray[np.int_], *, evaluations: int
) -> tuple[Array, Array]:
    """Outcomes of the largest evidence, and their most probable hyperparameters."""
    prior = Prior.of(len(encoding))
    first = evaluations if len(choices) == 1 else evaluations // 3
    found = []
    for outcomes in choices:
        evidence = Evidence(X[rows], outcomes.y[rows], encoding.group, prior)
        theta, loss = evidence.fit(evaluations=first)
        found.append((loss - float(outcomes.stretch[rows].sum()) - outcomes.odds, outcomes, evidence, theta))
    _, outcomes, evidence, theta = min(found, key=lambda each: each[0])
    if len(choices) > 1:
        theta, _ = evidence.fit(evaluations=evaluations - first, start=theta)
    return outcomes.y, theta
