"""Volumes of lesions by typicality of the images and result of the PCR, from the probability maps of a segmenter.

What is searched is how a map becomes a volume: smoothed, cut at a threshold, rid of its small pieces. The objective is
the mean absolute error against the volumes of reference masks. The table and the box plot are of all cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator import trial
from workloads.data.dataset import checksum, open_dataset
from workloads.data.splits import read_split
from workloads.errors import WorkloadError, did_you_mean
from workloads.evaluation.marking import mark, write_marked_overview
from workloads.evaluation.overview import NAME
from workloads.evaluation.volumes import (
    Measured,
    compared_groups,
    millilitres,
    read_groups,
    write_box_plot,
    write_tables,
)
from workloads.parameters import Parameter, resolve
from workloads.phantoms import graded_lungs
from workloads.training.setup import peak_memory, prepare, versions

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "lesion volumes in ml by typicality and PCR result, from probability maps and masks (no TensorFlow)"
PARAMETERS = (
    Parameter(name="threshold", default=30.0, low=2.0, high=98.0, meaning="percent: what is a lesion"),
    Parameter(name="smallest", default=10.0, low=0.0, high=30.0, meaning="ml: smaller pieces are left out"),
    Parameter(name="smoothing", default=0.0, low=0.0, high=20.0, meaning="of the map, sigma in mm"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("--table", type=Path, help="CSV: case,typicality,pcr (default: cases.csv of the data folder)")
    parser.add_argument(
        "--probabilities",
        type=Path,
        help="folder of CASE_REGION.nii.gz, percent (default: probabilities of the data folder)",
    )
    parser.add_argument("--region", default="abnormal", help="a label of dataset.json (default: %(default)s)")
    parser.add_argument(
        "--typicality", nargs="+", default=["1", "2", "3", "4"], metavar="GROUP", help="(default: 1 2 3 4)"
    )
    parser.add_argument("--pcr", nargs="+", default=["P", "U", "N"], metavar="GROUP", help="(default: P U N)")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--fold", type=int, help="of a split file with folds, from 1 (default: the trial's run)")
    parser.add_argument("--test", action="store_true", help="measure the test cases too: for the final choice alone")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Measure all cases of the table, and report the error over the validation cases.

    Raises
    ------
    WorkloadError
        If the table, a map, a mask or a parameter cannot be used.
    """
    params = resolve(PARAMETERS, given)
    prepare(None)
    allowed = {"typicality": options.typicality, "pcr": options.pcr}
    table = options.table or options.data / "cases.csv"
    groups = read_groups(table, allowed)
    dataset = open_dataset(options.data)
    split = read_split(
        options.split or options.data / "splits.json",
        dataset,
        fold=options.fold,
        run=trial.run() if trial.runs() > 1 else None,
    )
    for case in groups:
        if case not in dataset.files:
            raise WorkloadError(
                f"{table}: names case {case!r}, which {options.data} does not have",
                hint=did_you_mean(case, dataset.files),
            )
    for case in (*split.validation, *(split.test if options.test else ())):
        if case not in groups:
            raise WorkloadError(f"{table}: lacks case {case!r}, which is to be measured")
    folder = options.probabilities or options.data / "probabilities"
    marked = [mark(dataset, case, folder, options.region, **params) for case in groups]
    measured = [
        Measured(
            case=each.case.name,
            groups=groups[each.case.name],
            volume=millilitres(each.mask, each.case.label.affine),
            reference=millilitres(each.truth, each.case.label.affine),
        )
        for each in marked
    ]
    metrics = _errors([each for each in measured if each.case in split.validation])
    if options.test:
        tested = _errors([each for each in measured if each.case in split.test])
        metrics |= {f"test_{name}": value for name, value in tested.items()}
    out = options.out or Path(trial.artifacts_dir())
    write_tables(out, measured, allowed)
    write_box_plot(out / "boxplot.png", measured, allowed)
    write_marked_overview(out / NAME, [each for each in marked if each.case.name in split.validation], options.region)
    trial.report(1, metrics["volume_error"])
    trial.finish(
        metrics,
        {
            "params": params,
            "region": options.region,
            "tests": compared_groups(measured, allowed),
            "data": checksum(dataset, groups),
            "versions": versions("scipy", "numpy", "nibabel", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
        },
    )


def _errors(measured: Sequence[Measured]) -> dict[str, float]:
    """``volume_error``, the mean absolute error, and ``volume_bias``, the mean error, both in ml."""
    errors = np.array([each.volume - each.reference for each in measured])
    return {"volume_error": float(np.mean(np.abs(errors))), "volume_bias": float(np.mean(errors))}


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    graded_lungs.add_arguments(parser)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write chests with lesions that grow with typicality, a segmenter's maps of them, and the table of groups."""
    graded_lungs.make_dataset(options)
