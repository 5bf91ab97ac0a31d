"""The lung field in CT of any range and slice thickness: a 2D U-Net on axial slices, generalized Dice, small pieces removed.

The lung field is the first step of every analysis of lungs, and it has to hold where lung is as dense as muscle and
where the scan reaches into the abdomen, with air in stomach and bowel.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.evaluation.components import remove_small
from workloads.models.segmenter import NORMALISATIONS, segmenter
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.shapes import PhantomCase
from workloads.phantoms.torso import LABELS, RANGES, TorsoPhantom, make_case
from workloads.training.fit import Step
from workloads.trials import segmentation
from workloads.trials.patches import Data
from workloads.trials.segmentation import SegmentationTask

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "the lung field in CT of any range and thickness: 2D U-Net on slices, generalized Dice (TensorFlow)"
PARAMETERS = (
    Parameter(name="filters", default=8, low=4, high=16, log=True, meaning="channels of the first level"),
    Parameter(name="depth", default=3, low=1, high=3, meaning="times that the resolution is halved"),
    Parameter(name="normalisation", default="group", choices=NORMALISATIONS, meaning="of each convolution"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.5, meaning="share of the bottom's channels"),
    Parameter(name="learning_rate", default=0.02, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=4, low=2, high=32, log=True, meaning="slices of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
    Parameter(
        name="entropy_share", default=0.3, low=0.0, high=1.0, meaning="of the loss, the rest is generalized Dice"
    ),
    Parameter(name="rare_fraction", default=0.5, low=0.0, high=1.0, meaning="share of slices that must have lung"),
    Parameter(name="augmentation", default=0.2, low=0.0, high=1.0, meaning="strength of all of it"),
    Parameter(name="smallest", default=20.0, low=0.0, high=200.0, meaning="piece that is kept, ml"),
)


def _network(settings: Mapping[str, Any], classes: int) -> Any:
    names = ("filters", "depth", "normalisation", "dropout")
    return segmenter("unet", dimensions=2, classes=classes, **{name: settings[name] for name in names})


def _check(data: Data, options: argparse.Namespace) -> None:
    """A case without lung is a mistake more often than an abdomen: it has to be said that there may be some."""
    for case in (*data.training, *data.validation, *data.test):
        if not options.without_lung and not case.label.array.any():
            raise WorkloadError(
                f"{case.label.path}: marks no lung",
                hint="leave the case out of the split; if its scan holds none, as of an abdomen, say --without-lung",
            )


TASK = SegmentationTask(
    parameters=PARAMETERS,
    fixed={"optimizer": "adam", "momentum": 0.9, "overlap": "generalized"},
    build=_network,
    multiple=lambda settings: int(2 ** settings["depth"]),
    patch=(48, 40),
    epochs=6,
    patches=192,
    check=_check,
    refine=lambda settings: lambda marked, spacing: remove_small(marked, spacing, smallest=settings["smallest"]),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    segmentation.add_arguments(TASK, parser)
    parser.add_argument("--without-lung", action="store_true", help="cases may have no lung: what is marked is false")


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one segmenter and report it, as in `workloads.trials.segmentation.run`."""
    segmentation.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return segmentation.step(TASK, given, classes=len(LABELS))


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, TorsoPhantom(), train=12, validation=8, test=4)
    ranges = ("chest", "chest-abdomen")
    parser.add_argument("--ranges", nargs="+", choices=list(RANGES), default=ranges, help="in turn (default: both)")
    parser.add_argument("--thickness", nargs="+", type=float, default=(1.0, 5.0), metavar="MM", help="in turn")


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; scan ranges and thicknesses take turns within it."""
    if min(options.thickness) <= 0:
        raise WorkloadError("--thickness must be positive")
    kinds = itertools.cycle(itertools.product(options.ranges, options.thickness))

    def make(rng: np.random.Generator, phantom: TorsoPhantom, lesions: int) -> PhantomCase:
        scan, thickness = next(kinds)
        return make_case(rng, replace(phantom, scan=scan, thickness=thickness), lesions)

    datasets.make_dataset(options, TorsoPhantom(), make, name="torso", channel="CT", labels=LABELS, further=0.7, most=6)
