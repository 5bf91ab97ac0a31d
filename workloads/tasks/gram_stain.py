"""Gram-stained smears under the microscope to the kind of bacteria: a 2D CNN on pictures of unequally common classes.

Thirteen hyperparameters: the network, its training, four kinds of augmentation, and what is done for rare classes,
of which the phantoms' rarest has a tenth of the pictures of the commonest.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from workloads.data.picture_augmentation import Augmentation
from workloads.errors import WorkloadError
from workloads.parameters import Parameter
from workloads.phantoms import drawing
from workloads.phantoms.bacteria import KINDS, make_picture
from workloads.trials import classification, pictures

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "bacteria in Gram-stained smears, some kinds rare: 2D CNN, balanced accuracy (TensorFlow)"
PARAMETERS = (
    *pictures.network(head="average"),
    Parameter(name="flip", default=0.5, low=0.0, high=0.5, meaning="chance of each of both flips"),
    Parameter(name="shift", default=0.05, low=0.0, high=0.25, meaning="largest one, in sides of the picture"),
    Parameter(name="scale", default=0.1, low=0.0, high=0.4, meaning="deviation of the logarithm of magnification"),
    Parameter(name="brightness", default=0.1, low=0.0, high=0.5, meaning="deviation of brightness and contrast"),
    pictures.BALANCE,
)
BY_FREQUENCY = ("escherichia", "staphylococcus", "streptococcus", "bacillus")  # the commonest first


def _augmentation(settings: Mapping[str, Any]) -> Augmentation:
    return Augmentation(**{name: settings[name] for name in ("flip", "shift", "scale", "brightness")})


TASK = pictures.task(PARAMETERS, _augmentation, epochs=15)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    pictures.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one classifier and report it, as in `workloads.trials.classification.run`."""
    classification.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    drawing.add_arguments(parser, train=100, each="the commonest class", validation=20, test=20, size=64)
    parser.add_argument(
        "--imbalance", type=float, default=10.0, help="the commonest over the rarest class (default: %(default)s)"
    )


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; classes are as unequal in training alone."""
    if options.imbalance < 1.0:
        raise WorkloadError(f"--imbalance must be at least 1, not {options.imbalance:g}")
    last = len(BY_FREQUENCY) - 1
    train = {
        kind: max(1, round(options.train * options.imbalance ** (-rank / last)))
        for rank, kind in enumerate(BY_FREQUENCY)
    }
    even = {part: dict.fromkeys(KINDS, getattr(options, part)) for part in ("validation", "test")}
    make = partial(make_picture, size=options.size, confounders=options.confounders)
    drawing.write_pictures(options.out, {"train": train, **even}, make, name="smear", seed=options.seed)
