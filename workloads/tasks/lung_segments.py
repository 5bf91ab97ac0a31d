"""The 18 segments of the lungs, learnt from sparse labelled points: a 3D network over both lungs, loss at the points alone.

Reports name places of findings in an image, with the segment in which they lie: annotation that costs nothing, but
that marks a few voxels of each volume and not a region.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.data.points import FOLDER
from workloads.errors import WorkloadError
from workloads.models.segmenter import NORMALISATIONS, segmenter
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.segments import LABELS, SegmentsPhantom, draw_points, make_case
from workloads.phantoms.shapes import PhantomCase
from workloads.trials import sparse_points
from workloads.trials.sparse_points import PointsTask

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "the 18 segments of the lungs from sparse labelled points: 3D network, accuracy at points (TensorFlow)"
NETWORKS = ("unet", "dense")
PARAMETERS = (
    Parameter(name="network", default="unet", choices=NETWORKS, meaning="kind of encoder-decoder"),
    Parameter(name="coordinates", default="none", choices=("none", "lung"), meaning="place in the lungs as channels"),
    Parameter(name="filters", default=8, low=4, high=24, log=True, meaning="channels of the first level"),
    Parameter(name="depth", default=2, low=1, high=3, meaning="times that the resolution is halved"),
    Parameter(name="normalisation", default="group", choices=NORMALISATIONS, meaning="of each convolution"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.5, meaning="share of the bottom's channels"),
    Parameter(name="learning_rate", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=1, low=1, high=16, log=True, meaning="cases of one step"),
    Parameter(name="weight_decay", default=1e-3, low=1e-6, high=0.1, log=True, meaning="decoupled"),
    Parameter(name="augmentation", default=0.1, low=0.0, high=1.0, meaning="strength of noise and of shifted places"),
)


def _network(settings: Mapping[str, Any], classes: int, channels: int) -> Any:
    names = ("filters", "depth", "normalisation", "dropout")
    own = {name: settings[name] for name in names}
    return segmenter(settings["network"], dimensions=3, classes=classes, channels=channels, **own)


TASK = PointsTask(
    parameters=PARAMETERS,
    fixed={"optimizer": "adam", "momentum": 0.9},
    build=_network,
    multiple=lambda settings: int(2 ** settings["depth"]),
    grid=(24, 16, 24),
    epochs=10,
    volumes=40,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    sparse_points.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one network and report it, as in `workloads.trials.sparse_points.run`."""
    sparse_points.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    phantom = SegmentsPhantom()
    for part, size in {"train": 32, "validation": 10, "test": 10}.items():
        parser.add_argument(f"--{part}", type=int, default=size, help=f"{part} cases (default: %(default)s)")
    parser.add_argument("--points", type=int, default=60, help="of each case (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=phantom.shape, metavar="N", help="voxels")
    parser.add_argument("--noise", type=float, default=phantom.noise, help="its deviation (default: %(default)s)")


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``, with the points of each case.

    Raises
    ------
    WorkloadError
        If the folder holds one already, or there is no room or no point.
    """
    if options.points < 1:
        raise WorkloadError("--points must be at least 1")
    phantom = replace(SegmentsPhantom(), shape=tuple(options.shape), noise=options.noise)
    found = []

    def make(rng: np.random.Generator, _lesions: int) -> PhantomCase:
        case = make_case(rng, phantom)
        found.append(draw_points(rng, case, options.points))
        return case

    try:
        names = datasets.write_dataset(
            options.out,
            name="segments",
            channel="CT",
            labels=LABELS,
            sizes={"train": options.train, "validation": options.validation, "test": options.test},
            normal_fraction=1.0,
            seed=options.seed,
            make=make,
        )
    except ValueError as error:
        raise WorkloadError(str(error), hint="choose a larger --shape") from None
    for name, points in zip(names, found, strict=True):
        content = [{"segment": segment, "position": [round(value, 3) for value in place]} for segment, place in points]
        path = options.out / FOLDER / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"coordinates": "RAS", "points": content}) + "\n", encoding="utf-8")
