"""`SteadyNSGA2`: Optuna's NSGA-II without generations, for trials that end in any order.

Optuna counts generations by the trials that have ended, and picks the parents of a generation once,
at its first ask. With N trials in flight those that end after that belong to a generation whose turn is over:
N - 1 results of each are lost. Here the parents are the best of all trials that have ended by now (steady
state: Durillo et al., "A study of master-slave approaches to parallelize NSGA-II", IPDPS 2008), so that every result
counts at the next ask, and nothing but the history says what comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["SteadyNSGA2"]

_TRIES = 8


class SteadyNSGA2(NSGAIISampler):
    """Optuna's selection, crossover and mutation over the best ``population_size`` trials so far.

    Values are random until that many trials are complete. Trials that violate a constraint are worse than
    all that do not, and the worse the more they violate it.
    """

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:  # noqa: ARG002 - Optuna's signature
        """0 for a trial of the first, random population, 1 for a child."""
        assert self.population_size is not None
        return int(len(_complete(study)) >= self.population_size)

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:  # noqa: ARG002 - Optuna's signature
        """All complete trials."""
        return _complete(study)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The best of them, by front and by room around them on it."""
        return self.select_parent(study, generation) if generation else []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child that is not a copy of an earlier trial, as far as a few tries find one."""
        known = [seen.params for seen in study.get_trials(deepcopy=False) if seen.number != trial.number]
        child: dict[str, Any] = {}
        for _ in range(_TRIES):
            child = super().sample_relative(study, trial, search_space)
            if not child:
                break
            # What mutates is left out by Optuna, to be drawn anew.
            for name in sorted(search_space.keys() - child.keys()):
                child[name] = self.sample_independent(study, trial, name, search_space[name])
            if not any(_same(child, params) for params in known):
                break
        return child


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _same(child: dict[str, Any], params: dict[str, Any]) -> bool:
    return all(name in params and params[name] == value for name, value in child.items())
