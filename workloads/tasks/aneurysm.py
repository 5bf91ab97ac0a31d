"""Detection of cerebral aneurysms in MR angiograms: a fixed 3D CNN with nine hyperparameters.

The area under the FROC curve of the validation cases up to 3 false positives per case is the objective,
as in Nakao et al., J Magn Reson Imaging 47:948-953 (2018).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.models.detector import SIZE_MULTIPLE, detector
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.vessels import VesselPhantom, make_case
from workloads.training.fit import Step
from workloads.training.loop import OPTIMIZERS
from workloads.trials import detection
from workloads.trials.detection import DetectionTask, add_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "aneurysms in MR angiograms: 3D CNN on patches, FROC partial area (TensorFlow)"

PARAMETERS = (
    Parameter(name="learning_rate", default=0.005, low=1e-5, high=1.0, log=True, meaning="at the start; falls to 0"),
    Parameter(name="optimizer", default="adam", choices=OPTIMIZERS, meaning="adam, or sgd with Nesterov momentum"),
    Parameter(name="momentum", default=0.9, low=0.0, high=0.99, meaning="of sgd; beta_1 of adam"),
    Parameter(name="batch_size", default=8, low=4, high=64, log=True, meaning="patches of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-5, high=100.0, log=True, meaning="decoupled"),
    Parameter(name="lesion_fraction", default=0.5, low=0.0, high=1.0, meaning="share of patches with a lesion"),
    Parameter(name="positive_weight", default=3.0, low=0.03, high=300.0, log=True, meaning="of lesion voxels"),
    Parameter(name="target_sigma", default=0.5, low=0.0, high=4.0, meaning="softness of targets, mm"),
    Parameter(name="smoothing", default=0.5, low=0.0, high=4.0, meaning="of the probability map, mm"),
)

TASK = DetectionTask(
    parameters=PARAMETERS,
    # These were measured to matter less than the seed does.
    fixed={"dice_weight": 0.3, "dropout": 0.1, "augmentation": 0.3},
    build=lambda settings: detector(dropout=settings["dropout"]),
    multiple=SIZE_MULTIPLE,
    objective="pauc",
    limit=3.0,
)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one detector and report it, as in `workloads.trials.detection.run`."""
    detection.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return detection.step(TASK, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, VesselPhantom())


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``."""
    datasets.make_dataset(
        options, VesselPhantom(), make_case, name="vessels", channel="MRA", labels={"background": 0, "aneurysm": 1}
    )
