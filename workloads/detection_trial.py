"""One trial of a detector, from the command line to the result: what all detection tasks share.

Patches of the training cases train a fully convolutional network; over the validation cases it gives a
probability map, whose local maxima are the candidates; the area under their FROC curve is the objective.
A task says which network, which hyperparameters, and up to how many false positives per case.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.data.augmentation import augment
from workloads.data.dataset import Case, checksum, load_case, open_dataset, read_split
from workloads.data.patches import Shape, check_patch, draw_patches, patch_source
from workloads.detection import Detected, detect, summarise, write_artifacts
from workloads.errors import WorkloadError
from workloads.losses import detection_loss
from workloads.metrics.froc import NORMALISATION, partial_area_interval
from workloads.metrics.matching import Matching, MatchRule
from workloads.parameters import Parameter, resolve
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.inference import compiled
from workloads.training.loop import Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions

__all__ = ["DetectionTask", "add_arguments", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionTask:
    """What makes a detection task.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched.
    fixed : mapping
        What is not: together they give ``learning_rate``, ``optimizer``, ``momentum``, ``batch_size``,
        ``weight_decay``, ``lesion_fraction``, ``positive_weight``, ``dice_weight``, ``target_sigma``,
        ``smoothing`` and ``augmentation``, and what ``build`` wants to know.
    build : callable
        The network of a set of hyperparameters: from (batch, x, y, z, 1) to logits of the same shape.
    multiple : int
        Of which the sides of volumes and patches have to be multiples.
    objective : str
        The name of the objective, ``pauc`` or ``pauc_10``, which is reported on the way.
    limit : float
        False positives per case up to which the objective's area goes.
    """

    parameters: tuple[Parameter, ...]
    build: Callable[[Mapping[str, Any]], Any]
    multiple: int
    objective: str
    limit: float
    fixed: Mapping[str, Any] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a detector's trial may have."""
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


def run(task: DetectionTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one detector and report it.

    Ahead of the walltime the training is saved, and the program asks for another attempt, which goes
    on with it (exit code 85).

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {**task.fixed, **params}
    patch: Shape = tuple(options.patch)
    _check_options(options, patch, task.multiple)
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
    strategy = make_strategy()
    with strategy.scope():
        model = task.build(settings)
    network = compiled(model)

    def examine(chosen: Sequence[Case]) -> list[Detected]:
        return detect(
            network,
            chosen,
            smoothing=settings["smoothing"],
            matching=matching,
            window=options.window,
            multiple=task.multiple,
        )

    def after_epoch(epoch: int, _loss: float) -> bool:
        if epoch % options.report_every == 0 and epoch < options.epochs:
            trial.report(epoch, summarise(examine(validation))[task.objective])
        return trial.should_stop()

    trained = _train(model, training, options, settings, seed, after_epoch, checkpoints, strategy)
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    detected = examine(validation)
    metrics = {**summarise(detected), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics[task.objective])
    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, detected, predictions=not options.no_predictions)
    if options.test:
        tested = examine([cases[name] for name in split.test])
        metrics.update({f"test_{name}": value for name, value in summarise(tested).items()})
        write_artifacts(out / "test", tested, predictions=not options.no_predictions)
    model.save(out / "model.keras")
    interval = partial_area_interval([case.detections for case in detected], task.limit)
    trial.finish(
        metrics,
        {
            "matching": matching.describe(),
            "normalisation": NORMALISATION,
            f"{task.objective}_interval": asdict(interval),
            "diverged": trained.diverged,
            "stopped": trained.stopped,
            "losses": [round(value, 5) for value in trained.losses if np.isfinite(value)],
            "seed": seed,
            "params": params,
            "cases": {"train": len(training), "validation": len(validation), "test": len(split.test)},
            "data": data,
            "versions": versions("tensorflow", "keras", "numpy", "nibabel", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
            "devices": strategy.num_replicas_in_sync,
        },
    )
    wait_for_chief(strategy)


def _check_options(options: argparse.Namespace, patch: Shape, multiple: int) -> None:
    for name in ("epochs", "patches", "window", "report_every"):
        if getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    if any(side < multiple or side % multiple for side in (*patch, options.window)):
        raise WorkloadError(f"--patch and --window must be multiples of {multiple}, not {patch}, {options.window}")
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
    settings: Mapping[str, Any],
    seed: int,
    after_epoch: Callable[[int, float], bool],
    checkpoints: Checkpoints,
    strategy: Any,
) -> Trained:
    rng = np.random.default_rng(seed)
    sources = [patch_source(case, sigma=settings["target_sigma"]) for case in cases]
    shape: Shape = tuple(options.patch)
    fraction = settings["lesion_fraction"]

    def epoch_data(_epoch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        drawn = draw_patches(rng, sources, shape=shape, count=options.patches, lesion_fraction=fraction)
        return augment(rng, *drawn, settings["augmentation"])

    batch_size = settings["batch_size"]
    with strategy.scope():
        optimizer = make_optimizer(
            settings["optimizer"],
            learning_rate=settings["learning_rate"],
            momentum=settings["momentum"],
            weight_decay=settings["weight_decay"],
            steps=options.epochs * math.ceil(options.patches / batch_size),
        )
    return train(
        model,
        optimizer=optimizer,
        loss=detection_loss(positive_weight=settings["positive_weight"], dice_weight=settings["dice_weight"]),
        epoch_data=epoch_data,
        epochs=options.epochs,
        batch_size=batch_size,
        after_epoch=after_epoch,
        checkpoints=checkpoints,
        generators={"data": rng},
        strategy=strategy,
    )
