"""Thin CT slices from thick ones: SRCNN, pix2pix, or an adversarial 3D generator, beside bicubic interpolation.

Thick slices are made of thin ones, by their mean; a network sharpens what cubic interpolation makes of them. Networks of
two dimensions see coronal slices, since it is across the axial ones that something is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from workloads.models.super_resolver import METHODS
from workloads.parameters import Parameter
from workloads.phantoms import datasets
from workloads.phantoms.thin_chest import LABELS, ThinChestPhantom, make_case
from workloads.trials import super_resolution
from workloads.trials.super_resolution import CONTENTS, add_arguments

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "thick CT slices to thin: SRCNN, pix2pix, adversarial 3D generator beside bicubic, PSNR (TensorFlow)"
ADVERSARIAL = ("pix2pix", "gan3d")
PARAMETERS = (
    Parameter(name="method", default="srcnn", choices=METHODS, meaning="network"),
    Parameter(name="filters", default=16, low=4, high=32, log=True, meaning="channels of the first convolution"),
    Parameter(name="blocks", default=2, low=1, high=6, meaning="residual blocks", when={"method": ("gan3d",)}),
    Parameter(name="dropout", default=0.0, low=0.0, high=0.5, meaning="at the bottom", when={"method": ("pix2pix",)}),
    Parameter(name="content", default="l2", choices=CONTENTS, meaning="loss: absolute or squared difference"),
    Parameter(
        name="adversarial_weight",
        default=1e-3,
        low=1e-5,
        high=1.0,
        log=True,
        meaning="of the adversarial loss beside the content's",
        when={"method": ADVERSARIAL},
    ),
    Parameter(name="learning_rate", default=2e-3, low=1e-5, high=0.1, log=True, meaning="at the start; falls to 0"),
    Parameter(name="batch_size", default=8, low=2, high=32, log=True, meaning="patches of one step"),
)


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one method, or all, and report it, as in `workloads.trials.super_resolution.run`."""
    super_resolution.run(PARAMETERS, options, given)


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, ThinChestPhantom(), train=12, validation=4, test=4)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms in thin slices to ``options.out``."""
    datasets.make_dataset(
        options, ThinChestPhantom(), make_case, name="chest", channel="CT", labels=LABELS, further=0.5, most=4
    )
