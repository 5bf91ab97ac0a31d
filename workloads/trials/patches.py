"""What trials on patches of whole volumes share: their command line, their data, their training, their record."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orchestrator import trial
from workloads.data.dataset import Case, checksum, load_case, open_dataset
from workloads.data.patches import Shape, check_patch
from workloads.data.splits import Split, read_split
from workloads.errors import WorkloadError
from workloads.training.checkpoint import Checkpoints
from workloads.training.loop import Arrays, Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions
from workloads.training.step import add_memory_arguments, check_memory_options

__all__ = [
    "Data",
    "add_arguments",
    "check_options",
    "patch_shape",
    "read_data",
    "record",
    "seed_of",
    "step_of",
    "train_on_patches",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The cases of a split, in memory.

    Attributes
    ----------
    labels : mapping
        Name of each label to its number.
    channels : tuple of str
        What the images are of, in the order of their channels.
    checksum : str
        Over the files of all these cases.
    """

    labels: Mapping[str, int]
    channels: tuple[str, ...]
    split_file: Path
    split: Split
    training: list[Case]
    validation: list[Case]
    test: list[Case]
    checksum: str


def add_arguments(
    parser: argparse.ArgumentParser, *, epochs: int, patches: int, patch: tuple[int, ...], window: int | None
) -> None:
    """Say what the command line of a trial may have; the defaults differ between tasks."""
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--fold", type=int, help="of a split file with folds, from 1 (default: the trial's run)")
    parser.add_argument("--epochs", type=int, default=epochs, help="(default: %(default)s)")
    parser.add_argument("--patches", type=int, default=patches, help="patches of one epoch (default: %(default)s)")
    parser.add_argument("--patch", type=int, nargs=len(patch), default=patch, metavar="N", help="voxels, even numbers")
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar="MM", help="resample to this (default: as the files are)"
    )
    parser.add_argument(
        "--window", type=int, default=window, help="longest side computed at once (default: %(default)s)"
    )
    parser.add_argument("--mixed", action="store_true", help="compute in half precision, keep weights in single")
    add_memory_arguments(parser)
    parser.add_argument("--report-every", type=int, default=3, metavar="EPOCHS", help="validate after so many epochs")
    parser.add_argument("--test", action="store_true", help="evaluate the test cases too: for the final choice alone")
    parser.add_argument("--no-predictions", action="store_true", help="write no predictions as NIfTI")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def patch_shape(options: argparse.Namespace) -> Shape:
    """The patch in three dimensions: of a task on slices one voxel thick."""
    x, y, z = (*options.patch, 1)[:3]
    return x, y, z


def check_options(options: argparse.Namespace, multiple: int) -> None:
    """Make sure of what `add_arguments` asks for; sides of patch and window have to be multiples of ``multiple``.

    Raises
    ------
    WorkloadError
        If an option cannot be.
    """
    for name in ("epochs", "patches", "window", "report_every"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    patch, window = tuple(options.patch), () if options.window is None else (options.window,)
    if any(side < multiple or side % multiple for side in (*patch, *window)):
        found = ", ".join(str(each) for each in (patch, *window))
        raise WorkloadError(f"--patch and --window must be multiples of {multiple}, not {found}")
    if options.spacing and min(options.spacing) <= 0:
        raise WorkloadError("--spacing must be positive")
    check_memory_options(options)


def seed_of(options: argparse.Namespace) -> int:
    """The seed of a training: the command line's, else the trial's, else 0."""
    return int(next(value for value in (options.seed, trial.seed(), 0) if value is not None)) % 2**32


def read_data(options: argparse.Namespace, *, channels: Sequence[str] | Literal["one"] = "one") -> Data:
    """Read the cases that the split names, and the test cases if they are asked for; ``channels`` as in `open_dataset`.

    Raises
    ------
    WorkloadError
        If a file, the split, or the patch in a training case cannot be used.
    """
    dataset = open_dataset(options.data, channels=channels)
    run_of_trial = trial.run() if trial.runs() > 1 else None
    split_file = options.split or options.data / "splits.json"
    split = read_split(split_file, dataset, fold=options.fold, run=run_of_trial)
    if options.test and not split.test:
        raise WorkloadError(
            f"{split_file}: the split has no test cases", hint='name some as "test", or leave out --test'
        )
    spacing = tuple(options.spacing) if options.spacing else None
    names = split.train + split.validation + (split.test if options.test else ())
    cases = {name: load_case(dataset, name, spacing=spacing) for name in names}
    training = [cases[name] for name in split.train]
    check_patch(training, patch_shape(options))
    return Data(
        labels=dataset.labels,
        channels=dataset.channels,
        split_file=split_file,
        split=split,
        training=training,
        validation=[cases[name] for name in split.validation],
        test=[cases[name] for name in split.test] if options.test else [],
        checksum=checksum(dataset, names),
    )


def train_on_patches(
    model: Any,
    data: Data,
    options: argparse.Namespace,
    settings: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    seed: int,
    loss: Callable[[Any, Any], Any],
    draw: Callable[[np.random.Generator], Arrays],
    measure: Callable[[], float],
    strategy: Any,
    part: str = "",
    before: int = 0,
) -> Trained:
    """Train ``model``, go on from the trial's checkpoint if there is one, report on the way.

    Ahead of the walltime the training is saved, and the program asks for another attempt (exit code 85).

    Parameters
    ----------
    params : mapping
        The hyperparameters that make this training another than the next; ``settings`` has what is fixed too.
    draw : callable
        Draws the patches of an epoch and their targets.
    measure : callable
        The objective's value now, over the validation cases.
    part, before : str and int
        Of a trial that trains one network after the other, which of them this is: it has checkpoints of its own, the
        last of which tells a later attempt that it is done. The epochs before it, which its reports count on from.
    """
    what = {"params": params, "seed": seed, "data": data.checksum, "split": [data.split.train, data.split.validation]}
    what |= {"epochs": options.epochs, "patches": options.patches, "patch": patch_shape(options)}
    checkpoints = Checkpoints(
        what | {"mixed": options.mixed, "spacing": tuple(options.spacing) if options.spacing else None},
        folder=str(Path(place, part)) if part and (place := os.environ.get("SURVEY_CHECKPOINT")) else None,
    )
    rng = np.random.default_rng(seed)

    def after_epoch(epoch: int, _loss: float) -> bool:
        if epoch % options.report_every == 0 and epoch < options.epochs:
            trial.report(before + epoch, measure())
        return trial.should_stop() or (bool(part) and epoch == options.epochs)

    with strategy.scope():
        optimizer = make_optimizer(
            settings["optimizer"],
            learning_rate=settings["learning_rate"],
            momentum=settings["momentum"],
            weight_decay=settings["weight_decay"],
            steps=options.epochs * math.ceil(options.patches / settings["batch_size"]),
        )
    trained = train(
        model,
        optimizer=optimizer,
        loss=loss,
        epoch_data=lambda _epoch: draw(rng),
        epochs=options.epochs,
        batch_size=settings["batch_size"],
        after_epoch=after_epoch,
        checkpoints=checkpoints,
        generators={"data": rng},
        strategy=strategy,
        accumulate=options.accumulate,
        recompute=options.recompute,
    )
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    return trained


def record(data: Data, trained: Trained, *, params: Mapping[str, Any], seed: int, strategy: Any) -> dict[str, Any]:
    """What the result says of a training besides its metrics."""
    return {
        "diverged": trained.diverged,
        "stopped": trained.stopped,
        "losses": [round(value, 5) for value in trained.losses if np.isfinite(value)],
        "seed": seed,
        "params": params,
        "cases": {
            "train": len(data.split.train),
            "validation": len(data.split.validation),
            "test": len(data.split.test),
        },
        **({"fold": data.split.fold} if data.split.fold else {}),
        "data": data.checksum,
        "versions": versions("tensorflow", "keras", "numpy", "nibabel", "survey-orchestrator"),
        "peak_memory_mib": round(peak_memory(), 1),
        "devices": strategy.num_replicas_in_sync,
    }


def step_of(
    build: Callable[[], Any], make_loss: Callable[[Any], Callable[[Any, Any], Any]], *, classes: int, channels: int = 1
) -> Callable[..., float]:
    """A training step on random patches for `workloads.training.fit`: two are done, the second one timed.

    It takes a patch, a batch, and ``accumulate`` and ``recompute`` as `workloads.training.loop.train` does.

    Parameters
    ----------
    make_loss : callable
        The loss for a model that ``build`` made.
    classes, channels : int
        Channels of a target, and of an image.
    """

    def step(patch: tuple[int, ...], batch: int, *, accumulate: int = 1, recompute: bool = False) -> float:
        import_tensorflow(threads=prepare(None), seed=0)
        model, rng, times = build(), np.random.default_rng(0), []

        def epoch_data(_epoch: int) -> Arrays:
            images = rng.normal(size=(batch, *patch, channels)).astype(np.float32)
            targets = np.zeros((batch, *patch, classes), dtype=np.float32)
            targets[..., 0] = 1.0
            return images, targets

        def after_epoch(_epoch: int, _loss: float) -> bool:
            times.append(time.monotonic())
            return False

        train(
            model,
            optimizer=make_optimizer("adam", learning_rate=1e-3, momentum=0.9, weight_decay=0.0, steps=2),
            loss=make_loss(model),
            epoch_data=epoch_data,
            epochs=2,
            batch_size=batch,
            after_epoch=after_epoch,
            accumulate=accumulate,
            recompute=recompute,
        )
        return times[1] - times[0]

    return step
