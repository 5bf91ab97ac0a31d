"""Detection of brain metastases in contrast-enhanced MR images: a 3D CNN whose architecture is searched too.

Seventeen hyperparameters, of which four exist only where others have certain values: each convolution
layer has its own width, and momentum goes with sgd. The objective is the area under the FROC curve of the
validation cases up to 10 false positives per case; the chosen network is then measured on test cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.models.searched_detector import NORMALISATIONS, SCALES, SIZE_MULTIPLE, searched_detector
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.brain import BrainPhantom, make_case
from workloads.training.fit import Step
from workloads.training.loop import OPTIMIZERS
from workloads.trials import detection
from workloads.trials.detection import DetectionTask, add_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "metastases in contrast-enhanced MR images: 3D CNN of searched architecture, FROC area to 10 (TensorFlow)"
MOST_LAYERS = 4

WIDTHS = tuple(
    Parameter(
        name=f"width_{layer}",
        default=8,
        low=2,
        high=16,
        log=True,
        meaning=f"channels of convolution layer {layer}",
        when={"layers": tuple(range(layer, MOST_LAYERS + 1))} if layer > 1 else {},
    )
    for layer in range(1, MOST_LAYERS + 1)
)
PARAMETERS = (
    Parameter(name="layers", default=3, low=1, high=MOST_LAYERS, meaning="convolution layers"),
    *WIDTHS,
    Parameter(name="reach", default=1, low=1, high=2, meaning="voxels that layer 1 sees to each side"),
    Parameter(name="scale", default="half", choices=SCALES, meaning="resolution of the layers after layer 1"),
    Parameter(name="normalisation", default="none", choices=NORMALISATIONS, meaning="after each convolution"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.7, meaning="share of channels dropped in training"),
    Parameter(name="learning_rate", default=0.005, low=1e-5, high=1.0, log=True, meaning="at the start; falls to 0"),
    Parameter(name="optimizer", default="adam", choices=OPTIMIZERS, meaning="adam, or sgd with Nesterov momentum"),
    Parameter(name="momentum", default=0.9, low=0.0, high=0.99, meaning="of sgd", when={"optimizer": ("sgd",)}),
    Parameter(name="batch_size", default=8, low=4, high=64, log=True, meaning="patches of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-5, high=100.0, log=True, meaning="decoupled"),
    Parameter(name="lesion_fraction", default=0.5, low=0.0, high=1.0, meaning="share of patches with a lesion"),
    Parameter(name="positive_weight", default=3.0, low=0.03, high=300.0, log=True, meaning="of lesion voxels"),
    Parameter(name="smoothing", default=0.5, low=0.0, high=4.0, meaning="of the probability map, mm"),
)


def _network(settings: Mapping[str, Any]) -> Any:
    return searched_detector(
        widths=[settings[f"width_{layer}"] for layer in range(1, settings["layers"] + 1)],
        reach=settings["reach"],
        scale=settings["scale"],
        normalisation=settings["normalisation"],
        dropout=settings["dropout"],
    )


TASK = DetectionTask(
    parameters=PARAMETERS,
    fixed={"momentum": 0.9, "target_sigma": 0.5, "dice_weight": 0.3, "augmentation": 0.3},
    build=_network,
    multiple=SIZE_MULTIPLE,
    objective="pauc_10",
    limit=10.0,
)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one detector and report it, as in `workloads.trials.detection.run`."""
    detection.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return detection.step(TASK, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, BrainPhantom())


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; half of the patients with one metastasis have another."""
    datasets.make_dataset(
        options,
        BrainPhantom(),
        make_case,
        name="brain",
        channel="T1c",
        labels={"background": 0, "metastasis": 1},
        further=0.5,
        most=4,
    )
