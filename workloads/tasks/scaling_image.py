"""Classification of pictures by a residual network under synchronous data parallelism: how much several devices gain.

The training of the multi-node studies on photographs, small: its time is what `survey scaling` measures, and its
accuracy must not change with the number of devices.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.picture_set import PictureSet, read_pictures, write_pictures
from workloads.evaluation.overview import NAME, Panel, write_overview
from workloads.models.picture_classifier import picture_classifier
from workloads.parameters import Parameter
from workloads.phantoms.pictures import CLASSES, make_pictures
from workloads.training.loop import OPTIMIZERS, Arrays
from workloads.trials import data_parallel
from workloads.trials.data_parallel import Forward, ScalingTask

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "pictures in classes: residual 2D CNN under data parallelism, accuracy and time (TensorFlow)"
SHOWN = 6  # pictures in a row of the overview

PARAMETERS = (
    Parameter(name="filters", default=12, low=4, high=64, log=True, meaning="channels of the first stage"),
    Parameter(name="stages", default=3, low=1, high=4, meaning="residual blocks, each at half the resolution"),
    Parameter(name="dropout", default=0.0, low=0.0, high=0.5, meaning="share of pooled features dropped"),
    Parameter(name="smoothing", default=0.05, low=0.0, high=0.3, meaning="of the labels"),
    Parameter(name="learning_rate", default=0.003, low=1e-5, high=1.0, log=True, meaning="at the start; falls to 0"),
    Parameter(name="optimizer", default="adam", choices=OPTIMIZERS, meaning="adam, or sgd with Nesterov momentum"),
    Parameter(name="momentum", default=0.9, low=0.0, high=0.99, meaning="of sgd; beta_1 of adam"),
    Parameter(name="batch_size", default=32, low=8, high=256, log=True, meaning="pictures of one step"),
    Parameter(name="weight_decay", default=1e-3, low=1e-6, high=0.1, log=True, meaning="decoupled"),
)


class _Pictures:
    packages: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._data: PictureSet = read_pictures(folder)
        self.checksum = self._data.checksum

    @property
    def training(self) -> Arrays:
        return _scaled(self._data.training), self._data.training_classes.astype(np.float32)

    def network(self, settings: Mapping[str, Any]) -> Any:
        return picture_classifier(
            size=self._data.size,
            classes=len(self._data.classes),
            **{name: settings[name] for name in ("filters", "stages", "dropout")},
        )

    def evaluate(self, forward: Forward) -> Mapping[str, float]:
        found = forward(_scaled(self._data.validation)).argmax(axis=-1)
        return {"accuracy": float(np.mean(found == self._data.validation_classes))}

    def write(self, _model: Any, forward: Forward, folder: Path) -> Mapping[str, Any]:
        names, true = self._data.classes, self._data.validation_classes
        found = forward(_scaled(self._data.validation)).argmax(axis=-1)
        with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["picture", "class", "answer"])
            rows.writerows([index, names[a], names[b]] for index, (a, b) in enumerate(zip(true, found, strict=True)))
        right, wrong = np.flatnonzero(found == true)[:SHOWN], np.flatnonzero(found != true)[:SHOWN]
        write_overview(
            folder / NAME,
            [
                [
                    Panel(title=f"{names[true[at]]}\nfound: {names[found[at]]}", image=self._data.validation[at])
                    for at in some
                ]
                for some in (right, wrong)
                if len(some)
            ],
            title=f"{np.mean(found == true):.1%} of {len(true)} validation pictures are right",
        )
        per_class = {name: float(np.mean(found[true == number] == number)) for number, name in enumerate(names)}
        return {"accuracy_per_class": {name: round(value, 4) for name, value in per_class.items()}}


TASK = ScalingTask(parameters=PARAMETERS, objective="accuracy", read=_Pictures, epochs=10)


def _scaled(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pictures.astype(np.float32) / np.float32(255.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    data_parallel.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one classifier and report it, as in `workloads.trials.data_parallel.run`."""
    data_parallel.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    parser.add_argument("--train", type=int, default=1600, help="pictures to train on (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=320, help="and to validate on (default: %(default)s)")
    parser.add_argument("--size", type=int, default=32, help="pixels a side (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.06, help="of the range of intensities (default: %(default)s)")


def make_phantoms(options: argparse.Namespace) -> None:
    """Write generated pictures to ``options.out``."""
    parts = [
        make_pictures(np.random.default_rng([options.seed, part]), count, size=options.size, noise=options.noise)
        for part, count in enumerate((options.train, options.validation))
    ]
    write_pictures(options.out, CLASSES, *parts[0], *parts[1])
    print(f"{options.out}: {options.train} + {options.validation} pictures of {len(CLASSES)} classes")  # noqa: T201 - this verb's answer
