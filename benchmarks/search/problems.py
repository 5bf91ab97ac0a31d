"""Problems that search engines are compared on: objectives over define-by-run spaces, all to be minimised.

Four families: classical functions, a surface like a training's (nine mixed parameters, a fifth of
the configurations diverge), a surface like an architecture's (seventeen conditional parameters), and real
trainings (`tunings`). Formulas of the classical functions: Surjanovic and Bingham, *Virtual Library of Simulation
Experiments*, https://www.sfu.ca/~ssurjano/optimization.html. The two surfaces are ours; their lowest value is 0 by
construction.

``DEVELOPMENT`` is for trying ideas, ``REPORT`` for numbers that are published: its functions are others,
or the same with the optimum elsewhere, so that an engine tuned on the first is found out on the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from optuna.trial import BaseTrial
from tunings import mlp_wine, svc_cancer, svr_diabetes

__all__ = ["ALL", "DEVELOPMENT", "REPORT", "SMALL", "Problem"]

Objective = Callable[[BaseTrial], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One objective.

    Attributes
    ----------
    family : str
        ``classical``, ``training``, ``architecture`` or ``real``.
    objective : callable
        Suggests its parameters and returns the noise-free value; nan where the trial fails.
    best : float
        The lowest value.
    noise : float
        Standard deviation of what an observation adds to the value.
    """

    name: str
    family: str
    objective: Objective
    best: float = 0.0
    noise: float = 0.0


def _vector(trial: BaseTrial, dimension: int, low: float, high: float) -> np.ndarray:
    return np.array([trial.suggest_float(f"x{i}", low, high) for i in range(dimension)])


def branin(trial: BaseTrial) -> float:
    x, y = trial.suggest_float("x", -5.0, 10.0), trial.suggest_float("y", 0.0, 15.0)
    bowl = y - 5.1 / (4.0 * math.pi**2) * x * x + 5.0 / math.pi * x - 6.0
    return bowl * bowl + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * math.cos(x) + 10.0


HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(trial: BaseTrial) -> float:
    x = _vector(trial, 6, 0.0, 1.0)
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(HARTMANN_A * (x - HARTMANN_P) ** 2).sum(axis=1)))


def ackley(dimension: int, shift: float) -> Objective:
    def objective(trial: BaseTrial) -> float:
        x = _vector(trial, dimension, -10.0, 15.0) - shift
        root = math.sqrt(float((x * x).mean()))
        return -20.0 * math.exp(-0.2 * root) - math.exp(float(np.cos(2.0 * math.pi * x).mean())) + 20.0 + math.e

    return objective


def levy(dimension: int, shift: float) -> Objective:
    def objective(trial: BaseTrial) -> float:
        w = 1.0 + (_vector(trial, dimension, -10.0, 10.0) - shift - 1.0) / 4.0
        inner = (w[:-1] - 1.0) ** 2 * (1.0 + 10.0 * np.sin(math.pi * w[:-1] + 1.0) ** 2)
        last = (w[-1] - 1.0) ** 2 * (1.0 + math.sin(2.0 * math.pi * w[-1]) ** 2)
        return float(math.sin(math.pi * w[0]) ** 2 + inner.sum() + last)

    return objective


def rosenbrock(dimension: int, shift: float) -> Objective:
    def objective(trial: BaseTrial) -> float:
        x = _vector(trial, dimension, -5.0, 10.0) - shift
        return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())

    return objective


def styblinski_tang(dimension: int) -> Objective:
    def objective(trial: BaseTrial) -> float:
        x = _vector(trial, dimension, -5.0, 5.0)
        return float(0.5 * (x**4 - 16.0 * x**2 + 5.0 * x).mean() + 39.16616570377142)

    return objective


def griewank(trial: BaseTrial) -> float:
    x = _vector(trial, 5, -50.0, 70.0)
    return float((x * x).sum() / 4000.0 - np.cos(x / np.sqrt(np.arange(1, 6))).prod() + 1.0)


def dixon_price(dimension: int, low: float, high: float) -> Objective:
    def objective(trial: BaseTrial) -> float:
        x = _vector(trial, dimension, low, high)
        return float((x[0] - 1.0) ** 2 + (np.arange(2, dimension + 1) * (2.0 * x[1:] ** 2 - x[:-1]) ** 2).sum())

    return objective


def ellipsoid(trial: BaseTrial) -> float:
    """Turned so that no axis is a parameter's; one is more than three hundred times as steep as another."""
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    x = axes @ (_vector(trial, 5, -5.0, 5.0) - rng.uniform(-2.0, 2.0, 5))
    return float(10.0 ** np.linspace(0.0, 2.5, 5) @ (x * x))


def michalewicz(trial: BaseTrial) -> float:
    x = _vector(trial, 4, 0.0, math.pi)
    return -float((np.sin(x) * np.sin(np.arange(1, 5) * x * x / math.pi) ** 20).sum())


def training(lr: float, depth: float, dropout: float) -> Objective:
    """Make a surface like that of a network's training; the best learning rate depends on optimiser and batch."""

    def objective(trial: BaseTrial) -> float:
        rate = math.log10(trial.suggest_float("learning_rate", 1e-5, 1.0, log=True))
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam", "rmsprop"])
        batch = math.log2(trial.suggest_int("batch_size", 4, 128, log=True))
        decay = math.log10(trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True))
        layers = trial.suggest_int("layers", 1, 8)
        width = math.log2(trial.suggest_int("width", 8, 256, step=8))
        drop = trial.suggest_float("dropout", 0.0, 0.6, step=0.05)
        momentum = trial.suggest_float("momentum", 0.5, 0.99)
        flip = trial.suggest_categorical("flip", [False, True])

        offset = {"sgd": 1.2, "adam": 0.0, "rmsprop": -0.3}[optimizer]
        sharpness = -math.log10(1.0 - momentum) if optimizer == "sgd" else 0.5
        ideal = lr + offset + 0.12 * (batch - 5.0) - 0.5 * (sharpness - 1.0)
        if rate > ideal + 1.25 - 0.08 * (layers - 3):
            return math.nan
        low = max(0.0, ideal - rate)
        loss = 0.09 * low**1.6 + 0.25 * max(0.0, rate - ideal) ** 2
        loss += 0.012 * (layers - depth) ** 2 + 0.02 * (width - 6.0 - 0.25 * (depth - layers)) ** 2
        loss += 0.9 * (drop - dropout - 0.05 * (width - 6.0)) ** 2 + 0.01 * (decay + 4.0 + 2.0 * drop) ** 2
        loss += {"sgd": 0.0, "adam": 0.02, "rmsprop": 0.05}[optimizer] + (0.0 if flip else 0.04)
        return float(loss / (1.0 + 0.8 * loss) + 0.01 * math.sin(3.0 * low) ** 2)

    return objective


def architecture(blocks: int, rate: float, kind: str) -> Objective:
    """Make a surface over a conditional space of seventeen parameters; a configuration has eight to thirteen of them."""

    def objective(trial: BaseTrial) -> float:
        count = trial.suggest_int("blocks", 1, 4)
        loss = 0.10 * abs(count - blocks)
        for i in range(count):
            width = math.log2(trial.suggest_int(f"width{i}", 8, 128, log=True))
            size = trial.suggest_categorical(f"kernel{i}", [1, 3, 5, 7])
            loss += 0.025 * (width - 4.5 - 0.5 * i) ** 2 / blocks + {1: 0.12, 3: 0.0, 5: 0.02, 7: 0.06}[size] / blocks
        lr = math.log10(trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True))
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
            momentum = trial.suggest_float("momentum", 0.0, 0.99)
            nesterov = trial.suggest_categorical("nesterov", [False, True])
            loss += (
                0.07 * (lr - rate - 1.0 + momentum) ** 2 + 0.1 * (momentum - 0.9) ** 2 + (0.03 if nesterov else 0.04)
            )
        else:
            beta = trial.suggest_float("beta", 0.5, 0.999)
            loss += 0.09 * (lr - rate) ** 2 + 0.4 * (beta - 0.9) ** 2
        regulariser = trial.suggest_categorical("regulariser", ["none", "l2", "dropout"])
        loss += 0.0 if regulariser == kind else 0.08
        if regulariser == "l2":
            loss += 0.02 * (math.log10(trial.suggest_float("strength", 1e-7, 1e-1, log=True)) + 4.0) ** 2
        elif regulariser == "dropout":
            loss += 0.6 * (trial.suggest_float("rate", 0.0, 0.7) - 0.25) ** 2
        return loss / (1.0 + 0.5 * loss)

    return objective


def _index(*problems: Problem) -> dict[str, Problem]:
    return {problem.name: problem for problem in problems}


DEVELOPMENT = _index(
    Problem(name="branin", family="classical", objective=branin, best=0.39788735772973816),
    Problem(name="hartmann6", family="classical", objective=hartmann6, best=-3.32236801141551),
    Problem(name="ackley5", family="classical", objective=ackley(5, 0.0)),
    Problem(name="levy6", family="classical", objective=levy(6, 0.0)),
    Problem(name="rosenbrock4", family="classical", objective=rosenbrock(4, 0.0)),
    Problem(name="levy5", family="classical", objective=levy(5, 1.3)),
    Problem(name="rosenbrock5", family="classical", objective=rosenbrock(5, -0.6)),
    Problem(name="dixon4", family="classical", objective=dixon_price(4, -6.0, 8.0)),
    Problem(name="ellipsoid5", family="classical", objective=ellipsoid),
    Problem(name="styblinski5", family="classical", objective=styblinski_tang(5)),
    Problem(name="training9", family="training", objective=training(-3.0, 4.0, 0.25), noise=0.01),
    Problem(name="architecture17", family="architecture", objective=architecture(3, -3.0, "dropout"), noise=0.01),
    Problem(name="svc_cancer", family="real", objective=svc_cancer, best=0.0158),
)
REPORT = _index(
    Problem(name="ackley8", family="classical", objective=ackley(8, 1.7)),
    Problem(name="levy4", family="classical", objective=levy(4, -2.3)),
    Problem(name="rosenbrock6", family="classical", objective=rosenbrock(6, 0.8)),
    Problem(name="griewank5", family="classical", objective=griewank),
    Problem(name="dixon5", family="classical", objective=dixon_price(5, -10.0, 10.0)),
    Problem(name="michalewicz4", family="classical", objective=michalewicz, best=-3.698857),
    Problem(name="training9b", family="training", objective=training(-2.4, 2.0, 0.1), noise=0.02),
    Problem(name="architecture17b", family="architecture", objective=architecture(2, -2.5, "l2"), noise=0.02),
    Problem(name="svr_diabetes", family="real", objective=svr_diabetes, best=0.477),
    Problem(name="mlp_wine", family="real", objective=mlp_wine, best=0.03),
)
ALL = DEVELOPMENT | REPORT
SMALL = {name: DEVELOPMENT[name] for name in ("branin", "hartmann6", "training9", "architecture17")}
