"""Detection of hypervascular nodules in dynamic MR images of the liver: a 4D CNN over five phases and three axes.

The phases are an axis that convolutions go along, or channels: a choice that is searched. The objective is the area
under the FROC curve of the validation cases up to 10 false positives per case; the number of false positives per case at
a sensitivity of one half is reported beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.models.phase_detector import ARRANGEMENTS, NORMALISATIONS, SIZE_MULTIPLE, phase_detector
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.liver import LABELS, PHASES, LiverPhantom, make_case
from workloads.training.fit import Step
from workloads.trials import detection
from workloads.trials.detection import DetectionTask, add_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "nodules in five-phase MR images of the liver: 4D CNN, FROC area to 10 (TensorFlow)"

PARAMETERS = (
    Parameter(name="phases", default="axis", choices=ARRANGEMENTS, meaning="convolved along, or channels"),
    Parameter(name="reach", default=1, low=0, high=2, meaning="phases seen to each side", when={"phases": ("axis",)}),
    Parameter(name="width", default=4, low=2, high=12, log=True, meaning="channels of each convolution"),
    Parameter(name="layers", default=2, low=1, high=3, meaning="convolutions at half resolution"),
    Parameter(name="normalisation", default="none", choices=NORMALISATIONS, meaning="after each convolution"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.7, meaning="share of channels dropped in training"),
    Parameter(name="learning_rate", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=8, low=4, high=64, log=True, meaning="patches of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-5, high=10.0, log=True, meaning="decoupled"),
    Parameter(name="lesion_fraction", default=0.5, low=0.0, high=1.0, meaning="share of patches with a nodule"),
    Parameter(name="positive_weight", default=3.0, low=0.03, high=300.0, log=True, meaning="of nodule voxels"),
    Parameter(name="smoothing", default=1.5, low=0.0, high=6.0, meaning="of the probability map, mm"),
)


def _network(settings: Mapping[str, Any]) -> Any:
    return phase_detector(
        phases=len(PHASES),
        arrangement=settings["phases"],
        reach=settings.get("reach", 0),
        width=settings["width"],
        layers=settings["layers"],
        normalisation=settings["normalisation"],
        dropout=settings["dropout"],
    )


TASK = DetectionTask(
    parameters=PARAMETERS,
    fixed={"optimizer": "adam", "momentum": 0.9, "target_sigma": 1.0, "dice_weight": 0.3, "augmentation": 0.2},
    build=_network,
    multiple=SIZE_MULTIPLE,
    objective="pauc_10",
    limit=10.0,
    channels=PHASES,
)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one detector and report it, as in `workloads.trials.detection.run`."""
    detection.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return detection.step(TASK, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, LiverPhantom(), train=32, validation=32, test=16)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; a third of the livers with one nodule have another."""
    datasets.make_dataset(
        options, LiverPhantom(), make_case, name="liver", channel=PHASES, labels=LABELS, further=0.35, most=3
    )
