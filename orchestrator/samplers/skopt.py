"""`SkoptSampler`: scikit-optimize's Gaussian process, told the whole history at each ask.

scikit-optimize has no notion of a pending trial, of a failed one or of a conditional parameter. So a
pending trial is told a lie (the mean of the values seen, unless asked otherwise), a failed one is told the worst
value seen, and a parameter that a trial lacks is put in the middle of its range.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from orchestrator.errors import UsageError
from orchestrator.samplers.encoding import Array, Encoding, Mask
from orchestrator.samplers.history import History, known_space
from orchestrator.samplers.seeding import enough_complete, fresh_seed, random_value, trial_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["LIES", "SkoptSampler"]

LIES: dict[str, Callable[[Array], Any]] = {"cl_min": np.min, "cl_mean": np.mean, "cl_max": np.max}


class SkoptSampler(BaseSampler):
    """scikit-optimize behind Optuna's interface.

    Parameters
    ----------
    seed : int, optional
        The study's seed.
    startup_trials : int
        Values are random until so many trials are complete.
    space : mapping of str to BaseDistribution, optional
        The whole space where it is known; else it is learnt from the trials seen.
    lie : {"cl_mean", "cl_min", "cl_max"}
        What a pending trial is said to have returned.
    base_estimator : {"GP", "RF", "ET"}
    acq_func : str
        As scikit-optimize's own option.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        startup_trials: int = 3,
        space: Mapping[str, BaseDistribution] | None = None,
        lie: str = "cl_mean",
        base_estimator: str = "GP",
        acq_func: str = "EI",
    ) -> None:
        if lie not in LIES:
            raise UsageError(f"sampler skopt: {lie!r} is no lie; choose one of {', '.join(LIES)}")
        self.seed = fresh_seed(seed)
        self.startup_trials = startup_trials
        self.space = dict(space or {})
        self.lie = lie
        self.base_estimator = base_estimator
        self.acq_func = acq_func

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space given, and every parameter that any trial ever had; nothing while values are random."""
        if len(study.directions) > 1:
            raise UsageError("the sampler 'skopt' searches for one objective, and this study has several")
        if not enough_complete(study, max(1, self.startup_trials)):
            return {}
        return known_space(study, trial, self.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask scikit-optimize for a point."""
        if not search_space:
            return {}
        encoding = Encoding(search_space)
        history = History(study, trial, encoding)
        seen = history.y[np.isfinite(history.y)]
        if not len(seen):
            return {}
        values = np.where(np.isfinite(history.y), history.y, seen.max())
        lies = np.full(len(history.pending), LIES[self.lie](values))
        points = self._points(encoding, history.Z, history.active)
        points += self._points(encoding, history.pending, history.pending_active)
        proposal = self._ask(encoding, points, [*values, *lies], trial_seed(self.seed, trial.number))
        return encoding.write(encoding.snap(np.array([proposal], dtype=float))[0])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a random value: during startup, and for a parameter that no trial had before."""
        return random_value(study, trial, param_name, param_distribution, seed=self.seed)

    @staticmethod
    def _points(encoding: Encoding, Z: Array, active: Mask) -> list[list[float]]:
        inside = np.clip(np.where(active, Z, np.where(np.array(encoding.choices) > 0, 0.0, 0.5)), 0.0, None)
        return [
            [
                int(value) if count else min(float(value), 1.0)
                for value, count in zip(row, encoding.choices, strict=True)
            ]
            for row in inside
        ]

    def _ask(self, encoding: Encoding, points: list[list[float]], values: list[float], seed: int) -> list[float]:
        with warnings.catch_warnings():
            # It warns of what is normal here: lies repeat values, grids repeat points, and its fits stop early.
            warnings.simplefilter("ignore")
            from skopt import Optimizer
            from skopt.space import Categorical, Real

            dimensions = [Categorical(range(count)) if count else Real(0.0, 1.0) for count in encoding.choices]
            optimizer = Optimizer(
                dimensions,
                base_estimator=self.base_estimator,
                n_initial_points=1,
                acq_func=self.acq_func,
                random_state=seed % 2**31,
            )
            optimizer.tell(points, [float(value) for value in values])
            return list(optimizer.ask())
