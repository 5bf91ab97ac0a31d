"""One trial of a segmenter, from the command line to the result: what all segmentation tasks share.

Patches of the training cases, or of their slices, train a network that gives each voxel its class; validation cases
are segmented whole, in windows, and the mean Dice of their regions is the objective.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator import trial
from workloads.data.augmentation import augment
from workloads.data.dataset import Case
from workloads.data.deformation import deform
from workloads.data.patches import class_source, draw_patches
from workloads.errors import WorkloadError
from workloads.evaluation.segmentation import (
    Refine,
    Segmented,
    dice_interval,
    draw,
    segment,
    summarise,
    write_artifacts,
)
from workloads.losses import deep_supervision, segmentation_loss
from workloads.parameters import Parameter, resolve
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.fit import Step
from workloads.training.inference import compiled
from workloads.training.loop import Arrays
from workloads.training.setup import import_tensorflow, prepare
from workloads.trials import patches
from workloads.trials.patches import Data

__all__ = ["SegmentationTask", "add_arguments", "checked_labels", "drawing", "loss_of", "run", "step", "windows"]

ALL_SLICES = 2**20  # more than a volume has: a network of slices takes them all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationTask:
    """What makes a segmentation task.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched.
    fixed : mapping
        What is not: together they give ``learning_rate``, ``optimizer``, ``momentum``, ``batch_size``,
        ``weight_decay``, ``overlap``, ``entropy_share``, ``rare_fraction`` and ``augmentation``, and what
        ``build`` wants to know.
    build : callable
        The network of a set of hyperparameters for a number of classes. It may give several answers, as
        `workloads.losses.deep_supervision` takes them.
    multiple : callable
        Of which the sides of patches have to be multiples, with a set of hyperparameters.
    patch : tuple of int
        The default patch: of two sides for a network of slices.
    epochs, patches : int
        Defaults of the training's length.
    check : callable, optional
        Raises `WorkloadError` where the data, with the command line's options, cannot be used.
    refine : callable, optional
        With a set of hyperparameters, what is done with a prediction before it is measured.
    """

    parameters: tuple[Parameter, ...]
    build: Callable[[Mapping[str, Any], int], Any]
    multiple: Callable[[Mapping[str, Any]], int]
    patch: tuple[int, ...]
    epochs: int
    patches: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Data, argparse.Namespace], None] | None = None
    refine: Callable[[Mapping[str, Any]], Refine] | None = None


def add_arguments(task: SegmentationTask, parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a segmenter's trial may have."""
    patches.add_arguments(parser, epochs=task.epochs, patches=task.patches, patch=task.patch, window=None)
    parser.add_argument(
        "--tolerance", type=float, default=10.0, metavar="MM", help="of surface Dice (default: %(default)s)"
    )


def run(task: SegmentationTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one segmenter and report it; ahead of the walltime as in `workloads.trials.detection.run`.

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {**task.fixed, **params}
    side = task.multiple(settings)
    patches.check_options(options, side)
    if options.tolerance < 0:
        raise WorkloadError("--tolerance must not be negative")
    threads = prepare(options.threads)
    seed = patches.seed_of(options)
    data = patches.read_data(options)
    labels = checked_labels(data)
    if task.check is not None:
        task.check(data, options)
    refine = None if task.refine is None else task.refine(settings)

    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
    strategy = make_strategy()
    with strategy.scope():
        model = task.build(settings, len(labels))
    network = compiled(model)

    def examine(chosen: Sequence[Case]) -> list[Segmented]:
        window, multiple = windows(options, side)
        return segment(network, chosen, labels, window=window, multiple=multiple, refine=refine)

    def measures(segmented: Sequence[Segmented]) -> dict[str, float]:
        return summarise(segmented, labels, tolerance=options.tolerance)

    trained = patches.train_on_patches(
        model,
        data,
        options,
        settings,
        params=params,
        seed=seed,
        loss=loss_of(settings, model, len(labels)),
        draw=drawing(data.training, options, settings, len(labels)),
        measure=lambda: measures(examine(data.validation))["dice"],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    segmented = examine(data.validation)
    metrics = {**measures(segmented), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics["dice"])
    out = options.out or Path(trial.artifacts_dir())
    keep = {"tolerance": options.tolerance, "predictions": not options.no_predictions}
    write_artifacts(out, segmented, labels, **keep)
    draw(out, segmented, labels)
    if options.test:
        tested = examine(data.test)
        metrics.update({f"test_{name}": value for name, value in measures(tested).items()})
        write_artifacts(out / "test", tested, labels, **keep)
    model.save(out / "model.keras")
    trial.finish(
        metrics,
        {
            "tolerance_mm": options.tolerance,
            "dice_interval": asdict(dice_interval(segmented, labels)),
            **{
                f"dice_{name}_interval": asdict(dice_interval(segmented, labels, region=name))
                for name, number in labels.items()
                if number
            },
            **patches.record(data, trained, params=params, seed=seed, strategy=strategy),
        },
    )
    wait_for_chief(strategy)


def windows(options: argparse.Namespace, side: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Windows in which volumes are computed, and of which their sides are multiples, for sides of patches of ``side``.

    Windows are as large as the patches, unless others are asked for: the normalisation is over one of them.
    """
    x, y, z = patches.patch_shape(options) if options.window is None else (options.window,) * 3
    slices = len(options.patch) == 2
    return (x, y, ALL_SLICES if slices else z), (side, side, 1 if slices else side)


def step(task: SegmentationTask, given: Mapping[str, Any], *, classes: int) -> Step:
    """What one step of a training trains, with a set of hyperparameters."""
    settings = {**task.fixed, **resolve(task.parameters, given)}
    trained = patches.step_of(
        lambda: task.build(settings, classes), lambda model: loss_of(settings, model, classes), classes=classes
    )
    return Step(run=trained, patch=task.patch, multiple=task.multiple(settings))


def loss_of(settings: Mapping[str, Any], model: Any, classes: int) -> Callable[[Any, Any], Any]:
    """The loss of a model, which may give several answers."""
    loss = segmentation_loss(overlap=settings["overlap"], entropy_share=settings["entropy_share"])
    return deep_supervision(loss, model.output_shape[-1] // classes)


def checked_labels(data: Data) -> Mapping[str, int]:
    """The labels, if they are numbered without a gap and each occurs where it has to be learnt and measured.

    Raises
    ------
    WorkloadError
        If it is not so.
    """
    if sorted(data.labels.values()) != list(range(len(data.labels))) or len(data.labels) < 2:
        raise WorkloadError(
            f"dataset.json: labels are numbered {sorted(data.labels.values())}",
            hint="a segmentation needs 0 for background and 1, 2, ... for regions, without a gap",
        )
    for part, cases in {"train": data.training, "validation": data.validation, "test": data.test}.items():
        for name, number in data.labels.items():
            if number and cases and not any((case.label.array == number).any() for case in cases):
                raise WorkloadError(
                    f'{data.split_file}: no case of the split\'s "{part}" has label "{name}"',
                    hint="its Dice could not be measured",
                )
    return data.labels


def drawing(
    cases: Sequence[Case], options: argparse.Namespace, settings: Mapping[str, Any], classes: int
) -> Callable[[np.random.Generator], Arrays]:
    """Patches in which the last label, the rare one, is seen often enough."""
    sources = [class_source(case, classes=classes, sought=classes - 1) for case in cases]
    shape, fraction = patches.patch_shape(options), settings["rare_fraction"]

    def epoch(rng: np.random.Generator) -> Arrays:
        drawn = draw_patches(rng, sources, shape=shape, count=options.patches, lesion_fraction=fraction)
        images, targets = augment(rng, *drawn, settings["augmentation"])
        if len(options.patch) == 2:
            images, targets = images[:, :, :, 0], targets[:, :, :, 0]
        return deform(rng, images, targets, settings["augmentation"])

    return epoch
