"""Real trainings as problems: small scikit-learn models, tuned by cross-validation on data that scikit-learn ships.

Every random number in them is fixed, so a configuration has one value. Their lowest values are not known: the numbers in
`problems` are a little below the best that searches of 80 to 300 trials by four engines found.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from optuna.trial import BaseTrial

__all__ = ["mlp_wine", "svc_cancer", "svr_diabetes"]


@cache
def _data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardised inputs, and targets: numbers of unit variance, or labels."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, (y - y.mean()) / y.std() if y.dtype.kind == "f" else y


def _score(model: Any, data: str, scoring: str, folds: int = 3) -> float:
    """Mean loss over the folds."""
    from sklearn.model_selection import KFold, cross_val_score

    with warnings.catch_warnings():
        # Poor configurations do not converge; that is a result, not a fault.
        warnings.simplefilter("ignore")
        shuffled = KFold(folds, shuffle=True, random_state=0)
        return -float(cross_val_score(model, *_data(data), scoring=scoring, cv=shuffled).mean())


def _kernel(trial: BaseTrial) -> dict[str, Any]:
    """Parameters of a support vector machine's kernel; which there are depends on its kind."""
    kernel = trial.suggest_categorical("kernel", ["linear", "rbf", "poly", "sigmoid"])
    found: dict[str, Any] = {"kernel": kernel, "C": trial.suggest_float("C", 1e-3, 1e3, log=True)}
    if kernel != "linear":
        found["gamma"] = trial.suggest_float("gamma", 1e-5, 1e1, log=True)
    if kernel == "poly":
        found["degree"] = trial.suggest_int("degree", 2, 4)
    if kernel in {"poly", "sigmoid"}:
        found["coef0"] = trial.suggest_float("coef0", 0.0, 2.0)
    return found


def svc_cancer(trial: BaseTrial) -> float:
    """Share of wrong answers of a support vector classifier: it moves in steps of one case."""
    from sklearn.svm import SVC

    weight = trial.suggest_categorical("class_weight", ["none", "balanced"])
    model = SVC(**_kernel(trial), class_weight=None if weight == "none" else weight, max_iter=2000)
    return 1.0 + _score(model, "breast_cancer", "accuracy")


def svr_diabetes(trial: BaseTrial) -> float:
    """Squared error of a support vector regression; the worst are cut at three times the variance of the target."""
    from sklearn.svm import SVR

    model = SVR(**_kernel(trial), epsilon=trial.suggest_float("epsilon", 1e-3, 1.0, log=True), max_iter=2000)
    return min(3.0, _score(model, "diabetes", "neg_mean_squared_error"))


def mlp_wine(trial: BaseTrial) -> float:
    """Cross entropy of a small network after a few epochs."""
    from sklearn.neural_network import MLPClassifier

    layers = trial.suggest_int("layers", 1, 2)
    model = MLPClassifier(
        hidden_layer_sizes=[trial.suggest_int(f"width{i}", 2, 64, log=True) for i in range(layers)],
        activation=trial.suggest_categorical("activation", ["relu", "tanh", "logistic"]),
        alpha=trial.suggest_float("alpha", 1e-6, 1e1, log=True),
        batch_size=trial.suggest_int("batch_size", 8, 64, step=8),
        learning_rate_init=trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        beta_1=trial.suggest_float("beta_1", 0.5, 0.99),
        max_iter=trial.suggest_int("epochs", 2, 20),
        random_state=0,
    )
    return min(3.0, _score(model, "wine", "neg_log_loss"))
