"""What a training step costs beside the plainest Keras `fit` of the same net and batch, and what its input costs.

    python benchmarks/training.py [--tasks aneurysm covid-2d covid-3d metastasis] [--rounds 7]

Rounds of both alternate in one process; the figures are medians of ratios within a round. The input pipeline is
timed alone: the batches it makes a second, over those that the step takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workloads.data.augmentation import augment
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.patches import draw_patches, patch_source
from workloads.data.splits import read_split
from workloads.losses import detection_loss
from workloads.parameters import resolve
from workloads.tasks import aneurysm, covid_2d, covid_3d, metastasis
from workloads.training.loop import make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare
from workloads.trials.segmentation import SegmentationTask, drawing, loss_of

TASKS = {"aneurysm": aneurysm, "covid-2d": covid_2d, "covid-3d": covid_3d, "metastasis": metastasis}
PATCHES, PATCH = 96, (12, 12, 12)  # the patch of a detector


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads: other programs on the machine do not count."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a task trains: its network, the loss of that, and the patches of an epoch."""

    build: Callable[[], Any]
    loss: Callable[[Any], Callable[[Any, Any], Any]]
    draw: Callable[[np.random.Generator], tuple[Any, Any]]


def work_of(task: Any, settings: dict[str, Any], cases: Sequence[Case], classes: int) -> Work:
    """The work of a detector or a segmenter."""
    if isinstance(task, SegmentationTask):
        options = argparse.Namespace(patch=task.patch, patches=PATCHES)
        return Work(
            build=lambda: task.build(settings, classes),
            loss=lambda model: loss_of(settings, model, classes),
            draw=drawing(cases, options, settings, classes),
        )
    sources = [patch_source(case, sigma=settings["target_sigma"]) for case in cases]

    def draw(rng: np.random.Generator) -> tuple[Any, Any]:
        drawn = draw_patches(rng, sources, shape=PATCH, count=PATCHES, lesion_fraction=settings["lesion_fraction"])
        return augment(rng, *drawn, settings["augmentation"])

    weights = {name: settings[name] for name in ("positive_weight", "dice_weight")}
    return Work(build=lambda: task.build(settings), loss=lambda _model: detection_loss(**weights), draw=draw)


def measure(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Figures of one task on its own phantoms with its default hyperparameters."""
    from tensorflow import keras

    module = TASKS[name]
    settings = {**module.TASK.fixed, **resolve(module.TASK.parameters, {})}
    parser = argparse.ArgumentParser()
    module.add_phantom_arguments(parser)
    options = parser.parse_args(["--train", "24", "--validation", "2", "--test", "1"])
    options.out, options.seed = folder / name, 0
    module.make_phantoms(options)
    dataset = open_dataset(options.out)
    cases = [load_case(dataset, each, spacing=None) for each in read_split(options.out / "splits.json", dataset).train]
    work = work_of(module.TASK, settings, cases, len(dataset.labels))
    rng = np.random.default_rng(0)
    images, targets = work.draw(rng)
    batch = settings["batch_size"]

    def made() -> tuple[Any, Any, Any]:
        keras.utils.set_random_seed(1)
        named = {key: settings[key] for key in ("learning_rate", "momentum", "weight_decay")}
        model = work.build()
        return model, make_optimizer(settings["optimizer"], steps=10_000, **named), work.loss(model)

    times: dict[str, list[float]] = {"ours": [], "fit": [], "input": []}
    marks: list[float] = []

    def after_epoch(_epoch: int, _loss: float) -> bool:
        marks.append(time.process_time())
        times["input"].append(seconds(lambda: work.draw(rng)))
        fitted.append(seconds(lambda: plain.fit(images, targets, batch_size=batch, epochs=1, verbose=0)))
        marks.append(time.process_time())
        return False

    fitted: list[float] = []
    plain, optimizer, loss = made()
    # With XLA, which `compile` would choose by itself, 3D convolutions take several times longer on a CPU.
    plain.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    plain.fit(images, targets, batch_size=batch, epochs=2, verbose=0)
    model, optimizer, loss = made()
    train(
        model,
        optimizer=optimizer,
        loss=loss,
        epoch_data=lambda _epoch: (images, targets),
        epochs=rounds + 1,
        batch_size=batch,
        after_epoch=after_epoch,
    )
    # Between the end of one epoch's other work and the end of the next epoch lies our epoch; the first one traces.
    ours = [end - begin for begin, end in zip(marks[1::2], marks[2::2], strict=False)]
    ratios = [mine / theirs for mine, theirs in zip(ours, fitted[1:], strict=True)]
    steps = -(-PATCHES // batch)
    return {
        "task": name,
        "batch": batch,
        "ms_a_step": round(1e3 * statistics.median(ours) / steps, 2),
        "ms_a_step_of_fit": round(1e3 * statistics.median(fitted[1:]) / steps, 2),
        "over_fit": round(statistics.median(ratios), 3),
        "input_over_step": round(statistics.median(ours) / statistics.median(times["input"]), 2),
        "peak_memory_mib": round(peak_memory()),
    }


def main() -> None:
    """Measure and print, a JSON line a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    import_tensorflow(threads=prepare(1), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.tasks:
            print(json.dumps(measure(name, options.rounds, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
