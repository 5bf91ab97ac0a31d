"""Classification of pictures in colour by a 2D network: what its tasks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.labelled import Labelled
from workloads.data.picture_augmentation import Augmentation, augment_pictures
from workloads.data.pictures import open_pictures
from workloads.errors import WorkloadError
from workloads.evaluation.classification import Shown
from workloads.models.classifier import HEADS, NORMALISATIONS, classifier
from workloads.parameters import Parameter
from workloads.trials import classification
from workloads.trials.classification import BALANCES, ClassificationTask

__all__ = ["BALANCE", "add_arguments", "network", "task"]

BALANCE = Parameter(name="balance", default="oversampling", choices=BALANCES, meaning="what is done for rare classes")


def network(*, head: str) -> tuple[Parameter, ...]:
    """Hyperparameters of the network and its training; the default of ``head`` differs between tasks."""
    return (
        Parameter(name="filters", default=8, low=4, high=16, log=True, meaning="channels of the first level"),
        Parameter(name="depth", default=4, low=2, high=5, meaning="levels, each at half the resolution"),
        Parameter(name="normalisation", default="none", choices=NORMALISATIONS, meaning="of each convolution"),
        Parameter(name="head", default=head, choices=HEADS, meaning="what the last layer sees of the features"),
        Parameter(name="dropout", default=0.1, low=0.0, high=0.7, meaning="share of features dropped in training"),
        Parameter(
            name="learning_rate",
            default=0.002,
            low=1e-5,
            high=0.1,
            log=True,
            meaning="at the start; falls to 0",
        ),
        Parameter(name="batch_size", default=16, low=4, high=64, log=True, meaning="pictures of one step"),
        Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
    )


def task(
    parameters: tuple[Parameter, ...],
    augmentation: Callable[[Mapping[str, Any]], Augmentation],
    *,
    epochs: int,
    fixed: Mapping[str, Any] | None = None,
) -> ClassificationTask:
    """A task on pictures; ``augmentation`` says how strong it is with a set of hyperparameters."""

    def augment(
        rng: np.random.Generator, pictures: NDArray[np.float32], settings: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        return augment_pictures(rng, pictures, augmentation(settings))

    return ClassificationTask(
        parameters=parameters, open=_open, build=_build, show=_show, augment=augment, epochs=epochs, fixed=fixed or {}
    )


def add_arguments(chosen: ClassificationTask, parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial on pictures may have."""
    classification.add_arguments(chosen, parser, data="classes/CLASS/NAME.png and splits.json")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="bring pictures to it (default: as they are)"
    )


def _open(options: argparse.Namespace) -> Labelled:
    if options.size and min(options.size) < 1:
        raise WorkloadError("--size must be at least 1 1")
    return open_pictures(options.data, size=tuple(options.size) if options.size else None)


def _build(settings: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> Any:
    names = ("filters", "depth", "normalisation", "head", "dropout")
    return classifier(shape=shape, classes=classes, **{name: settings[name] for name in names})


def _show(picture: NDArray[np.float32]) -> Shown:
    return Shown(image=np.clip((picture + 1.0) / 2.0, 0.0, 1.0))
