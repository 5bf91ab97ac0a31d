"""What the Gaussian process sees of the outcomes: their bad tail cut, perhaps warped, standardised.

How bad a bad trial was teaches little about where the best ones are, and would flatten them. Where outcomes span orders of
magnitude even the good half is flattened by the less good, and a logarithm of the distance to the best shows what there
is to gain. Which of them a Gaussian process explains best is asked of the data: the evidence of each, with the
derivative of the warping, as in Snelson, Rasmussen and Ghahramani, "Warped Gaussian Processes" (NIPS 2003).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from orchestrator.samplers.encoding import Array, Mask

__all__ = ["Outcomes", "standardised", "warped"]

# A warping must be so much likelier, in logarithms, than outcomes as they are: a short history is easily explained.
CAUTION = 3.0
# Offsets of the logarithm, in units of (median - best): the smaller, the more the best are spread out.
OFFSETS = (1.0, 0.1)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One way to see the outcomes.

    Attributes
    ----------
    y : ndarray
        Standardised outputs.
    stretch : ndarray
        Of each the logarithm of how much it was stretched there, for comparing evidences.
    odds : float
        What is thought of this way beforehand: a logarithm, to be added to its evidence.
    """

    y: Array
    stretch: Array
    odds: float = 0.0


def standardised(y: Sequence[float] | Array, clip: float) -> Array:
    """Zero mean, unit deviation, after the bad tail was cut (infinite values, of failed trials, to the cut)."""
    return warped(y, clip)[0].y


def warped(y: Sequence[float] | Array, clip: float) -> list[Outcomes]:
    """Outputs as they are and in logarithms, after the bad tail was cut at median + ``clip`` (median - best).

    All of them are in the same order. Only the first comes where half of the outcomes are the best.
    """
    y = np.asarray(y, dtype=float)
    y = y / max(1.0, float(np.abs(y[np.isfinite(y)]).max()))  # squares of enormous values overflow
    seen = y[np.isfinite(y)]
    median, best = float(np.median(seen)), float(seen.min())
    tiny = 1e-12 * max(1.0, abs(median))
    if median - best <= tiny:
        cut = np.minimum(y, float(seen.max()))
        deviation = float(cut.std())
        flat = np.zeros_like(cut)
        return [Outcomes((cut - cut.mean()) / deviation if deviation > tiny else flat, flat)]
    above = np.minimum((y - best) / (median - best), 1.0 + clip)
    free = above < 1.0 + clip
    found = [_scaled(above, free, np.zeros_like(above), 0.0)]
    for offset in OFFSETS:
        logs = np.log(above + offset)
        found.append(_scaled(logs, free, -logs, -CAUTION))
    return found


def _scaled(values: Array, free: Mask, stretch: Array, odds: float) -> Outcomes:
    """Standardise; what was cut, or failed, has no place of its own that could be stretched."""
    deviation = float(values.std())
    return Outcomes((values - values.mean()) / deviation, np.where(free, stretch - math.log(deviation), 0.0), odds)
