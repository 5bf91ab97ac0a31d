"""SMAC3 and BoTorch behind Optuna's interface, so that they meet the same problems in the same order as the others.

Both are told the whole history at each ask, in unit coordinates: numbers in [0, 1] on the scale of their distribution, choices
as choices. A failed trial is told the worst value seen. Neither package is needed by the product.
"""

from __future__ import annotations

import tempfile
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from orchestrator.samplers.conditions import Conditions
from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.history import History, known_space
from orchestrator.samplers.seeding import random_value, trial_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from orchestrator.samplers.encoding import Array, Mask

__all__ = ["BoTorchEngine", "SmacEngine"]


class _Told(BaseSampler):
    """Tells an engine the history and asks it for one point."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return every parameter that any trial ever had."""
        return known_space(study, trial, {})

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the engine."""
        encoding = Encoding(search_space)
        history = History(study, trial, encoding)
        known = np.isfinite(history.y)
        if not search_space or not known.any():
            return {}
        history.y[~known] = history.y[known].max()
        with warnings.catch_warnings():
            # They warn of what is normal here: few trials, equal values, fits that stop early.
            warnings.simplefilter("ignore")
            point = self._propose(encoding, history, trial_seed(self.seed, trial.number) % 2**31)
        return encoding.write(encoding.snap(point[None, :])[0])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that no trial had before."""
        return random_value(study, trial, param_name, param_distribution, seed=self.seed)

    def _propose(self, encoding: Encoding, history: History, seed: int) -> Array:
        raise NotImplementedError


class SmacEngine(_Told):
    """SMAC3's facade for hyperparameters as it comes: random forest, log EI, a fifth of the points at random.

    It is told of conditions between parameters, as far as the history shows them. Pending points are marked as running:
    they are not proposed again, and are not in its model.
    """

    def _propose(self, encoding: Encoding, history: History, seed: int) -> Array:
        smac, runhistory = import_module("smac"), import_module("smac.runhistory")
        space = self._space(encoding, history, seed)
        facade = smac.HyperparameterOptimizationFacade
        with tempfile.TemporaryDirectory(prefix="smac-") as folder:
            scenario = smac.Scenario(space, deterministic=True, n_trials=10**6, seed=seed, output_directory=folder)
            engine = facade(
                scenario,
                lambda config, seed=0: 0.0,  # noqa: ARG005 - it must be there, and is never called
                initial_design=facade.get_initial_design(scenario, n_configs=0, additional_configs=[]),
                logging_level=False,
                overwrite=True,
            )
            # Of a deterministic target function SMAC numbers all trials with seed 0.
            points = zip(history.Z, history.active, history.y, strict=True)
            for z, active, value in points:
                info = runhistory.TrialInfo(self._configuration(space, encoding, z, active), seed=0)
                engine.tell(info, runhistory.TrialValue(cost=float(value)), save=False)
            for z, active in zip(history.pending, history.pending_active, strict=True):
                engine.runhistory.add_running_trial(
                    runhistory.TrialInfo(self._configuration(space, encoding, z, active), seed=0)
                )
            asked = dict(engine.ask().config)
        return np.array([float(asked.get(name, 0.5)) for name in encoding.names])

    @staticmethod
    def _space(encoding: Encoding, history: History, seed: int) -> Any:
        package = import_module("ConfigSpace")
        space = package.ConfigurationSpace(seed=seed)
        parts = [
            package.CategoricalHyperparameter(name, list(range(count)))
            if count
            else package.UniformFloatHyperparameter(name, 0.0, 1.0)
            for name, count in zip(encoding.names, encoding.choices, strict=True)
        ]
        space.add(parts)
        for rule in Conditions(history.Z, history.active, encoding.choices).rules:
            child, parent = parts[rule.child], parts[rule.parent]
            if rule.allowed is not None:
                values = [int(index) for index in np.flatnonzero(rule.allowed)]
                space.add(package.InCondition(child, parent, values))
            elif rule.above:
                space.add(package.GreaterThanCondition(child, parent, rule.threshold))
            else:
                space.add(package.LessThanCondition(child, parent, rule.threshold))
        return space

    @staticmethod
    def _configuration(space: Any, encoding: Encoding, z: Array, active: Mask) -> Any:
        """Make the point of SMAC's space; a parameter that it holds for active and the trial lacks is in the middle."""
        package = import_module("ConfigSpace")
        values = {
            name: int(value) if count else float(np.clip(value, 0.0, 1.0))
            for name, count, value, on in zip(encoding.names, encoding.choices, z, active, strict=True)
            if on
        }
        defaults = dict(space.get_default_configuration())
        whole = {
            **{
                name: defaults.get(name, 0 if count else 0.5)
                for name, count in zip(encoding.names, encoding.choices, strict=True)
            },
            **values,
        }
        return package.util.deactivate_inactive_hyperparameters(whole, space)


class BoTorchEngine(_Told):
    """BoTorch's Gaussian process as it comes with qLogNEI over the pending points, choices one-hot and relaxed."""

    def _propose(self, encoding: Encoding, history: History, seed: int) -> Array:
        torch = import_module("torch")
        models, fit = import_module("botorch.models"), import_module("botorch.fit")
        acquisition = import_module("botorch.acquisition.logei")
        likelihoods = import_module("gpytorch.mlls")
        torch.manual_seed(seed)

        def tensor(Z: Array, active: Mask) -> Any:
            return torch.tensor(encoding.features(Z, active), dtype=torch.float64)

        X = tensor(history.Z, history.active)
        y = torch.tensor(-history.y[:, None], dtype=torch.float64)
        model = models.SingleTaskGP(X, y)
        fit.fit_gpytorch_mll(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
        criterion = acquisition.qLogNoisyExpectedImprovement(
            model, X, X_pending=tensor(history.pending, history.pending_active) if len(history.pending) else None
        )
        bounds = torch.zeros((2, X.shape[1]), dtype=torch.float64)
        bounds[1] = 1.0
        found, _ = import_module("botorch.optim").optimize_acqf(
            criterion, bounds=bounds, q=1, num_restarts=8, raw_samples=256
        )
        return self._point(encoding, found[0].numpy())

    @staticmethod
    def _point(encoding: Encoding, x: Array) -> Array:
        """Make a point of columns: of a choice's, the largest."""
        return np.array(
            [
                float(np.argmax(x[first : first + count])) if count else float(x[first])
                for first, count in zip(encoding.start, encoding.choices, strict=False)
            ]
        )
