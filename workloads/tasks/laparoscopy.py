"""Laparoscopic frames to the instrument at work: vessel sealer, ultrasonic device or neither, by a 2D CNN."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from workloads.data.picture_augmentation import Augmentation
from workloads.parameters import Parameter
from workloads.phantoms import drawing
from workloads.phantoms.laparoscopy import KINDS, make_picture
from workloads.trials import classification, pictures

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "laparoscopic frames to vessel sealer, ultrasonic device or neither: 2D CNN, balanced accuracy (TensorFlow)"
PARAMETERS = (
    *pictures.network(head="flatten"),
    Parameter(name="augmentation", default=0.5, low=0.0, high=1.0, meaning="strength of all of it"),
)


def _augmentation(settings: Mapping[str, Any]) -> Augmentation:
    strength = settings["augmentation"]
    return Augmentation(flip=0.5 * strength, shift=0.1 * strength, scale=0.2 * strength, brightness=0.2 * strength)


TASK = pictures.task(PARAMETERS, _augmentation, epochs=15, fixed={"balance": "weights"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    pictures.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one classifier and report it, as in `workloads.trials.classification.run`."""
    classification.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    drawing.add_arguments(parser, train=80, each="each class", validation=20, test=20, size=64)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``."""
    counts = {part: dict.fromkeys(KINDS, getattr(options, part)) for part in ("train", "validation", "test")}
    make = partial(make_picture, size=options.size, confounders=options.confounders)
    drawing.write_pictures(options.out, counts, make, name="frame", seed=options.seed)
