"""One trial of an anomaly detector, from the command line to the result.

Patches of normal cases alone train an autoencoder. Validation cases, normal and abnormal, are drawn by it; the patch that
it draws worst is the case's score.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator import trial
from workloads.data.dataset import Case, ct_window
from workloads.data.intracranial import intracranial
from workloads.data.patches import PatchSource, draw_patches
from workloads.errors import WorkloadError
from workloads.evaluation.anomaly import (
    Examined,
    auc_interval,
    draw_overview,
    examine,
    summarise,
    write_artifacts,
    youden_threshold,
)
from workloads.losses import reconstruction_loss
from workloads.parameters import Parameter, resolve
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.fit import Step
from workloads.training.inference import compiled
from workloads.training.loop import Arrays
from workloads.training.setup import import_tensorflow, prepare
from workloads.trials import patches

__all__ = ["AnomalyTask", "add_arguments", "run", "step"]

PATCH = (16, 16, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyTask:
    """What makes a task of anomaly detection in CT.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched.
    fixed : mapping
        What is not: together they give ``learning_rate``, ``optimizer``, ``momentum``, ``batch_size``,
        ``weight_decay``, ``loss``, ``noise`` and ``side``, and what ``build`` wants to know.
    build : callable
        The network of a set of hyperparameters: from (batch, x, y, z, 1) to the same shape.
    multiple : callable
        Of which the sides of patches have to be multiples, with a set of hyperparameters.
    level, width : float
        Of the window of Hounsfield units that counts.
    """

    parameters: tuple[Parameter, ...]
    build: Callable[[Mapping[str, Any]], Any]
    multiple: Callable[[Mapping[str, Any]], int]
    level: float
    width: float
    fixed: Mapping[str, Any] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    patches.add_arguments(parser, epochs=12, patches=96, patch=PATCH, window=64)


def run(task: AnomalyTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one autoencoder and report it; ahead of the walltime as in `workloads.trials.detection.run`.

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {**task.fixed, **params}
    multiple = task.multiple(settings)
    patches.check_options(options, multiple)
    threads = prepare(options.threads)
    seed = patches.seed_of(options)
    data = _prepared(task, patches.read_data(options, channels=("CT",)))
    _check_cases(data)

    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
    strategy = make_strategy()
    with strategy.scope():
        model = task.build(settings)
    network = compiled(model)

    def examined(chosen: Sequence[Case]) -> list[Examined]:
        return examine(
            network, chosen, side=settings["side"], unit=task.width / 2.0, window=options.window, multiple=multiple
        )

    trained = patches.train_on_patches(
        model,
        data,
        options,
        settings,
        params=params,
        seed=seed,
        loss=reconstruction_loss(settings["loss"]),
        draw=_drawing(data.training, options, noise=settings["noise"] / (task.width / 2.0)),
        measure=lambda: summarise(examined(data.validation), 0.0)["auc"],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    validated = examined(data.validation)
    threshold = youden_threshold(validated)
    metrics = {**summarise(validated, threshold), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics["auc"])
    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, validated, threshold, predictions=not options.no_predictions)
    draw_overview(out, validated, data.labels, threshold)
    if options.test:
        tested = examined(data.test)
        metrics.update({f"test_{name}": value for name, value in summarise(tested, threshold).items()})
        write_artifacts(out / "test", tested, threshold, predictions=not options.no_predictions)
    model.save(out / "model.keras")
    trial.finish(
        metrics,
        {
            "threshold": threshold,
            "window_hu": [task.level - task.width / 2.0, task.level + task.width / 2.0],
            "auc_interval": asdict(auc_interval(validated)),
            **patches.record(data, trained, params=params, seed=seed, strategy=strategy),
        },
    )
    wait_for_chief(strategy)


def step(task: AnomalyTask, given: Mapping[str, Any]) -> Step:
    """What one step of a training trains, with a set of hyperparameters."""
    settings = {**task.fixed, **resolve(task.parameters, given)}
    trained = patches.step_of(
        lambda: task.build(settings), lambda _model: reconstruction_loss(settings["loss"]), classes=1
    )
    return Step(run=trained, patch=PATCH, multiple=task.multiple(settings))


def _prepared(task: AnomalyTask, data: patches.Data) -> patches.Data:
    """Every case through the window, and 0 wherever the brain is not: bone would be most of what there is to learn."""

    def prepared(case: Case) -> Case:
        seen = ct_window(case, level=task.level, width=task.width)
        brain = np.where(intracranial(case), seen.image.array, np.float32(0.0))
        return replace(seen, image=replace(seen.image, array=brain))

    return replace(
        data,
        training=[prepared(case) for case in data.training],
        validation=[prepared(case) for case in data.validation],
        test=[prepared(case) for case in data.test],
    )


def _check_cases(data: patches.Data) -> None:
    for case in data.training:
        if case.lesion.any():
            raise WorkloadError(
                f"{case.label.path}: case {case.name!r} is abnormal, and the split trains on it",
                hint='what it is trained on counts as normal: take it out of "train"',
            )
    for part, cases in {"validation": data.validation, "test": data.test}.items():
        kinds = {bool(case.lesion.any()) for case in cases}
        if len(kinds) == 1:
            raise WorkloadError(
                f'the split\'s "{part}" has no {"normal" if kinds == {True} else "abnormal"} case',
                hint="both kinds are needed: there is no AUC of one",
            )


def _drawing(
    cases: Sequence[Case], options: argparse.Namespace, *, noise: float
) -> Callable[[np.random.Generator], Arrays]:
    """Patches with some of the brain in them, mirrored by chance; noise is in what the network sees, not in what it draws."""
    sources = [
        PatchSource(
            image=case.image.array,
            target=case.image.array[..., None],
            lesion_voxels=np.argwhere(case.image.array != 0.0),
        )
        for case in cases
    ]
    shape = patches.patch_shape(options)

    def draw(rng: np.random.Generator) -> Arrays:
        images, targets = draw_patches(rng, sources, shape=shape, count=options.patches, lesion_fraction=1.0)
        mirrored = rng.random(len(images)) < 0.5
        images[mirrored], targets[mirrored] = images[mirrored, ::-1], targets[mirrored, ::-1]
        return (images + noise * rng.normal(size=images.shape)).astype(np.float32), targets

    return draw
