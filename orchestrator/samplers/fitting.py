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
from orchestrator.samplers.warping import scales

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
    outputs : ndarray, shape (points,)
        The values on the scale that they are best seen on.
    failures : ndarray, shape (hyperparameters,), optional
        Of the failures; None where nothing failed.
    """

    thetas: Array
    outputs: Array
    failures: Array | None


_kept: OrderedDict[bytes, Fitted] = OrderedDict()
_keeping = threading.Lock()


def fit(
    X: Array, y: Array, failed: Mask, encoding: Encoding, *, models: int, seed: int, rescale: bool = False
) -> Fitted:
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
    rescale : bool
        Look for the scale that the outputs are best seen on, too.
    """
    numbers = np.array([models, rescale, seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    digest = hashlib.blake2b(digest_size=16)
    for part in [X, y, failed, encoding.group, numbers]:
        digest.update(str(part.shape).encode() + part.tobytes())
    key = digest.digest()
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    thetas, outputs = _hyperparameters(X, y, encoding, models, rng, rescale=rescale)
    failures = None
    if failed.any():
        failures = _hyperparameters(X, failed - failed.mean(), encoding, 1, rng, rescale=False)[0][0]
    found = Fitted(thetas, outputs, failures)
    with _keeping:
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _hyperparameters(
    X: Array, y: Array, encoding: Encoding, count: int, rng: np.random.Generator, *, rescale: bool
) -> tuple[Array, Array]:
    """One most probable vector, or several draws, and the outputs on the best of their scales.

    Long histories are fitted on a part, where one vector is enough.
    """
    rows = np.arange(len(y))
    if len(y) > FITTED:
        rows = np.concatenate([np.argsort(y, kind="stable")[: FITTED // 3], rng.permutation(len(y))[: FITTED // 2]])
        rows, count = np.unique(rows), 1
    fitted = []
    for scale in scales(y) if rescale else scales(y)[:1]:
        part = scale.lent(rows)
        evidence = Evidence(X[rows], part.outputs, encoding.group, Prior.of(len(encoding)))
        top = evidence.fit(evaluations=25)
        fitted.append((part.merit(evidence.left_out(top)) if rescale else 0.0, scale.outputs, evidence, top))
    _, outputs, evidence, top = max(fitted, key=lambda each: each[0])
    return (top[None, :] if count == 1 else evidence.draws(top, count, thin=4, rng=rng)), outputs
