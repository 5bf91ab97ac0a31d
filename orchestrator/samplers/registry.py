"""Samplers by name: `make_sampler`, the options of each, and what must be installed for it."""

from __future__ import annotations

import difflib
import importlib.util
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from orchestrator.samplers.transfer import Source

__all__ = ["FITTED", "MODEL_BASED", "NAMES", "OPTIONS", "SEVERAL", "make_sampler"]

OPTIONS: Mapping[str, frozenset[str]] = {
    "bo": frozenset({"startup", "models", "fantasies", "clip", "pool", "local", "reach", "cap"}),
    "random": frozenset(),
    "grid": frozenset(),
    "qmc": frozenset(),
    "tpe": frozenset({"multivariate", "group", "constant_liar", "n_ei_candidates"}),
    "cmaes": frozenset({"popsize", "use_separable_cma", "with_margin", "lr_adapt", "consider_pruned_trials"}),
    "gp": frozenset({"deterministic_objective"}),
    "nsga2": frozenset({"population_size", "mutation_prob", "crossover_prob", "swapping_prob"}),
    "skopt": frozenset({"lie", "base_estimator", "acq_func"}),
}
NAMES = tuple(OPTIONS)
MODEL_BASED = frozenset({"bo", "tpe", "cmaes", "gp", "skopt"})
FITTED = frozenset({"bo", "gp", "skopt"})
"""Those whose proposal costs a fit and hardly depends on the seed."""
SEVERAL = ("nsga2", "tpe", "gp", "random", "qmc", "grid")
"""Those that search for several objectives at once."""

# Optuna's own 50 would be the whole budget of many a study.
_POPULATION = 20

# Import name and extra of what does not come with the package itself.
NEEDS = {"cmaes": ("cmaes", "cmaes"), "gp": ("torch", "gp"), "skopt": ("skopt", "skopt")}


def make_sampler(
    name: str,
    *,
    seed: int,
    startup_trials: int = 3,
    options: Mapping[str, Any] | None = None,
    space: Mapping[str, BaseDistribution] | None = None,
    grid: Sequence[Mapping[str, Any]] | None = None,
    objectives: int = 1,
    admits: Callable[[Mapping[str, Any]], bool] | None = None,
    source: Source | None = None,
) -> BaseSampler:
    """Make a sampler.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    seed : int
        The study's seed. What a trial gets depends on it, on the trial's number and on the history alone, whether the
        sampler is made once or anew for each ask.
    startup_trials : int
        Of the samplers in `MODEL_BASED`: values are random until so many trials are complete.
    options : mapping
        The sampler's own options, see `OPTIONS`.
    space : mapping of str to BaseDistribution, optional
        The whole space, where it is known before the first trial.
    grid : sequence of mapping, optional
        The points of ``grid``.
    objectives : int
        How many the study has.
    admits : callable, optional
        Whether a point meets conditions between parameters; ``bo`` looks among such points alone, the others do not
        look at all: see `orchestrator.samplers.within.Within`.
    source : Source, optional
        Earlier trials, see `orchestrator.samplers.transfer`; ``bo`` weighs them, the others do not look at them.

    Raises
    ------
    UsageError
        If there is no such sampler or option, the sampler's package is not installed, or it searches for one
        objective and there are several.
    """
    options = dict(options or {})
    if name not in OPTIONS:
        raise UsageError(f"there is no sampler {name!r}", hint=_suggestion(name, NAMES))
    for option in options:
        if option not in OPTIONS[name]:
            hint = _suggestion(option, sorted(OPTIONS[name])) if OPTIONS[name] else "it has no options"
            raise UsageError(f"sampler {name} has no option {option!r}", hint=hint)
    if objectives > 1 and name not in SEVERAL:
        raise UsageError(
            f"the sampler {name!r} searches for one objective, and this study has {objectives}",
            hint=f"name one objective, or choose one of: {', '.join(SEVERAL)}",
        )
    if name in NEEDS and importlib.util.find_spec(NEEDS[name][0]) is None:
        package, extra = NEEDS[name]
        raise UsageError(
            f"sampler {name} needs the package {package!r}, which is not installed",
            hint=f"pip install 'survey-orchestrator[{extra}]'",
        )
    if name == "bo":
        from orchestrator.samplers.bo import BOSampler

        return BOSampler(seed=seed, startup_trials=startup_trials, space=space, admits=admits, source=source, **options)
    if name == "skopt":
        from orchestrator.samplers.skopt import SkoptSampler

        return SkoptSampler(seed=seed, startup_trials=startup_trials, space=space, **options)
    if name == "qmc":
        from orchestrator.samplers.sobol import SobolSampler

        return SobolSampler(seed=seed, space=space)
    if name == "grid":
        from orchestrator.samplers.grid import GridSampler

        if grid is None:
            raise UsageError("sampler grid needs the points of the grid")
        return GridSampler(grid)
    return _of_optuna(name, seed, startup_trials, options)


def _of_optuna(name: str, seed: int, startup_trials: int, options: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler

    from orchestrator.samplers.per_trial import PerTrial

    def make(inner: int) -> BaseSampler:
        if name == "tpe":
            return TPESampler(seed=inner, n_startup_trials=startup_trials, **options)
        if name == "cmaes":
            return CmaEsSampler(seed=inner, n_startup_trials=startup_trials, warn_independent_sampling=False, **options)
        if name == "nsga2":
            from orchestrator.samplers.nsga2 import SteadyNSGA2

            return SteadyNSGA2(seed=inner, **{"population_size": _POPULATION, **options})
        if name == "gp":
            return GPSampler(seed=inner, n_startup_trials=startup_trials, warn_independent_sampling=False, **options)
        return RandomSampler(seed=inner)

    return PerTrial(make, seed=seed, startup_trials=startup_trials if name in MODEL_BASED else 0)


def _suggestion(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"
