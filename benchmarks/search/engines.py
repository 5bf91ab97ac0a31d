"""The engines that are compared, each as a function that makes an Optuna sampler of a seed.

An engine is what its users get: ``tpe`` is Optuna's ``TPESampler()`` as it comes, ``tpe4`` the same as it came with
Optuna 4. An engine whose package is missing is left out, and the command says so.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from foreign import BoTorchEngine, SmacEngine
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from protocol import WARM_UP

from orchestrator.samplers import make_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BASELINE", "ENGINES", "missing"]

BASELINE = "tpe"


def _ours(name: str, **options: Any) -> Callable[[int], BaseSampler]:
    return lambda seed: make_sampler(name, seed=seed, startup_trials=WARM_UP, options=options)


def _gp(seed: int) -> BaseSampler:
    # Its own start-up is shortened to the protocol's, which can only help it.
    return GPSampler(seed=seed, n_startup_trials=WARM_UP, warn_independent_sampling=False)


def _cmaes(seed: int) -> BaseSampler:
    return CmaEsSampler(seed=seed, n_startup_trials=WARM_UP, warn_independent_sampling=False)


def _tpe4(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=False, constant_liar=False)


ENGINES: Mapping[str, Callable[[int], BaseSampler]] = {
    "bo": _ours("bo"),
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe4": _tpe4,
    "gp": _gp,
    "cmaes": _cmaes,
    "skopt": _ours("skopt"),
    "smac": SmacEngine,
    "botorch": BoTorchEngine,
    "random": lambda seed: RandomSampler(seed=seed),
}
# Modules that an engine needs, and what to install for them.
NEEDS: Mapping[str, Mapping[str, str]] = {
    "gp": {"torch": "torch"},
    "cmaes": {"cmaes": "cmaes"},
    "skopt": {"skopt": "scikit-optimize"},
    "smac": {"smac": "smac"},
    "botorch": {"botorch": "botorch"},
}


def missing(name: str) -> list[str]:
    """What must be installed before the engine can take part, in pip's words."""
    return [package for module, package in NEEDS.get(name, {}).items() if importlib.util.find_spec(module) is None]
