"""Handwritten digits: a small multilayer perceptron on real images, in a second, without TensorFlow.

The 1797 images of 8 x 8 pixels are scikit-learn's (Alpaydin and Kaynak, UCI repository, 1998). It is
for tutorials and for trying a site: everything a trial does, at no cost.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.errors import WorkloadError
from workloads.evaluation.classification import Classified, Shown, intervals, summarise, write_artifacts
from workloads.parameters import Parameter, resolve
from workloads.training.checkpoint import Checkpoints, State
from workloads.training.setup import peak_memory, prepare, versions

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "run"]

SUMMARY = "handwritten digits: a perceptron on scikit-learn's images, accuracy (no TensorFlow)"

PARAMETERS = (
    Parameter(name="learning_rate", default=0.01, low=1e-4, high=1.0, log=True, meaning="of every step"),
    Parameter(name="hidden_units", default=32, low=2, high=128, log=True, meaning="units of the one hidden layer"),
    Parameter(name="alpha", default=1e-4, low=1e-6, high=10.0, log=True, meaning="L2 penalty"),
    Parameter(name="batch_size", default=32, low=8, high=256, log=True, meaning="images of one step"),
    Parameter(name="activation", default="relu", choices=("relu", "tanh", "logistic"), meaning="of the hidden layer"),
    Parameter(name="solver", default="sgd", choices=("sgd", "adam"), meaning="optimiser"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train on two thirds of the images and report the accuracy on the others, epoch by epoch.

    Ahead of the walltime the state is saved and the program asks for another attempt (exit code 85).

    Raises
    ------
    WorkloadError
        If a parameter does not fit, or scikit-learn is not installed.
    """
    params = resolve(PARAMETERS, given)
    if options.epochs < 1:
        raise WorkloadError("--epochs must be at least 1")
    prepare(options.threads)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier
    except ModuleNotFoundError:
        raise WorkloadError(
            "scikit-learn is not installed", hint="pip install 'survey-orchestrator[workloads-cpu]'"
        ) from None
    seed = next(value for value in (options.seed, trial.seed(), 0) if value is not None) % 2**32
    images, digits = load_digits(return_X_y=True)
    # The split never changes with the seed: trials are compared on the same images.
    numbers = np.arange(len(digits))
    split = train_test_split(images / 16.0, digits, numbers, test_size=1 / 3, random_state=0, stratify=digits)
    train_images, validation_images, train_digits, validation_digits, _, validated = split
    model = MLPClassifier(
        hidden_layer_sizes=(params["hidden_units"],),
        activation=params["activation"],
        solver=params["solver"],
        alpha=params["alpha"],
        batch_size=params["batch_size"],
        learning_rate_init=params["learning_rate"],
        random_state=seed,
    )
    checkpoints = Checkpoints({"params": params, "epochs": options.epochs, "seed": seed})
    started = time.monotonic()
    accuracy, done, diverged = 0.0, 0, False
    if (known := checkpoints.load()) is not None:
        few = slice(params["batch_size"])
        model.partial_fit(train_images[few], train_digits[few], classes=np.arange(10))  # makes what is then filled
        for array, kept in zip(_state(model), known.arrays.values(), strict=True):
            array[...] = kept
        if params["solver"] == "adam":
            model._optimizer.t = known.facts["updates"]  # noqa: SLF001 - it has no public name
        done, accuracy = known.step, known.facts["accuracy"]
        started -= known.facts["seconds"]
    epoch = done
    for epoch in range(done + 1, options.epochs + 1):  # how far it came is reported
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # overflow, on the way to the divergence that is caught below
                model.partial_fit(train_images, train_digits, classes=np.arange(10))
        except ValueError:
            diverged = True
            break
        accuracy = float(model.score(validation_images, validation_digits))
        trial.report(epoch, accuracy)
        reason = trial.stop_reason()
        if reason or checkpoints.due:
            facts = {"accuracy": accuracy, "seconds": time.monotonic() - started}
            facts["updates"] = getattr(model._optimizer, "t", 0)  # noqa: SLF001 - as above
            arrays = {f"array-{index:02}": array for index, array in enumerate(_state(model))}
            checkpoints.save(State(step=epoch, arrays=arrays, facts=facts))
        if reason == "walltime" and epoch < options.epochs:
            trial.requeue()
        if reason:
            break
    seconds = time.monotonic() - started
    metrics, measured = {"accuracy": 0.0}, {}
    if not diverged:
        found = Classified(
            names=tuple(f"digit_{number:04d}" for number in validated),
            classes=tuple(str(digit) for digit in range(10)),
            truth=validation_digits,
            probabilities=model.predict_proba(validation_images),
            patients=tuple(str(number) for number in validated),
        )
        metrics = summarise(found)
        measured = {f"{name}_interval": asdict(each) for name, each in intervals(found).items()}
        out = options.out or Path(trial.artifacts_dir())
        write_artifacts(out, found, lambda index: Shown(image=validation_images[index].reshape(8, 8)))
    trial.finish(
        {**metrics, "train_seconds": seconds},
        {
            **measured,
            "epochs": epoch,
            "diverged": diverged,
            "seed": seed,
            "params": params,
            "versions": versions("scikit-learn", "numpy", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
        },
    )


def _state(model: Any) -> list[NDArray[np.float64]]:
    """Weights, and what the optimiser remembers of their changes; each epoch draws from the seed anew."""
    optimizer = model._optimizer  # noqa: SLF001 - it has no public name
    memories = [getattr(optimizer, name, []) for name in ("velocities", "ms", "vs")]
    return [array for arrays in (model.coefs_, model.intercepts_, *memories) for array in arrays]
