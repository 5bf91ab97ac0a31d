"""Detection of cerebral aneurysms in MR angiograms: a fixed 3D CNN with nine hyperparameters.

Patches of the training cases train a fully convolutional network; over the validation cases it gives
a probability map, whose local maxima are the candidates; their FROC curve up to 3 false positives per
case is the objective, as in Nakao et al., J Magn Reson Imaging 47:948-953 (2018).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.data.augmentation import augment
from workloads.data.dataset import Case, checksum, load_case, open_dataset, read_split
from workloads.data.patches import Shape, check_patch, draw_patches, patch_source
from workloads.data.phantom_vessels import VesselPhantom, make_case
from workloads.data.phantoms import write_dataset
from workloads.detection import Detected, detect, summarise, write_artifacts
from workloads.errors import WorkloadError
from workloads.losses import detection_loss
from workloads.metrics.froc import NORMALISATION, partial_area_interval
from workloads.metrics.matching import Matching, MatchRule
from workloads.models.detector import SIZE_MULTIPLE, detector
from workloads.parameters import Parameter, resolve
from workloads.training.checkpoint import Checkpoints
from workloads.training.inference import compiled
from workloads.training.loop import OPTIMIZERS, Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions

__all__ = ["PARAMETERS", "SUMMARY", "add_arguments", "add_phantom_arguments", "make_phantoms", "run"]

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
# Fixed, because they were measured to matter less than the seed does:
DICE_WEIGHT = 0.3  # share of the Dice loss
DROPOUT = 0.1
AUGMENTATION = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--patches", type=int, default=96, help="patches of one epoch (default: %(default)s)")
    parser.add_argument("--patch", type=int, nargs=3, default=(12, 12, 12), metavar="N", help="voxels, even numbers")
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar="MM", help="resample to this (default: as the files are)"
    )
    parser.add_argument("--window", type=int, default=64, help="longest side computed at once (default: %(default)s)")
    parser.add_argument("--match", choices=[rule.value for rule in MatchRule], default="inside", help="what is a hit")
    parser.add_argument("--match-length", type=float, default=0.0, metavar="MM", help="tolerance or radius of --match")
    parser.add_argument("--report-every", type=int, default=3, metavar="EPOCHS", help="validate after so many epochs")
    parser.add_argument("--test", action="store_true", help="evaluate the test cases too: for the final choice alone")
    parser.add_argument("--no-predictions", action="store_true", help="write no probability maps")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one detector and report it.

    Ahead of the walltime the training is saved, and the program asks for another attempt, which goes
    on with it (exit code 85).

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(PARAMETERS, given)
    patch: Shape = tuple(options.patch)
    _check_options(options, patch)
    threads = prepare(options.threads)
    seed = next(value for value in (options.seed, trial.seed(), 0) if value is not None) % 2**32
    dataset = open_dataset(options.data)
    split = read_split(options.split or options.data / "splits.json", dataset)
    spacing = tuple(options.spacing) if options.spacing else None
    names = split.train + split.validation + (split.test if options.test else ())
    cases = {name: load_case(dataset, name, spacing=spacing) for name in names}
    training = [cases[name] for name in split.train]
    validation = [cases[name] for name in split.validation]
    check_patch(training, patch)
    _check_lesions({"train": training, "validation": validation})
    if options.test:
        _check_lesions({"test": [cases[name] for name in split.test]})

    data = checksum(dataset, names)
    what = {"params": params, "seed": seed, "data": data, "split": [split.train, split.validation]}
    what |= {"epochs": options.epochs, "patches": options.patches, "patch": patch, "spacing": spacing}
    checkpoints = Checkpoints(what)

    matching = Matching(rule=MatchRule(options.match), length=options.match_length)
    import_tensorflow(threads=threads, seed=seed)
    model = detector(dropout=DROPOUT)
    network = compiled(model)

    def examine(chosen: Sequence[Case]) -> list[Detected]:
        return detect(
            network,
            chosen,
            smoothing=params["smoothing"],
            matching=matching,
            window=options.window,
            multiple=SIZE_MULTIPLE,
        )

    def after_epoch(epoch: int, _loss: float) -> bool:
        if epoch % options.report_every == 0 and epoch < options.epochs:
            trial.report(epoch, summarise(examine(validation))["pauc"])
        return trial.should_stop()

    trained = _train(model, training, options, params, seed, after_epoch, checkpoints)
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    detected = examine(validation)
    metrics = {**summarise(detected), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics["pauc"])
    if options.test:
        tested = summarise(examine([cases[name] for name in split.test]))
        metrics.update({f"test_{name}": value for name, value in tested.items()})

    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, detected, predictions=not options.no_predictions)
    model.save(out / "model.keras")
    interval = partial_area_interval([case.detections for case in detected], 3.0)
    trial.finish(
        metrics,
        {
            "matching": matching.describe(),
            "normalisation": NORMALISATION,
            "pauc_interval": asdict(interval),
            "diverged": trained.diverged,
            "stopped": trained.stopped,
            "losses": [round(value, 5) for value in trained.losses if np.isfinite(value)],
            "seed": seed,
            "params": params,
            "cases": {"train": len(training), "validation": len(validation), "test": len(split.test)},
            "data": data,
            "versions": versions("tensorflow", "keras", "numpy", "nibabel", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
        },
    )


def _check_options(options: argparse.Namespace, patch: Shape) -> None:
    for name in ("epochs", "patches", "window", "report_every"):
        if getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in (*patch, options.window)):
        raise WorkloadError(f"--patch and --window must be multiples of {SIZE_MULTIPLE}, not {patch}, {options.window}")
    if options.match == MatchRule.CENTRE and options.match_length <= 0:
        raise WorkloadError("--match centre needs a radius in mm", hint="as in --match centre --match-length 3")
    if options.spacing and min(options.spacing) <= 0:
        raise WorkloadError("--spacing must be positive")


def _check_lesions(parts: Mapping[str, Sequence[Case]]) -> None:
    for part, cases in parts.items():
        if not any(case.lesion.any() for case in cases):
            raise WorkloadError(
                f'no case of the split\'s "{part}" has a lesion', hint="without one there is no sensitivity to measure"
            )


def _train(
    model: Any,
    cases: Sequence[Case],
    options: argparse.Namespace,
    params: Mapping[str, Any],
    seed: int,
    after_epoch: Callable[[int, float], bool],
    checkpoints: Checkpoints,
) -> Trained:
    rng = np.random.default_rng(seed)
    sources = [patch_source(case, sigma=params["target_sigma"]) for case in cases]
    shape: Shape = tuple(options.patch)
    fraction = params["lesion_fraction"]

    def epoch_data(_epoch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        drawn = draw_patches(rng, sources, shape=shape, count=options.patches, lesion_fraction=fraction)
        return augment(rng, *drawn, AUGMENTATION)

    batch_size = params["batch_size"]
    optimizer = make_optimizer(
        params["optimizer"],
        learning_rate=params["learning_rate"],
        momentum=params["momentum"],
        weight_decay=params["weight_decay"],
        steps=options.epochs * math.ceil(options.patches / batch_size),
    )
    return train(
        model,
        optimizer=optimizer,
        loss=detection_loss(positive_weight=params["positive_weight"], dice_weight=DICE_WEIGHT),
        epoch_data=epoch_data,
        epochs=options.epochs,
        batch_size=batch_size,
        after_epoch=after_epoch,
        checkpoints=checkpoints,
        generators={"data": rng},
    )


def add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of the phantoms may have."""
    parser.add_argument("--train", type=int, default=48, help="training cases (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=48, help="validation cases (default: %(default)s)")
    parser.add_argument("--test", type=int, default=24, help="test cases (default: %(default)s)")
    parser.add_argument(
        "--normal-fraction", type=float, default=0.25, help="cases without a lesion (default: %(default)s)"
    )
    parser.add_argument("--shape", type=int, nargs=3, default=VesselPhantom().shape, metavar="N", help="voxels")
    parser.add_argument(
        "--noise", type=float, default=VesselPhantom().noise, help="vessels are 1 (default: %(default)s)"
    )
    parser.add_argument(
        "--confounders", type=float, default=VesselPhantom().confounders, help="mean number of each kind"
    )


def make_phantoms(options: argparse.Namespace) -> None:
    """Write a data set of phantoms to ``options.out``.

    Raises
    ------
    WorkloadError
        If the folder holds one already, or the options leave no room for a lesion.
    """
    if not 0.0 <= options.normal_fraction < 1.0:
        raise WorkloadError(f"--normal-fraction must be at least 0 and below 1, not {options.normal_fraction:g}")
    phantom = VesselPhantom(shape=tuple(options.shape), noise=options.noise, confounders=options.confounders)
    try:
        write_dataset(
            options.out,
            name="vessels",
            channel="MRA",
            lesion="aneurysm",
            sizes={"train": options.train, "validation": options.validation, "test": options.test},
            normal_fraction=options.normal_fraction,
            seed=options.seed,
            make=lambda rng, lesions: make_case(rng, phantom, lesions=lesions),
        )
    except ValueError as error:
        raise WorkloadError(str(error), hint="choose a larger --shape") from None
