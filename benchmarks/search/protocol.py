"""One search in virtual time: N asynchronous workers, an engine that is asked the moment one is free.

Durations are lognormal (sigma 0.6). Values are random until three trials are complete. Durations, noise
and these first configurations depend on the seed and the trial's index alone, so that all engines meet the same
luck. An engine is any function that makes an Optuna sampler of a seed.
"""

from __future__ import annotations

import heapq
import math
import os
import sys
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from problems import ALL, Problem

from orchestrator.samplers.seeding import enough_complete, random_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from optuna.distributions import BaseDistribution

__all__ = ["SIGMA", "Paired", "luck", "one_thread", "scale", "search"]

WARM_UP = 3
SIGMA = 0.6


def one_thread() -> None:
    """Start the script again with BLAS held to one thread, as on a login node: numpy reads that when it is imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        os.environ.update(dict.fromkeys(names, "1"))
        os.execv(sys.executable, [sys.executable, *sys.argv])


class Paired(BaseSampler):
    """Random values until three trials are complete, the same for every engine; then the engine.

    Attributes
    ----------
    cpu : float
        Seconds of CPU that the engine took.
    """

    def __init__(self, engine: BaseSampler, seed: int) -> None:
        self.engine = engine
        self.seed = seed
        self.cpu = 0.0

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the engine's space, or none yet."""
        if not enough_complete(study, WARM_UP):
            return {}
        with self._counted():
            return self.engine.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the engine's values, or none yet."""
        if not enough_complete(study, WARM_UP):
            return {}
        with self._counted():
            return self.engine.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the engine's value, or a random one."""
        if not enough_complete(study, WARM_UP):
            return random_value(study, trial, param_name, param_distribution, seed=self.seed)
        with self._counted():
            return self.engine.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Pass on to the engine."""
        with self._counted():
            self.engine.after_trial(study, trial, state, values)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu += time.process_time() - began


def search(
    problem: Problem, engine: Callable[[int], BaseSampler], *, seed: int, workers: int, trials: int = 50
) -> Mapping[str, Any]:
    """Search once.

    Returns
    -------
    mapping
        ``regret``: of the incumbent at the end, chosen on observed values and judged without noise, as a
        fraction of the median random configuration's; ``curve``: the same after every ended trial;
        ``cpu``: seconds of CPU per ask; ``failed``: how many trials diverged.
    """
    sampler = Paired(engine(seed), seed)
    study = optuna.create_study(sampler=sampler)
    running: list[tuple[float, int, optuna.Trial, float]] = []
    now, asked, failed = 0.0, 0, 0
    best_seen, incumbent = math.inf, math.nan
    curve: list[float] = []
    best, median = problem.best, scale(problem.name)
    while asked < trials or running:
        while asked < trials and len(running) < workers:
            trial = study.ask()
            value = problem.objective(trial)
            duration = math.exp(SIGMA * luck(seed, asked)[0])
            heapq.heappush(running, (now + duration, asked, trial, value))
            asked += 1
        now, index, trial, value = heapq.heappop(running)
        observed = value + problem.noise * luck(seed, index)[1]
        if math.isnan(value):
            failed += 1
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, observed)
            if observed < best_seen:
                best_seen, incumbent = observed, value
        curve.append((incumbent - best) / (median - best))
    return {"regret": curve[-1], "curve": curve, "cpu": sampler.cpu / trials, "failed": failed}


def luck(seed: int, index: int) -> tuple[float, float]:
    """Standard normal numbers of a trial: for its duration and for its noise."""
    first, second = np.random.default_rng([20, seed, index]).standard_normal(2)
    return float(first), float(second)


@cache
def scale(name: str) -> float:
    """Median value of random configurations that do not diverge."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    draws = 200 if ALL[name].family == "real" else 1000
    values = np.array([ALL[name].objective(study.ask()) for _ in range(draws)])
    return float(np.nanmedian(values))
