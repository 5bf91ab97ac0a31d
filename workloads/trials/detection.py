"""One trial of a detector, from the command line to the result: what all detection tasks share.

Patches of the training cases train a fully convolutional network; over the validation cases it gives a
probability map, whose local maxima are the candidates; the area under their FROC curve is the objective.
A task says which network, which hyperparameters, and up to how many false positives per case.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orchestrator import trial
from workloads.data.augmentation import augment
from workloads.data.dataset import Case
from workloads.data.patches import draw_patches, patch_source
from workloads.errors import WorkloadError
from workloads.evaluation.detection import Detected, detect, draw_overview, summarise, write_artifacts
from workloads.losses import detection_loss
from workloads.metrics.froc import NORMALISATION, partial_area_interval
from workloads.metrics.matching import Matching, MatchRule
from workloads.parameters import Parameter, resolve
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.fit import Step
from workloads.training.inference import compiled
from workloads.training.loop import Arrays
from workloads.training.setup import import_tensorflow, prepare
from workloads.trials import patches

__all__ = ["DetectionTask", "add_arguments", "run", "step"]

PATCH = (12, 12, 12)


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
        The network of a set of hyperparameters: from (batch, x, y, z, channels) to logits (batch, x, y, z, 1).
    multiple : int
        Of which the sides of volumes and patches have to be multiples.
    objective : str
        The name of the objective, ``pauc`` or ``pauc_10``, which is reported on the way.
    limit : float
        False positives per case up to which the objective's area goes.
    channels : tuple of str or "one"
        As in `workloads.data.dataset.open_dataset`.
    """

    parameters: tuple[Parameter, ...]
    build: Callable[[Mapping[str, Any]], Any]
    multiple: int
    objective: str
    limit: float
    fixed: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] | Literal["one"] = "one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a detector's trial may have."""
    patches.add_arguments(parser, epochs=6, patches=96, patch=PATCH, window=64)
    parser.add_argument("--match", choices=[rule.value for rule in MatchRule], default="inside", help="what is a hit")
    parser.add_argument("--match-length", type=float, default=0.0, metavar="MM", help="tolerance or radius of --match")


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
    patches.check_options(options, task.multiple)
    if options.match == MatchRule.CENTRE and options.match_length <= 0:
        raise WorkloadError("--match centre needs a radius in mm", hint="as in --match centre --match-length 3")
    threads = prepare(options.threads)
    seed = patches.seed_of(options)
    data = patches.read_data(options, channels=task.channels)
    _check_lesions(data)

    matching = Matching(rule=MatchRule(options.match), length=options.match_length)
    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
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

    trained = patches.train_on_patches(
        model,
        data,
        options,
        settings,
        params=params,
        seed=seed,
        loss=detection_loss(positive_weight=settings["positive_weight"], dice_weight=settings["dice_weight"]),
        draw=_drawing(data.training, options, settings),
        measure=lambda: summarise(examine(data.validation))[task.objective],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    detected = examine(data.validation)
    metrics = {**summarise(detected), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics[task.objective])
    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, detected, predictions=not options.no_predictions)
    lesion = next((name for name, number in data.labels.items() if number), "lesion")
    draw_overview(out, detected, data.channels, lesion)
    if options.test:
        tested = examine(data.test)
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
            **patches.record(data, trained, params=params, seed=seed, strategy=strategy),
        },
    )
    wait_for_chief(strategy)


def step(task: DetectionTask, given: Mapping[str, Any]) -> Step:
    """What one step of a training trains, with a set of hyperparameters."""
    settings = {**task.fixed, **resolve(task.parameters, given)}
    loss = {name: settings[name] for name in ("positive_weight", "dice_weight")}
    trained = patches.step_of(
        lambda: task.build(settings),
        lambda _model: detection_loss(**loss),
        classes=1,
        channels=1 if task.channels == "one" else len(task.channels),
    )
    return Step(run=trained, patch=PATCH, multiple=task.multiple)


def _check_lesions(data: patches.Data) -> None:
    for part, cases in {"train": data.training, "validation": data.validation, "test": data.test}.items():
        if cases and not any(case.lesion.any() for case in cases):
            raise WorkloadError(
                f'{data.split_file}: no case of the split\'s "{part}" has a lesion',
                hint="without one there is no sensitivity to measure",
            )


def _drawing(
    cases: Sequence[Case], options: argparse.Namespace, settings: Mapping[str, Any]
) -> Callable[[np.random.Generator], Arrays]:
    sources = [patch_source(case, sigma=settings["target_sigma"]) for case in cases]
    shape, fraction = patches.patch_shape(options), settings["lesion_fraction"]

    def draw(rng: np.random.Generator) -> Arrays:
        drawn = draw_patches(rng, sources, shape=shape, count=options.patches, lesion_fraction=fraction)
        return augment(rng, *drawn, settings["augmentation"])

    return draw
