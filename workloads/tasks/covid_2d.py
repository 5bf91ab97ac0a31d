"""Normal and abnormal lung regions in chest CT, slice by slice: dense pooling with dilated convolutions, or a 2D U-Net."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.phantoms.lung import LABELS
from workloads.training.fit import Step
from workloads.trials import segmentation
from workloads.trials.lung_regions import add_phantom_arguments, make_phantoms, task

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run", "step"]

SUMMARY = "normal and abnormal lung in chest CT, by slices: 2D encoder-decoders, Dice of each region (TensorFlow)"
TASK = task(2, patch=(32, 32), epochs=10, patches=96)
PARAMETERS = TASK.parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    segmentation.add_arguments(TASK, parser)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one segmenter and report it, as in `workloads.trials.segmentation.run`."""
    segmentation.run(TASK, options, given)


def step(given: Mapping[str, Any]) -> Step:
    """What one step of a training trains: for ``--fit``."""
    return segmentation.step(TASK, given, classes=len(LABELS))
