"""Segmentation of normal and abnormal lung regions in chest CT, as in COVID-19 pneumonia: what 2D and 3D share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.losses import OVERLAPS
from workloads.models.segmenter import DENSE, NETWORKS_2D, NETWORKS_3D, NORMALISATIONS, segmenter
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.lung import LABELS, LungPhantom, make_case
from workloads.trials.segmentation import SegmentationTask

__all__ = ["add_phantom_arguments", "make_phantoms", "task"]


def task(dimensions: int, *, patch: tuple[int, ...], epochs: int, patches: int) -> SegmentationTask:
    """The task on slices (2) or on blocks (3)."""
    networks = {2: NETWORKS_2D, 3: NETWORKS_3D}[dimensions]
    dense = tuple(name for name in networks if name in DENSE)

    def build(settings: Mapping[str, Any], classes: int) -> Any:
        names = ("filters", "depth", "dilations", "normalisation", "dropout")
        chosen = {name: settings[name] for name in names if name in settings}
        return segmenter(settings["network"], dimensions=dimensions, classes=classes, **chosen)

    return SegmentationTask(
        parameters=(
            Parameter(name="network", default=networks[0], choices=networks, meaning="kind of encoder-decoder"),
            Parameter(name="filters", default=8, low=4, high=16, log=True, meaning="channels of the first level"),
            Parameter(name="depth", default=2, low=1, high=3, meaning="times that the resolution is halved"),
            Parameter(
                name="dilations", default=2, low=0, high=3, meaning="dilated convolutions", when={"network": dense}
            ),
            Parameter(name="normalisation", default="group", choices=NORMALISATIONS, meaning="of each convolution"),
            Parameter(name="dropout", default=0.1, low=0.0, high=0.5, meaning="share of the bottom's channels"),
            Parameter(
                name="learning_rate", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"
            ),
            Parameter(name="batch_size", default=4, low=2, high=32, log=True, meaning="patches of one step"),
            Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
            Parameter(name="overlap", default="dice", choices=OVERLAPS, meaning="loss of overlap"),
            Parameter(name="entropy_share", default=0.5, low=0.0, high=1.0, meaning="of the loss, the rest is overlap"),
            Parameter(name="rare_fraction", default=0.5, low=0.0, high=1.0, meaning="share of patches with abnormal"),
            Parameter(name="augmentation", default=0.1, low=0.0, high=1.0, meaning="strength of all of it"),
        ),
        fixed={"optimizer": "adam", "momentum": 0.9},
        build=build,
        multiple=lambda settings: int(2 ** settings["depth"]),
        patch=patch,
        epochs=epochs,
        patches=patches,
    )


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, LungPhantom(), train=12, validation=4, test=4)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; abnormal lungs have one region to six."""
    datasets.make_dataset(
        options, LungPhantom(), make_case, name="lungs", channel="CT", labels=LABELS, further=0.7, most=6
    )
