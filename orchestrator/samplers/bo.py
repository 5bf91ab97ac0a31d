"""`BOSampler`: asynchronous Bayesian optimisation for mixed and conditional spaces.

It asks what trials are complete, failed and running, fits a Gaussian process to them, imagines the
outcomes of the running ones and returns the point of largest expected improvement. It keeps nothing between
asks: all is made again from the history, so that a resumed study goes on as if never interrupted.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from orchestrator.errors import UsageError
from orchestrator.samplers.acquisition import Feasibility, LogEI
from orchestrator.samplers.candidates import maximise
from orchestrator.samplers.conditions import Conditions
from orchestrator.samplers.encoding import Array, Encoding, Mask
from orchestrator.samplers.fitting import Fitted, fit
from orchestrator.samplers.gp import Posterior
from orchestrator.samplers.history import History, known_space
from orchestrator.samplers.seeding import enough_complete, fresh_seed, random_value, trial_generator
from orchestrator.samplers.sobol import SobolSampler
from orchestrator.samplers.transfer import Shifted, Source, Transfer, alone, opens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["BOSampler"]


class BOSampler(BaseSampler):
    """Gaussian-process search that counts pending and failed trials, usable in any Optuna study.

    Parameters
    ----------
    seed : int, optional
        The study's seed. What a trial gets depends on the seed, the trial's number and the history alone.
    startup_trials : int
        Values are random until so many trials are complete.
    startup : {"random", "sobol"}
        Until then they are independent draws, or points of a Sobol sequence, which are evenly spread.
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
    local : float
        Share of the trials that are looked for near the best one so far, in a box of half-width ``reach`` in the unit cube.
    reach : float
    admits : callable, optional
        Whether a point meets conditions between parameters: others are not looked at. Points are then to be
        drawn by `orchestrator.samplers.within.Within`, which sees to random ones too.
    source : Source, optional
        Earlier trials that may be like these: see `orchestrator.samplers.transfer`.
    cap : int
        Trials the Gaussian process uses at most, the best half of them and an even spread of the rest; and half as many
        pending ones. What an ask costs stops growing there, but for reading the history.

    Notes
    -----
    Failed trials (state FAIL, or a value that is not finite) lower the probability of success around
    them, and so do trials that violate a constraint (Optuna's `set_constraint`, above zero). A pruned trial counts as
    no better than the median. Trials that the user queued (`enqueue_trial`) are kept as they are, and are in view
    from the moment they run. Noise is estimated. Studies of several objectives are refused.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        startup_trials: int = 3,
        startup: str = "random",
        space: Mapping[str, BaseDistribution] | None = None,
        models: int = 4,
        fantasies: int = 4,
        clip: float = 2.0,
        pool: int = 600,
        local: float = 0.5,
        reach: float = 0.15,
        cap: int = 300,
        admits: Callable[[Mapping[str, Any]], bool] | None = None,
        source: Source | None = None,
    ) -> None:
        self.admits = admits
        self.source = source
        self.seed = fresh_seed(seed)
        self.startup_trials = startup_trials
        if startup not in {"random", "sobol"}:
            raise UsageError(f"sampler bo: startup is 'random' or 'sobol', not {startup!r}")
        self.sobol = SobolSampler(seed=self.seed, space=space) if startup == "sobol" else None
        self.space = dict(space or {})
        self.models = _number("models", models, 1, whole=True)
        self.fantasies = _number("fantasies", fantasies, 1, whole=True)
        self.clip = _number("clip", clip, 0.0)
        self.pool = _number("pool", pool, 10, whole=True)
        self.local = _number("local", local, 0.0, 1.0)
        self.reach = _number("reach", reach, 0.0, 1.0)
        self.cap = _number("cap", cap, 10, whole=True)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space given, and every parameter that any trial ever had; nothing while values are random."""
        if len(study.directions) > 1:
            raise UsageError(
                "the sampler 'bo' searches for one objective, and this study has several",
                hint="name one objective, or choose nsga2, tpe, gp, random, qmc or grid",
            )
        opening = self.source is not None and opens(study, trial)
        if not opening and not enough_complete(study, max(1, self.startup_trials)):
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
        rng = trial_generator(self.seed, trial.number)
        transfer = None
        if self.source is not None:
            sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
            transfer = Transfer(self.source, encoding, self._standardise, sign=sign, seed=self.seed)
            if not enough_complete(study, max(1, self.startup_trials)):
                rank = trial.number // 2
                found = transfer.best(rank + 1, rng, self._admitted(encoding))
                return encoding.write(found[rank]) if rank < len(found) else {}
            if alone(trial.number):
                transfer = None
        if not np.isfinite(history.y).any():
            return {}
        history.thin(self.cap)
        # Evenly spread over the trial numbers: with a half, every other one.
        local = math.floor((trial.number + 1) * self.local) > math.floor(trial.number * self.local)
        return encoding.write(self._propose(encoding, history, rng, self.reach if local else math.inf, transfer))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a random value: during startup, and for a parameter that no trial had before."""
        if self.sobol is not None and not enough_complete(study, max(1, self.startup_trials)):
            return self.sobol.sample_independent(study, trial, param_name, param_distribution)
        return random_value(study, trial, param_name, param_distribution, seed=self.seed)

    def _propose(
        self, encoding: Encoding, history: History, rng: np.random.Generator, reach: float, transfer: Transfer | None
    ) -> Array:
        conditions = Conditions(history.Z, history.active, encoding.choices)
        X = encoding.features(history.Z, history.active)
        failed = ~np.isfinite(history.y)
        y = self._standardise(np.where(failed, np.inf, history.y))

        def fitted_to(outputs: Array, *, rescale: bool = False) -> Fitted:
            return fit(X, outputs, failed, encoding, models=self.models, seed=self.seed, rescale=rescale)

        mean = None
        if transfer is not None:
            fitted, mean = transfer.learn(X, y, ~failed, encoding.group, fitted_to)
        if mean is None:
            fitted = fitted_to(y, rescale=True)
            y = fitted.outputs
        feasibility = None
        if fitted.failures is not None:
            feasibility = Feasibility(X, failed, fitted.failures, encoding.group)
        pending = encoding.features(history.pending, history.pending_active)
        surface = LogEI(
            X,
            y,
            pending,
            fitted.thetas,
            encoding.group,
            fantasies=self.fantasies,
            rng=rng,
            feasibility=feasibility,
            process=Posterior if mean is None else functools.partial(Shifted, mean),
        )
        elite = encoding.snap(history.Z[np.argsort(y, kind="stable")[:5]])
        if transfer is not None and mean is not None:
            elite = np.concatenate([elite, transfer.best(3, rng)])
        return maximise(
            surface,
            encoding,
            conditions,
            elite,
            history.taken,
            pool=self.pool,
            starts=4,
            ascents=15,
            rng=rng,
            reach=reach,
            admitted=self._admitted(encoding),
        )

    def _admitted(self, encoding: Encoding) -> Callable[[Array], Mask] | None:
        admits = self.admits
        if admits is None:
            return None
        return lambda Z: np.array([admits(encoding.write(z)) for z in Z], dtype=bool)

    def _standardise(self, values: Array) -> Array:
        return standardised(values, self.clip)


def _number(name: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False) -> Any:
    """Return an option's value if it is a number of its range."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        range_ = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
        raise UsageError(f"sampler bo: {name} is {kind} {range_}, not {value!r}")
    return value


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
