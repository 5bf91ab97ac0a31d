"""Which conditional parameters a point has, learnt from the points seen so far.

A define-by-run space never says that ``momentum`` exists only where ``optimizer`` is ``sgd``; the
history shows it. For each parameter that some points lack, a parent is looked for whose value
separates the points that have it from those that lack it: a set of choices, or a threshold of a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from orchestrator.samplers.encoding import Array, Mask

__all__ = ["Conditions"]


@dataclass(frozen=True, slots=True)
class _Rule:
    child: int
    parent: int
    allowed: Mask | None  # by choice, for a categorical parent
    threshold: float = 0.0
    above: bool = True

    def holds(self, values: Array) -> Mask:
        if self.allowed is not None:
            return np.asarray(self.allowed[np.clip(values, 0, len(self.allowed) - 1).astype(int)])
        return np.asarray((values > self.threshold) == self.above)


class Conditions:
    """Rules of activity, inferred from a history.

    Parameters
    ----------
    Z, active : ndarray, shape (points, parameters)
        Coordinates of the history, and which parameters each point has.
    choices : list of int
        Number of choices of each parameter, 0 for numbers.

    Notes
    -----
    A parameter for which no single parent explains the history counts as always active: its value
    is then chosen with the others and is simply not used where the program does not ask for it.
    """

    def __init__(self, Z: Array, active: Mask, choices: list[int]) -> None:
        self.rules = [
            rule
            for child in np.flatnonzero(~active.all(axis=0) & active.any(axis=0))
            if (rule := _explain(int(child), Z, active, choices)) is not None
        ]

    def active(self, Z: Array) -> Mask:
        """Which parameters the points ``Z`` have, shape (points, parameters)."""
        active = np.ones(Z.shape, dtype=bool)
        for _ in self.rules:  # a chain of conditions is at most as long as there are rules
            before = active.copy()
            for rule in self.rules:
                active[:, rule.child] = active[:, rule.parent] & rule.holds(Z[:, rule.parent])
            if (before == active).all():
                break
        return active


def _explain(child: int, Z: Array, active: Mask, choices: list[int]) -> _Rule | None:
    has = active[:, child]
    # Choices explain better than numbers, and few choices better than many: with a short history a
    # threshold on some number separates the points by accident.
    order = sorted(range(Z.shape[1]), key=lambda parent: (choices[parent] == 0, choices[parent]))
    for parent in order:
        known = active[:, parent]
        if parent == child or (has & ~known).any():
            continue
        with_child, without = Z[known & has, parent], Z[known & ~has, parent]
        if not len(with_child) or not len(without):
            continue
        if choices[parent]:
            if not np.intersect1d(with_child, without).size:
                allowed = np.ones(choices[parent], dtype=bool)
                allowed[without.astype(int)] = False
                return _Rule(child, parent, allowed)
        elif with_child.min() > without.max():
            return _Rule(child, parent, None, (with_child.min() + without.max()) / 2, above=True)
        elif with_child.max() < without.min():
            return _Rule(child, parent, None, (with_child.max() + without.min()) / 2, above=False)
    return None
