"""`Within`: any sampler held to conditions between the parameters.

A whole point is drawn before the trial gets any of its values: what breaks a condition is drawn again with
another seed, and after a few tries a random point that meets all conditions is taken. So no trial, and no job, is
ever spent on a point that the study rules out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

from orchestrator.errors import UsageError
from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.seeding import fresh_seed, trial_generator, trial_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["MOST_DRAWN", "Asked", "Within", "random_points"]

MOST_DRAWN = 20_000
"""Random points among which one that meets the conditions must be."""
_AT_ONCE = 256


class Within(BaseSampler):
    """A sampler whose points all meet conditions.

    Parameters
    ----------
    make : callable
        Makes the inner sampler of a seed; only its own seed tells one draw from the next.
    seed : int, optional
        The study's seed. What a trial gets depends on it, on the trial's number and on the history alone; where the
        first draw meets the conditions it is what the inner sampler gives without them.
    space : mapping of str to BaseDistribution
        The whole space.
    walk : callable
        Asks for the parameters one by one (`Asked`), parents first, and returns all that are active.
    admits : callable
        Whether a point meets the conditions; what it has of parameters that are not active does not matter.
    draws : int
        How often the inner sampler is asked before a random point is taken.
    """

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        *,
        seed: int | None = None,
        space: Mapping[str, BaseDistribution],
        walk: Callable[[Asked], Mapping[str, Any]],
        admits: Callable[[Mapping[str, Any]], bool],
        draws: int = 8,
    ) -> None:
        self.make = make
        self.seed = fresh_seed(seed)
        self.space = dict(space)
        self.walk = walk
        self.admits = admits
        self.draws = draws

    def __str__(self) -> str:
        return f"{self.make(self.seed)} within conditions"

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002 - Optuna's signature
        """Return the whole space: all values are chosen together."""
        return self.space

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - Optuna's signature
    ) -> dict[str, Any]:
        """Draw a point that meets the conditions.

        Raises
        ------
        UsageError
            If there is none, as far as can be seen.
        """
        fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
        for draw in range(self.draws):
            seed = trial_seed(self.seed, draw, "again") if draw else self.seed
            asked = Asked(self.make(seed), study, trial, fixed)
            if self.admits(self.walk(asked)):
                return asked.params
        # First points of the trial's own, then those in which the study was seen to have some that do.
        for rng in (trial_generator(self.seed, trial.number), np.random.default_rng(self.seed)):
            for point in random_points(self.space, rng):
                point.update(fixed)
                if self.admits(point):
                    return point
        raise UsageError(
            f"trial {trial.number}: of {2 * MOST_DRAWN} random points none meets the conditions between the parameters"
            + (f", given {fixed}" if fixed else ""),
            hint="see `where` in study.yaml",
        )

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Value of a parameter that the space does not have."""
        return self.make(self.seed).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to the inner sampler."""
        self.make(self.seed).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Pass on to the inner sampler."""
        self.make(self.seed).after_trial(study, trial, state, values)


class Asked:
    """Stands for the trial while its point is drawn: answers as Optuna's does, and writes nothing.

    Attributes
    ----------
    params : dict
        What was asked for and answered.
    """

    def __init__(self, sampler: BaseSampler, study: Study, trial: FrozenTrial, fixed: Mapping[str, Any]) -> None:
        self.params: dict[str, Any] = {}
        self._sampler = sampler
        self._study = study
        self._fixed = fixed
        self._trial = copy.copy(trial)
        self._trial.params, self._trial.distributions = {}, {}
        self._space = sampler.infer_relative_search_space(study, trial)
        self._together = sampler.sample_relative(study, trial, self._space)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number."""
        return float(self._value(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""
        return int(self._value(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return self._value(name, CategoricalDistribution(choices))

    def _value(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            self.params[name] = self._drawn(name, distribution)
            self._trial.params = {**self._trial.params, name: self.params[name]}
            self._trial.distributions = {**self._trial.distributions, name: distribution}
        return self.params[name]

    def _drawn(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._fixed:
            return self._fixed[name]
        if distribution.single():
            return _single_value(distribution)
        if name in self._together and self._space.get(name) == distribution:
            return self._together[name]
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


def random_points(
    space: Mapping[str, BaseDistribution], rng: np.random.Generator, most: int = MOST_DRAWN
) -> Iterator[dict[str, Any]]:
    """Points of a space, evenly drawn; all parameters have a value, be they active or not."""
    searched = {name: distribution for name, distribution in space.items() if not distribution.single()}
    single = {name: distribution for name, distribution in space.items() if distribution.single()}
    encoding = Encoding(searched)
    alone = {name: _single_value(distribution) for name, distribution in single.items()}
    for start in range(0, most, _AT_ONCE):
        for row in encoding.draw(rng.random((min(_AT_ONCE, most - start), len(encoding)))):
            yield {**encoding.write(row), **alone}


def _single_value(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low
