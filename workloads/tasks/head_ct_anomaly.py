"""Detection of anything abnormal in head CT by an autoencoder that has seen normal heads alone.

The objective is the area under the ROC curve of the validation cases; a case's score is the largest mean squared error
of its patches.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.losses import RECONSTRUCTIONS
from workloads.models.autoencoder import autoencoder
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.head import LABELS, HeadPhantom, make_case
from workloads.training.fit import Step
from workloads.trials import anomaly
from workloads.trials.anomaly import AnomalyTask, add_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "anomalies in head CT: 3D autoencoder of normal patches, AUC of its largest error (TensorFlow)"

PARAMETERS = (
    Parameter(name="filters", default=8, low=4, high=16, log=True, meaning="channels of the first level"),
    Parameter(name="depth", default=1, low=1, high=3, meaning="times that the resolution is halved"),
    Parameter(name="latent", default=2, low=1, high=32, log=True, meaning="channels in the middle"),
    Parameter(name="loss", default="squared", choices=RECONSTRUCTIONS, meaning="of the difference"),
    Parameter(name="noise", default=10.0, low=0.0, high=30.0, meaning="added in training, HU"),
    Parameter(name="side", default=14.0, low=4.0, high=50.0, log=True, meaning="of a scored patch, mm"),
    Parameter(name="learning_rate", default=0.003, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=4, low=2, high=32, log=True, meaning="patches of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
)

TASK = AnomalyTask(
    parameters=PARAMETERS,
    fixed={"optimizer": "adam", "momentum": 0.9},
    build=lambda settings: autoencoder(**{name: settings[name] for name in ("filters", "depth", "latent")}),
    multiple=lambda settings: int(2 ** settings["depth"]),
    level=35.0,
    width=80.0,
)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one autoencoder and report it, as in `workloads.trials.anomaly.run`."""
    anomaly.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return anomaly.step(TASK, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, HeadPhantom(), train=24, validation=24, test=24)
    parser.set_defaults(normal_fraction=0.4)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; the training cases are all normal."""
    datasets.make_dataset(
        options, HeadPhantom(), make_case, name="head", channel="CT", labels=LABELS, normal_parts=("train",)
    )
