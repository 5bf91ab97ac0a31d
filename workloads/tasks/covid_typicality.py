"""Chest CT to a high or low likelihood of COVID-19 pneumonia: a 3D CNN with dilated convolutions, on CT and segmentation.

The training volumes are multiplied by 3D non-rigid deformation; how often and how strongly is searched.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.classified_volumes import LABEL_STEP, open_volumes
from workloads.data.deformation import deform
from workloads.data.labelled import Labelled, Samples
from workloads.errors import WorkloadError
from workloads.evaluation.classification import Shown
from workloads.evaluation.overview import middle_slice
from workloads.models.classifier import HEADS, NORMALISATIONS, classifier
from workloads.parameters import Parameter
from workloads.phantoms import typicality
from workloads.trials import classification
from workloads.trials.classification import ClassificationTask

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "chest CT and its segmentation to high or low likelihood of COVID-19: 3D CNN, balanced accuracy (TensorFlow)"
PARAMETERS = (
    Parameter(name="filters", default=4, low=2, high=16, log=True, meaning="channels of the first level"),
    Parameter(name="depth", default=2, low=1, high=3, meaning="levels, each at half the resolution"),
    Parameter(name="dilations", default=2, low=0, high=3, meaning="dilated convolutions behind them"),
    Parameter(name="normalisation", default="group", choices=NORMALISATIONS, meaning="of each convolution"),
    Parameter(name="head", default="flatten", choices=HEADS, meaning="what the last layer sees of the features"),
    Parameter(name="dropout", default=0.1, low=0.0, high=0.7, meaning="share of features dropped in training"),
    Parameter(name="learning_rate", default=0.01, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=8, low=2, high=32, log=True, meaning="volumes of one step"),
    Parameter(name="weight_decay", default=1e-4, low=1e-6, high=0.1, log=True, meaning="decoupled"),
    Parameter(name="copies", default=1, low=0, high=4, meaning="deformed volumes made of each training volume"),
    Parameter(
        name="deformation", default=0.5, low=0.0, high=1.0, meaning="its strength", when={"copies": (1, 2, 3, 4)}
    ),
)


def _open(options: argparse.Namespace) -> Labelled:
    if options.size and min(options.size) < 1:
        raise WorkloadError("--size must be at least 1 1 1")
    return open_volumes(options.data, size=tuple(options.size) if options.size else None)


def _build(settings: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> Any:
    names = ("filters", "depth", "dilations", "normalisation", "head", "dropout")
    return classifier(shape=shape, classes=classes, **{name: settings[name] for name in names})


def _multiply(rng: np.random.Generator, samples: Samples, settings: Mapping[str, Any]) -> Samples:
    """The samples and deformed copies of each, image and segmentation alike."""
    volumes, names, classes = [samples.images], samples.names, [samples.classes]
    for _ in range(settings["copies"]):
        image, segmentation = samples.images[..., :1], samples.images[..., 1:]
        volumes.append(np.concatenate(deform(rng, image, segmentation, settings["deformation"]), axis=-1))
        names += samples.names
        classes.append(samples.classes)
    return Samples(names=names, images=np.concatenate(volumes), classes=np.concatenate(classes))


def _show(volume: NDArray[np.float32]) -> Shown:
    """The slice with most of the last label, which is marked."""
    labels = np.rint(volume[..., 1] / LABEL_STEP).astype(int)
    marked = np.where(labels > 1, labels, 0)
    return Shown(
        image=middle_slice(volume[..., 0], marked),
        labels=middle_slice(marked, marked),
        names={2: "abnormal in the segmentation"},
        limits=(-1.0, 1.2),
    )


TASK = ClassificationTask(
    parameters=PARAMETERS,
    fixed={"balance": "weights"},
    open=_open,
    build=_build,
    show=_show,
    multiply=_multiply,
    epochs=15,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    classification.add_arguments(TASK, parser, data="dataset.json, imagesTr, labelsTr, classes.json, splits.json")
    parser.add_argument(
        "--size", type=int, nargs=3, metavar="N", help="cut to the lungs and bring to these voxels (default: as it is)"
    )


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one classifier and report it, as in `workloads.trials.classification.run`."""
    classification.run(TASK, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    for part, size in {"train": 30, "validation": 20, "test": 15}.items():
        parser.add_argument(f"--{part}", type=int, default=size, help="chests of each class (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=typicality.SHAPE, metavar="N", help="voxels")
    parser.add_argument("--noise", type=float, default=60.0, help="its deviation in HU (default: %(default)s)")


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``."""
    sizes = {part: getattr(options, part) for part in ("train", "validation", "test")}
    if min(sizes["train"], sizes["validation"]) < 1:
        raise WorkloadError("each class needs a chest to train and one to validate on")
    try:
        typicality.write_dataset(options.out, sizes, shape=tuple(options.shape), noise=options.noise, seed=options.seed)
    except ValueError as error:
        raise WorkloadError(str(error), hint="choose a larger --shape") from None
