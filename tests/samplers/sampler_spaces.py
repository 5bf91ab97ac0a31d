"""Spaces, objectives and histories that the samplers' tests share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, TrialState, create_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.samplers import BaseSampler

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "drop": FloatDistribution(0.0, 0.6, step=0.1),
    "layers": IntDistribution(1, 5),
    "width": IntDistribution(8, 256, log=True),
    "batch": IntDistribution(4, 32, step=4),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "momentum": FloatDistribution(0.5, 0.99),
    "constant": FloatDistribution(2.0, 2.0),
}


def mixed(trial: BaseTrial) -> float:
    """Suggest from SPACE, where momentum is of sgd alone; the value is smallest at rate 1e-3, 3 layers, sgd."""
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    drop = trial.suggest_float("drop", 0.0, 0.6, step=0.1)
    layers = trial.suggest_int("layers", 1, 5)
    width = trial.suggest_int("width", 8, 256, log=True)
    batch = trial.suggest_int("batch", 4, 32, step=4)
    trial.suggest_float("constant", 2.0, 2.0)
    loss = (math.log10(rate) + 3.0) ** 2 + (drop - 0.3) ** 2 + 0.2 * (layers - 3) ** 2
    loss += 0.1 * (math.log2(width) - 6.0) ** 2 + 0.01 * abs(batch - 16)
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        return loss + (trial.suggest_float("momentum", 0.5, 0.99) - 0.9) ** 2
    return loss + 0.5


def branin(trial: BaseTrial) -> float:
    x, y = trial.suggest_float("x", -5.0, 10.0), trial.suggest_float("y", 0.0, 15.0)
    bowl = y - 5.1 / (4.0 * math.pi**2) * x * x + 5.0 / math.pi * x - 6.0
    return bowl * bowl + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * math.cos(x) + 10.0


def valid(params: dict[str, Any]) -> bool:
    """Whether every value is one that its distribution allows, steps included, and momentum is of sgd alone."""
    for name, value in params.items():
        distribution = SPACE[name]
        if not distribution._contains(distribution.to_internal_repr(value)):
            return False
    return bool(("momentum" in params) == (params["optimizer"] == "sgd"))


def run(
    study: optuna.Study, objective: Callable[[BaseTrial], float], trials: int, *, pending: int = 0
) -> list[dict[str, Any]]:
    """Ask ``trials`` trials with ``pending`` others always running; those last ones are left running."""
    running: list[tuple[optuna.Trial, float]] = []
    asked = []
    for _ in range(trials):
        trial = study.ask()
        value = objective(trial)
        asked.append(dict(trial.params))
        running.append((trial, value))
        if len(running) > pending:
            oldest, result = running.pop(0)
            if math.isnan(result):
                study.tell(oldest, state=TrialState.FAIL)
            else:
                study.tell(oldest, result)
    return asked


def quiet_study(sampler: BaseSampler, **options: Any) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler, **options)


def line(study: optuna.Study, points: list[tuple[float, float | None]], *, low: float = 0.0, high: float = 1.0) -> None:
    """Add ended trials of one parameter ``x``; None is a failure."""
    for x, value in points:
        study.add_trial(
            create_trial(
                params={"x": x},
                distributions={"x": FloatDistribution(low, high)},
                value=value,
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            )
        )
