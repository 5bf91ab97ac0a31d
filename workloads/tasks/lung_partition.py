"""Lung regions without labels: patches into normal, ground glass and consolidation by learnt features and k-means.

A dictionary of small patches is learnt by spherical k-means (Coates and Ng 2012); the codes pooled over a patch, and
its mean density, go to k-means with as many clusters as there are regions; the patches that a voxel lies in vote.
Training cases' labels say where the lung is and, at the end, which cluster is which region: no more is learnt from them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator import trial
from workloads.errors import WorkloadError
from workloads.evaluation.partition import name_clusters, partition, summarise, write_artifacts
from workloads.models.partitioner import of_patches, of_voxels
from workloads.models.spherical_kmeans import ENCODINGS, NORMALISATIONS
from workloads.parameters import Parameter, resolve
from workloads.phantoms import datasets
from workloads.phantoms.lung_patterns import LABELS, LungPatternsPhantom, make_case
from workloads.training.setup import peak_memory, prepare, versions
from workloads.trials import patches

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

SUMMARY = "normal lung, ground glass and consolidation in CT, unsupervised: spherical k-means (no TensorFlow)"

PARAMETERS = (
    Parameter(name="atom", default=3, low=2, high=6, meaning="side of a small patch, voxels"),
    Parameter(name="atoms", default=32, low=4, high=128, log=True, meaning="in the dictionary"),
    Parameter(name="normalisation", default="none", choices=NORMALISATIONS, meaning="of small patches"),
    Parameter(name="whitening", default=0.3, low=1e-3, high=10.0, log=True, meaning="added to each variance"),
    Parameter(name="encoding", default="soft", choices=ENCODINGS, meaning="of a small patch by the dictionary"),
    Parameter(name="threshold", default=0.5, low=0.0, high=3.0, meaning="of the code", when={"encoding": ("soft",)}),
    Parameter(name="patch", default=3, low=1, high=11, meaning="side of a patch, voxels along x and y"),
    Parameter(name="slices", default=1, low=1, high=3, meaning="of a patch"),
    Parameter(name="stride", default=1, low=1, high=4, meaning="from patch to patch, voxels along x and y"),
    Parameter(name="density", default=4.0, low=0.0, high=10.0, meaning="weight of a patch's mean beside its code"),
    Parameter(name="smoothing", default=3.0, low=0.0, high=20.0, meaning="of the votes, sigma in mm"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--fold", type=int, help="of a split file with folds, from 1 (default: the trial's run)")
    parser.add_argument("--spacing", type=float, nargs=3, metavar="MM", help="resample to this")
    parser.add_argument("--test", action="store_true", help="partition the test cases too: for the final choice alone")
    parser.add_argument("--no-predictions", action="store_true", help="write no partitions as NIfTI")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")
    parser.set_defaults(patch=(1, 1, 1))  # a patch may reach beyond the volume


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Learn from the training cases, partition the validation cases, and report how that agrees with the truth.

    Raises
    ------
    WorkloadError
        If the data or a parameter cannot be used, a case has no lung, or there are fewer patches than clusters.
    """
    params = resolve(PARAMETERS, given)
    if options.spacing and min(options.spacing) <= 0:
        raise WorkloadError("--spacing must be positive")
    prepare(options.threads)
    seed = patches.seed_of(options)
    data = patches.read_data(options)
    _check(data)
    labels, groups = data.labels, len(data.labels) - 1
    started = time.monotonic()
    ways = {
        "": of_patches(data.training, params, groups=groups, seed=seed),
        "_voxels": of_voxels(data.training, groups=groups, seed=seed),
    }
    named = {
        name: name_clusters(data.training, [way(case) for case in data.training], labels) for name, way in ways.items()
    }
    seconds = time.monotonic() - started
    out = options.out or Path(trial.artifacts_dir())
    metrics: dict[str, float] = {}
    for prefix, cases, folder in (("", data.validation, out), ("test_", data.test, out / "test")):
        if not cases:
            continue
        found = {name: partition(cases, [way(case) for case in cases], named[name]) for name, way in ways.items()}
        metrics |= {f"{prefix}{name}": value for name, value in summarise(found[""], labels).items()}
        metrics[f"{prefix}ari_voxels"] = summarise(found["_voxels"], labels)["ari"]
        write_artifacts(folder, found[""], labels, beside=found["_voxels"], predictions=not options.no_predictions)
    trial.report(1, metrics["ari"])
    trial.finish(
        {**metrics, "train_seconds": seconds},
        {
            "seed": seed,
            "params": params,
            "data": data.checksum,
            "versions": versions("scikit-learn", "numpy", "nibabel", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
        },
    )


def _check(data: patches.Data) -> None:
    """Make sure that there are regions to tell apart, and a lung in each case."""
    if sorted(data.labels.values()) != list(range(len(data.labels))) or len(data.labels) < 3:
        raise WorkloadError(
            f"dataset.json: labels are numbered {sorted(data.labels.values())}",
            hint="a partition needs 0 for background and 1, 2, ... for at least two regions, without a gap",
        )
    for part, cases in {"train": data.training, "validation": data.validation, "test": data.test}.items():
        for case in cases:
            if not case.lesion.any():
                raise WorkloadError(
                    f"{case.label.path}: has no lung", hint="label its lung, or take the case out of the split"
                )
        for name, number in data.labels.items():
            if number and cases and not any((case.label.array == number).any() for case in cases):
                raise WorkloadError(
                    f'no case of the split\'s "{part}" has label "{name}"', hint="its Dice could not be measured"
                )


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    datasets.add_arguments(parser, LungPatternsPhantom(), train=12, validation=6, test=6)


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``; abnormal lungs have one to four regions of each kind."""
    datasets.make_dataset(
        options, LungPatternsPhantom(), make_case, name="lungs", channel="CT", labels=LABELS, further=0.7, most=4
    )
