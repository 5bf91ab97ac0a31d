"""One trial of super-resolution, from the command line to the result: one method, or all of them, beside bicubic interpolation."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.data.dataset import checksum
from workloads.data.patches import PatchSource, draw_patches
from workloads.data.slabs import ThickCase, load_thick, open_images
from workloads.data.splits import read_split
from workloads.errors import WorkloadError
from workloads.evaluation.super_resolution import CUBIC, gain_interval, measure, write_artifacts
from workloads.losses import reconstruction_loss
from workloads.models.super_resolver import METHODS, discriminator, generator
from workloads.parameters import Parameter, resolve
from workloads.training.adversarial import adversarial_loss, with_adversary
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.inference import compiled, predict_volume
from workloads.training.loop import Arrays, Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions
from workloads.trials.patches import seed_of

__all__ = ["CONTENTS", "add_arguments", "run"]

CONTENTS = ("l1", "l2")
SIDES = 4  # sides of patches are multiples of this
WINDOW = 48  # voxels a side that a network of blocks computes at once
WHOLE = 2**20  # more than a slice has: a network of slices takes them whole
SLICES_AT_ONCE = 64
OF_BLOCKS = 8  # of so many patches of an epoch a network of blocks sees one: each of its patches is that much more work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--fold", type=int, help="of a split file with folds, from 1 (default: the trial's run)")
    parser.add_argument("--factor", type=int, default=4, help="thin slices in a thick one (default: %(default)s)")
    parser.add_argument(
        "--values", type=float, nargs=2, default=(-1000.0, 400.0), metavar=("LOW", "HIGH"),
        help="range of values that is judged, of CT in HU (default: -1000 400)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--patches", type=int, default=256, help="patches of one epoch (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=16, help="side, voxels (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="train the other methods too, with the same settings")
    parser.add_argument("--report-every", type=int, default=5, metavar="EPOCHS", help="validate after so many epochs")
    parser.add_argument("--test", action="store_true", help="measure the test cases too: for the final choice alone")
    parser.add_argument("--no-predictions", action="store_true", help="write no volumes as NIfTI")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(parameters: Sequence[Parameter], options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one method, or all of them, and report it beside bicubic interpolation.

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(parameters, given)
    _check(options)
    threads, seed = prepare(options.threads), seed_of(options)
    dataset = open_images(options.data)
    values = (options.values[0], options.values[1])
    split = read_split(
        options.split or options.data / "splits.json",
        dataset,
        fold=options.fold,
        run=trial.run() if trial.runs() > 1 else None,
    )
    if options.test and not split.test:
        raise WorkloadError("the split has no test cases", hint='name some as "test", or leave out --test')
    parts = {"train": split.train, "validation": split.validation, "test": split.test if options.test else ()}
    cases = {
        part: [load_thick(dataset, name, factor=options.factor, values=values) for name in names]
        for part, names in parts.items()
    }
    for case in cases["train"]:
        if min(case.cubic.shape) < options.patch:
            raise WorkloadError(
                f"{case.thin.path}: a patch of {options.patch} voxels a side is larger than the volume, {case.cubic.shape}",
                hint="choose a smaller --patch",
            )
    what = {"seed": seed, "data": checksum(dataset, [name for names in parts.values() for name in names])}
    what |= {"split": [split.train, split.validation]}
    import_tensorflow(threads=threads, seed=seed)
    strategy = make_strategy()
    chosen = params["method"]
    networks: dict[str, Callable[[ThickCase], NDArray[np.float32]]] = {CUBIC: lambda case: case.cubic}
    trained: dict[str, Trained] = {}
    models: dict[str, Any] = {}
    # The chosen one last: what it reports on the way is the trial's.
    for method in [*(each for each in METHODS if options.all and each != chosen), chosen]:
        settings = resolve(parameters, {**given, "method": method})
        models[method], trained[method] = _train(settings, cases, options, what, strategy, reports=method == chosen)
        networks[method] = _applied(models[method], trained[method])
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    out = options.out or Path(trial.artifacts_dir())
    out.mkdir(parents=True, exist_ok=True)
    for method, model in models.items():
        model.save(out / ("model.keras" if method == chosen else f"model-{method}.keras"))
    metrics: dict[str, float] = {}
    info: dict[str, Any] = {}
    for prefix, part, folder in (("", "validation", out), ("test_", "test", out / "test")):
        if not cases[part]:
            continue
        images = {name: [network(case) for case in cases[part]] for name, network in networks.items()}
        measured = measure(cases[part], images)
        for name, of_method in measured.items():
            metrics |= {f"{prefix}{kind}_{name}": float(np.mean(each)) for kind, each in of_method.items()}
        metrics |= {f"{prefix}{kind}": metrics[f"{prefix}{kind}_{chosen}"] for kind in ("psnr", "ssim")}
        info[f"{prefix}gain_interval"] = asdict(gain_interval(measured, chosen))
        kept = "" if options.no_predictions else chosen
        write_artifacts(folder, cases[part], images, measured, limits=values, predictions=kept)
    trial.report(options.epochs, metrics["psnr"])
    trial.finish(
        {**metrics, "train_seconds": trained[chosen].seconds},
        {
            **info,
            "seed": seed,
            "data": what["data"],
            "params": params,
            "factor": options.factor,
            "data_range": values[1] - values[0],
            "diverged": trained[chosen].diverged,
            "losses": [round(value, 6) for value in trained[chosen].losses if math.isfinite(value)],
            "versions": versions("tensorflow", "keras", "numpy", "nibabel", "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
            "devices": strategy.num_replicas_in_sync,
        },
    )
    wait_for_chief(strategy)


def _check(options: argparse.Namespace) -> None:
    for name in ("epochs", "patches", "report_every"):
        if getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    if options.factor < 2:
        raise WorkloadError("--factor must be at least 2: one thin slice is no thick one")
    if options.patch < SIDES or options.patch % SIDES:
        raise WorkloadError(f"--patch must be a multiple of {SIDES}, not {options.patch}")
    if not options.values[0] < options.values[1]:
        raise WorkloadError("--values must be two numbers, the lower one first")


def _train(
    settings: Mapping[str, Any],
    cases: Mapping[str, Sequence[ThickCase]],
    options: argparse.Namespace,
    what: Mapping[str, Any],
    strategy: Any,
    *,
    reports: bool,
) -> tuple[Any, Trained]:
    """Train one method; with ``reports`` say on the way what it comes to."""
    import tensorflow as tf

    method, seed = settings["method"], what["seed"]
    blocks = method == "gan3d"
    # Each method begins as it would alone.
    tf.keras.utils.set_random_seed(seed)
    shape = {name: settings[name] for name in ("filters", "blocks", "dropout") if name in settings}
    loss = reconstruction_loss({"l1": "absolute", "l2": "squared"}[settings["content"]])
    with strategy.scope():
        model = both = generator(method, **shape)
        if method != "srcnn":
            adversary = discriminator(3 if blocks else 2, filters=settings["filters"])
            both = with_adversary(model, adversary)
            content = {"l1": tf.abs, "l2": tf.square}[settings["content"]]
            loss = adversarial_loss(adversary, content=content, weight=settings["adversarial_weight"])
    sources = [
        PatchSource(
            image=_coronal(case.cubic),
            target=_coronal(case.thin.array)[..., None],
            lesion_voxels=np.empty((0, 3), dtype=np.int64),
        )
        for case in cases["train"]
    ]
    rng = np.random.default_rng(seed)
    side = options.patch
    patch = (side, side, side if blocks else 1)
    count = math.ceil(options.patches / (OF_BLOCKS if blocks else 1))

    def draw(_epoch: int) -> Arrays:
        images, targets = draw_patches(rng, sources, shape=patch, count=count, lesion_fraction=0.0)
        return (images, targets) if blocks else (images[:, :, :, 0], targets[:, :, :, 0])

    def after_epoch(epoch: int, _loss: float) -> bool:
        if reports and epoch % options.report_every == 0 and epoch < options.epochs:
            network = _applied(model)
            made = {method: [network(case) for case in cases["validation"]]}
            trial.report(epoch, float(np.mean(measure(cases["validation"], made)[method]["psnr"])))
        # Its last checkpoint tells a later attempt, which has other methods to train, that this one is done.
        return trial.should_stop() or epoch == options.epochs

    place = os.environ.get("SURVEY_CHECKPOINT")
    identity = {**what, "settings": settings, "factor": options.factor, "values": list(options.values)}
    identity |= {"epochs": options.epochs, "patches": options.patches, "patch": side}
    with strategy.scope():
        optimizer = make_optimizer(
            "adam",
            learning_rate=settings["learning_rate"],
            momentum=0.9 if method == "srcnn" else 0.5,  # of adversaries: Radford et al. 2016
            weight_decay=0.0,
            steps=options.epochs * math.ceil(count / settings["batch_size"]),
        )
    trained = train(
        both,
        optimizer=optimizer,
        loss=loss,
        epoch_data=draw,
        epochs=options.epochs,
        batch_size=settings["batch_size"],
        after_epoch=after_epoch,
        checkpoints=Checkpoints(identity, folder=str(Path(place, method)) if place else None),
        generators={"data": rng},
        strategy=strategy,
    )
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    return model, trained


def _coronal(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A volume (x, y, z) as (x, z, y), whose slices along the last axis are coronal."""
    return np.ascontiguousarray(np.swapaxes(array, 1, 2))


def _applied(model: Any, trained: Trained | None = None) -> Callable[[ThickCase], NDArray[np.float32]]:
    """What a network makes of a case; one that diverged adds nothing that is worth having, and answers 0."""
    network = compiled(model)
    slices = len(model.input_shape) == 4

    def answer(case: ThickCase) -> NDArray[np.float32]:
        if trained is not None and trained.diverged:
            return np.zeros_like(case.cubic)
        window = (WHOLE, WHOLE, SLICES_AT_ONCE) if slices else (WINDOW,) * 3
        made = predict_volume(network, _coronal(case.cubic), window=window, multiple=(SIDES, SIDES, 1))[..., 0]
        return np.clip(np.nan_to_num(np.swapaxes(made, 1, 2)), -1.0, 1.0)

    return answer
