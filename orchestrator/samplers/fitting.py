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

if TYPE_CHECKING:
    from orchestrator.samplers.encoding import Array, Encoding, Mask

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
    thetas : ndarray, shape (models, hyperparameters)
        Of the values.
    failures : ndarray, shape (hyperparameters,), optional
        Of the failures; None where nothing failed.
    """

    thetas: Array
    failures: Array | None


_kept: OrderedDict[bytes, Fitted] = OrderedDict()
_keeping = threading.Lock()


def fit(X: Array, y: Array, failed: Mask, encoding: Encoding, *, models: int, seed: int) -> Fitted:
    """Fit hyperparameters, or find those of an earlier fit to the same history.

    Parameters
    ----------
    X, y : ndarray
        Points and their standardised outputs.
    failed : ndarray of bool
        Which of them failed.
    models : int
        Draws of the hyperparameters while the history is short.
    seed : int
        The study's seed.
    """
    parts = [X, y, failed, encoding.group, np.array([models, seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(str(part.shape).encode() + part.tobytes())
    key = digest.digest()
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    found = Fitted(
        _hyperparameters(X, y, encoding, models, rng),
        _hyperparameters(X, failed - failed.mean(), encoding, 1, rng)[0] if failed.any() else None,
    )
    with _keeping:
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _hyperparameters(X: Array, y: Array, encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """One most probable vector, or several draws; long histories are fitted on a part, where one vector is enough."""
    if len(y) > FITTED:
        rows = np.concatenate([np.argsort(y, kind="stable")[: FITTED // 3], rng.permutation(len(y))[: FITTED // 2]])
        rows = np.unique(rows)
        X, y, count = X[rows], y[rows], 1
    evidence = Evidence(X, y, encoding.group, Prior.of(len(encoding)))
    top = evidence.fit(evaluations=40 if count > 1 else 25)
    return top[None, :] if count == 1 else evidence.draws(top, count, thin=4, rng=rng)
