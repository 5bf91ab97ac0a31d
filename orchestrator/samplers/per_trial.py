"""`PerTrial` makes any Optuna sampler safe to resume: each trial gets a sampler of its own, from its own seed.

It also keeps values random until enough trials are complete, which Optuna's own start-up does not: that
counts differently in every sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from orchestrator.samplers.seeding import enough_complete, fresh_seed, random_value, trial_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["PerTrial"]


class PerTrial(BaseSampler):
    """A sampler made anew for each trial, from (seed, trial number); random values at first.

    Parameters
    ----------
    make : callable
        Makes the inner sampler of a seed. It may keep what it needs in the study's storage only.
    seed : int, optional
        The study's seed.
    startup_trials : int
        Values are random until so many trials are complete.
    """

    def __init__(self, make: Callable[[int], BaseSampler], *, seed: int | None = None, startup_trials: int = 0) -> None:
        self.make = make
        self.seed = fresh_seed(seed)
        self.startup_trials = startup_trials

    def __str__(self) -> str:
        return str(self.make(0))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the inner sampler's space; nothing while values are random."""
        return self._inner(trial).infer_relative_search_space(study, trial) if self._started(study) else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the parameters that the inner sampler sees together."""
        return self._inner(trial).sample_relative(study, trial, search_space) if self._started(study) else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Value of one parameter; it depends on no other value that was drawn."""
        if not self._started(study):
            return random_value(study, trial, param_name, param_distribution, seed=self.seed)
        return self._inner(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to the inner sampler."""
        self._inner(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Pass on to the inner sampler."""
        self._inner(trial).after_trial(study, trial, state, values)

    def _inner(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        return self.make(trial_seed(self.seed, trial.number, name))

    def _started(self, study: Study) -> bool:
        return enough_complete(study, self.startup_trials)
