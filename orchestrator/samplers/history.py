"""What a sampler that models the objective reads of a study: the space, the ended trials, the pending ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

    from orchestrator.samplers.encoding import Encoding

__all__ = ["RETRY_OF", "History", "known_space"]

# The user attribute of a trial that was asked for in place of a failed one: that one's number.
RETRY_OF = "retry_of"


def known_space(study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """``space`` and every parameter that another trial had, as the latest such trial had it.

    Optuna uses of a proposal what the program asks for, so conditional parameters may all be
    proposed. Parameters with one value need no sampler and are left out.
    """
    known = dict(space)
    for seen in reversed(study.get_trials(deepcopy=False)):
        if seen.number != trial.number:
            for name, distribution in seen.distributions.items():
                known.setdefault(name, distribution)
    return {name: known[name] for name in sorted(known) if not known[name].single()}


class History:
    """Trials other than ``trial`` as arrays; a failed trial that another was asked for in place of is none of them.

    Attributes
    ----------
    Z, active : ndarray, shape (ended, parameters)
        Coordinates of ended trials and which parameters each has, see `Encoding`.
    y : ndarray, shape (ended,)
        Values, the lower the better whatever the study's direction; nan where the trial failed or violates a
        constraint. A pruned trial counts as no better than the median of the complete ones.
    pending, pending_active : ndarray, shape (running, parameters)
    taken : ndarray, shape (points, parameters)
        Coordinates of all of them, also of those that `thin` leaves out.
    """

    def __init__(self, study: Study, trial: FrozenTrial, encoding: Encoding) -> None:
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        trials = study.get_trials(deepcopy=False)
        # Such a failure was the machine's and not the configuration's, or so its user thought.
        again = {seen.user_attrs.get(RETRY_OF) for seen in trials}
        others = [seen for seen in trials if seen.number != trial.number and seen.number not in again and seen.params]
        ended = [seen for seen in others if seen.state.is_finished()]
        pending = [seen for seen in others if seen.state is TrialState.RUNNING]
        self.Z, self.active = encoding.read([seen.params for seen in ended])
        self.pending, self.pending_active = encoding.read([seen.params for seen in pending])
        self.taken = np.concatenate([self.Z, self.pending])
        self.y = np.array([math.nan if seen.value is None else sign * seen.value for seen in ended])
        violated = np.array([any(amount > 0.0 for amount in seen.constraints.values()) for seen in ended], dtype=bool)
        self.y[~np.isfinite(self.y) | violated] = math.nan
        pruned = np.array([seen.state is TrialState.PRUNED for seen in ended], dtype=bool) & ~violated
        complete = self.y[~pruned & np.isfinite(self.y)]
        if len(complete):
            self.y[pruned] = np.fmax(self.y[pruned], np.median(complete))

    def thin(self, cap: int) -> None:
        """Keep at most ``cap`` ended trials: the best half, and an even spread of the others in time; and half as many pending."""
        if len(self.pending) > cap // 2:
            kept = np.linspace(0, len(self.pending) - 1, cap // 2).astype(int)
            self.pending, self.pending_active = self.pending[kept], self.pending_active[kept]
        if len(self.y) <= cap:
            return
        order = np.argsort(np.where(np.isfinite(self.y), self.y, np.inf), kind="stable")
        best, rest = order[: cap // 2], np.sort(order[cap // 2 :])
        spread = rest[np.linspace(0, len(rest) - 1, cap - cap // 2).astype(int)]
        kept = np.sort(np.concatenate([best, spread]))
        self.Z, self.active, self.y = self.Z[kept], self.active[kept], self.y[kept]
