"""COVID-19 lesions in chest CT by an ensemble: the mean of a 2D network and a 3D network of low resolution."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.losses import OVERLAPS
from workloads.models.segmenter import NETWORKS_2D, NETWORKS_3D, NORMALISATIONS, segmenter
from workloads.parameters import Parameter
from workloads.phantoms import datasets, lung
from workloads.phantoms.lung import LungPhantom
from workloads.phantoms.shapes import PhantomCase
from workloads.trials import ensemble
from workloads.trials.ensemble import EnsembleTask
from workloads.trials.lung_regions import add_phantom_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "COVID-19 lesions in chest CT: mean of a 2D and a low-resolution 3D network (TensorFlow)"
LABELS = {"background": 0, "lesion": 1}
PARAMETERS = (
    Parameter(name="network_2d", default="unet", choices=NETWORKS_2D, meaning="kind of the 2D network"),
    Parameter(name="network_3d", default="unet", choices=NETWORKS_3D, meaning="kind of the 3D network"),
    Parameter(name="filters_2d", default=8, low=4, high=16, log=True, meaning="channels of its first level"),
    Parameter(name="filters_3d", default=8, low=4, high=16, log=True, meaning="channels of its first level"),
    Parameter(name="depth_2d", default=2, low=1, high=3, meaning="times that its resolution is halved"),
    Parameter(name="depth_3d", default=2, low=1, high=3, meaning="times that its resolution is halved"),
    Parameter(name="learning_rate_2d", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="learning_rate_3d", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size_2d", default=4, low=2, high=32, log=True, meaning="slices of one step"),
    Parameter(name="batch_size_3d", default=2, low=2, high=16, log=True, meaning="blocks of one step"),
    Parameter(name="coarseness", default=1.5, low=1.25, high=2.0, meaning="low voxels' side over the finest side"),
    Parameter(name="normalisation", default="group", choices=NORMALISATIONS, meaning="of each convolution"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.5, meaning="share of the bottom's channels"),
    Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
    Parameter(name="overlap", default="dice", choices=OVERLAPS, meaning="loss of overlap"),
    Parameter(name="entropy_share", default=0.5, low=0.0, high=1.0, meaning="of the loss, the rest is overlap"),
    Parameter(name="rare_fraction", default=0.5, low=0.0, high=1.0, meaning="share of patches with a lesion"),
    Parameter(name="augmentation", default=0.1, low=0.0, high=1.0, meaning="strength of all of it"),
)


def _network(settings: Mapping[str, Any], dimensions: int, classes: int) -> Any:
    names = ("filters", "depth", "normalisation", "dropout")
    own = {name: settings[name] for name in names}
    return segmenter(settings["network"], dimensions=dimensions, classes=classes, **own)


TASK = EnsembleTask(
    parameters=PARAMETERS,
    fixed={"optimizer": "adam", "momentum": 0.9},
    build=_network,
    patch=(32, 32),
    patch_3d=(16, 16, 16),
    epochs=6,
    patches=96,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    ensemble.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train both networks and report what they say together and apart, as in `workloads.trials.ensemble.run`."""
    ensemble.run(TASK, options, given)


def _lesions(rng: np.random.Generator, phantom: LungPhantom, regions: int) -> PhantomCase:
    case = lung.make_case(rng, phantom, regions)
    return replace(case, label=(case.label == lung.LABELS["abnormal"]).astype(np.uint8))


def make_phantoms(options: argparse.Namespace) -> None:
    """Write the phantoms of ``covid-3d``, of which the abnormal regions alone are labelled."""
    datasets.make_dataset(
        options, LungPhantom(), _lesions, name="lungs", channel="CT", labels=LABELS, further=0.7, most=6
    )
