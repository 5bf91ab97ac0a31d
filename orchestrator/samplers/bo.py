"""`BOSampler`: asynchronous Bayesian optimisation for mixed and conditional spaces.

It asks what trials are complete, failed and running, fits a Gaussian process to them, imagines the
outcomes of the running ones and returns the point of largest expected improvement. It keeps nothing between
asks: all is made again from the history, so that a resumed study goes on as if never interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from orchestrator.errors import UsageError
from orchestrator.samplers.acquisition import Feasibility, LogEI
from orchestrator.samplers.candidates import maximise
from orchestrator.samplers.conditions import Conditions
from orchestrator.samplers.encoding import Array, Encoding
from orchestrator.samplers.gp import Evidence, Prior
from orchestrator.samplers.history import History, known_space
from orchestrator.samplers.seeding import enough_complete, fresh_seed, random_value, trial_generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["BOSampler"]

# Longer histories lend at most so many of their trials to the fit of the hyperparameters.
FITTED = 100


class BOSampler(BaseSampler):
    """Gaussian-process search that counts pending and failed trials, usable in any Optuna study.

    Parameters
    ----------
    seed : int, optional
        The study's seed. What a trial gets depends on the seed, the trial's number and the history alone.
    startup_trials : int
        Values are random until so many trials are complete.
    space : mapping of str to BaseDistribution, optional
        The whole space where it is known; else it is learnt from the trials seen.
    models : int
        Draws of the Gaussian process's hyperparameters that are averaged while the history is short.
    fantasies : int
        Draws of the pending outcomes, for each model.
    clip : float
        Outcomes worse than the median by more than ``clip`` times (median - best) are moved to that level.
    pool : int
        Candidates that are scored before the best are refined.
    cap : int
        Trials the Gaussian process uses at most: the best half of them and an even spread of the rest.

    Notes
    -----
    Failed trials (state FAIL, or a value that is not finite) lower the probability of success around
    them. A pruned trial counts as no better than the median. Multi-objective studies are refused.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        startup_trials: int = 3,
        space: Mapping[str, BaseDistribution] | None = None,
        models: int = 4,
        fantasies: int = 4,
        clip: float = 2.0,
        pool: int = 600,
        cap: int = 300,
    ) -> None:
        self.seed = fresh_seed(seed)
        self.startup_trials = startup_trials
        self.space = dict(space or {})
        self.models = models
        self.fantasies = fantasies
        self.clip = clip
        self.pool = pool
        self.cap = cap

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space given, and every parameter that any trial ever had; nothing while values are random."""
        if len(study.directions) > 1:
            raise UsageError(
                "the sampler 'bo' searches for one objective, and this study has several",
                hint="name one objective, or choose tpe, random, qmc or grid",
            )
        if not enough_complete(study, max(1, self.startup_trials)):
            return {}
        return known_space(study, trial, self.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Find the point of largest expected improvement."""
        if not search_space:
            return {}
        encoding = Encoding(search_space)
        history = History(study, trial, encoding)
        if not np.isfinite(history.y).any():
            return {}
        rng = trial_generator(self.seed, trial.number)
        history.thin(self.cap)
        return encoding.write(self._propose(encoding, history, rng))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a random value: during startup, and for a parameter that no trial had before."""
        return random_value(study, trial, param_name, param_distribution, seed=self.seed)

    def _propose(self, encoding: Encoding, history: History, rng: np.random.Generator) -> Array:
        conditions = Conditions(history.Z, history.active, encoding.choices)
        X = encoding.features(history.Z, history.active)
        failed = ~np.isfinite(history.y)
        y = standardised(np.where(failed, np.inf, history.y), self.clip)
        thetas = _hyperparameters(X, y, encoding, self.models, rng)
        feasibility = None
        if failed.any():
            labels = _hyperparameters(X, failed - failed.mean(), encoding, 1, rng)[0]
            feasibility = Feasibility(X, failed, labels, encoding.group)
        pending = encoding.features(history.pending, history.pending_active)
        surface = LogEI(
            X, y, pending, thetas, encoding.group, fantasies=self.fantasies, rng=rng, feasibility=feasibility
        )
        return maximise(
            surface,
            encoding,
            conditions,
            encoding.snap(history.Z[np.argsort(y, kind="stable")[:5]]),
            [*history.Z, *history.pending],
            pool=self.pool,
            starts=4,
            ascents=15,
            rng=rng,
        )


def standardised(y: Sequence[float] | Array, clip: float) -> Array:
    """Zero mean, unit deviation, after the bad tail was cut (infinite values, of failed trials, to the cut).

    How bad a bad trial was teaches little about where the best ones are, and would flatten them.
    """
    y = np.asarray(y, dtype=float)
    y = y / max(1.0, float(np.abs(y[np.isfinite(y)]).max()))  # squares of enormous values overflow
    seen = y[np.isfinite(y)]
    median, best = float(np.median(seen)), float(seen.min())
    level = median + clip * (median - best) if median > best else float(seen.max())
    y = np.minimum(y, level)
    deviation = float(y.std())
    return (y - y.mean()) / deviation if deviation > 1e-12 * max(1.0, abs(median)) else np.zeros_like(y)


def _hyperparameters(X: Array, y: Array, encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """One most probable vector, or several draws; long histories are fitted on a part, where one vector is enough."""
    if len(y) > FITTED:
        rows = np.concatenate([np.argsort(y, kind="stable")[: FITTED // 3], rng.permutation(len(y))[: FITTED // 2]])
        rows = np.unique(rows)
        X, y, count = X[rows], y[rows], 1
    evidence = Evidence(X, y, encoding.group, Prior.of(len(encoding)))
    top = evidence.fit(evaluations=40 if count > 1 else 25)
    return top[None, :] if count == 1 else evidence.draws(top, count, thin=4, rng=rng)
