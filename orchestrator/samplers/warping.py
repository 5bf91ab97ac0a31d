"""Scales that outcomes may be seen on: as they are, or as logarithms of their distance to the best one.

Where outcomes span orders of magnitude, a Gaussian process that sees them as they are cannot tell the good ones apart;
where they are noisy or close together, logarithms blow up what means nothing. Which scale suits a history is
judged by its better half alone, where the search goes on: by how well each of its outcomes is foretold from all
the others (`orchestrator.samplers.gp.Evidence.left_out`). The evidence of all outcomes together
would mostly judge how the bad ones are foretold. Warped processes: Snelson, Rasmussen and Ghahramani, "Warped Gaussian
Processes" (NeurIPS 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.samplers.encoding import Array

__all__ = ["Scale", "scales"]

# Distances to the best outcome from where on they are seen as logarithms, in units of the median's distance.
BENDS = (0.5, 0.1)
# Shorter histories say too little.
SHORTEST = 8
# Log odds against logarithms before anything is seen.
DOUBT = 3.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Outcomes on one scale.

    Attributes
    ----------
    outputs : ndarray
        Of zero mean and unit deviation.
    log_slopes : ndarray
        Log derivative of each by the outcome that it was made of: densities on different scales become comparable.
    doubt : float
        Log odds against this scale beforehand.
    """

    outputs: Array
    log_slopes: Array
    doubt: float = 0.0

    def merit(self, log_densities: Array) -> float:
        """Log density of the better half of the outcomes, given one for each of them on this scale."""
        better = np.argsort(self.outputs, kind="stable")[: len(self.outputs) // 2]
        return float((log_densities + self.log_slopes)[better].sum()) - self.doubt

    def lent(self, rows: NDArray[np.int_]) -> Scale:
        """Keep only some of the outcomes."""
        return Scale(self.outputs[rows], self.log_slopes[rows], self.doubt)


def scales(y: Array) -> list[Scale]:
    """All the scales that standardised outcomes may be seen on; as they are comes first."""
    found = [Scale(y, np.zeros_like(y))]
    gap = float(np.median(y)) - float(y.min())
    if len(y) < SHORTEST or not gap > 0.0:
        return found
    for bend in BENDS:
        above = bend * gap + (y - y.min())
        logs = np.log(above)
        deviation = float(logs.std())
        found.append(Scale((logs - logs.mean()) / deviation, -logs - np.log(deviation), DOUBT))
    return found
