"""One trial of an ensemble: a network of slices at full resolution and a network of blocks at a low one, trained one after the other.

The 3D network sees far because its voxels are large, the 2D network sees fine detail in a plane. Their answer is the
mean of their probabilities, on the grid of the image; each is measured on its own too, and what the mean gains over
it, case by case.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from orchestrator import trial
from workloads.data.dataset import Case
from workloads.data.nifti import resample
from workloads.data.patches import check_patch
from workloads.errors import WorkloadError
from workloads.evaluation.segmentation import Segmented, dice_interval, draw, judge, summarise, write_artifacts
from workloads.parameters import Parameter, resolve
from workloads.training.devices import is_chief, make_strategy, wait_for_chief
from workloads.training.inference import compiled, predict_volume
from workloads.training.loop import Trained
from workloads.training.setup import import_tensorflow, prepare
from workloads.trials import patches, segmentation
from workloads.trials.patches import Data

__all__ = ["MEMBERS", "EnsembleTask", "add_arguments", "coarse_spacing", "onto", "run"]

MEMBERS = ("2d", "3d")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleTask:
    """What makes an ensemble.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched: those that end in ``_2d`` and ``_3d`` are one network's, without this ending; the others are
        both networks'. There is ``coarseness``, as in `coarse_spacing`.
    fixed : mapping
        What is not searched; of each network it takes as much as a `segmentation.SegmentationTask`.
    build : callable
        The network of a set of hyperparameters, in so many dimensions, for a number of classes.
    patch, patch_3d : tuple of int
        Default patches of the two.
    epochs, patches : int
        Defaults of the length of each training.
    """

    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any]
    build: Callable[[Mapping[str, Any], int, int], Any]
    patch: tuple[int, int]
    patch_3d: tuple[int, int, int]
    epochs: int
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Member:
    """One network, with its hyperparameters, its options, and the cases at its resolution."""

    name: str
    model: Any
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    settings: Mapping[str, Any]
    options: argparse.Namespace
    data: Data

    def probabilities(self, case: Case, own: Case, classes: int) -> NDArray[np.float32]:
        """Of each class, on the grid of ``case``; ``own`` is the same case at the network's resolution."""
        window, multiple = segmentation.windows(self.options, _multiple(self.settings))
        field = predict_volume(self.network, own.image.array, window=window, multiple=multiple)[..., :classes]
        return onto(special.softmax(np.nan_to_num(field), axis=-1), own, case)


def _multiple(settings: Mapping[str, Any]) -> int:
    return int(2 ** settings["depth"])


def coarse_spacing(cases: Sequence[Case], coarseness: float) -> tuple[float, float, float]:
    """Voxel size of the low resolution, mm: the cases' median, but nowhere below ``coarseness`` times its finest side.

    Thick slices stay as they are until the pixels are as wide, as in the low resolution of nnU-Net (Isensee et al. 2021).
    """
    usual = np.median([case.image.spacing for case in cases], axis=0)
    x, y, z = np.maximum(usual, coarseness * usual.min()).tolist()
    return x, y, z


def onto(field: NDArray[np.float32], own: Case, case: Case) -> NDArray[np.float32]:
    """``field``, shape (x, y, z, classes) on the grid of ``own``, interpolated linearly on that of ``case``."""
    if own is case:
        return field
    way = np.linalg.inv(own.image.affine) @ case.image.affine
    result = np.empty((*case.image.array.shape, field.shape[-1]), dtype=np.float32)
    for index in range(field.shape[-1]):
        result[..., index] = ndimage.affine_transform(
            field[..., index], way[:3, :3], way[:3, 3], output_shape=case.image.array.shape, order=1, mode="nearest"
        )
    return result


def _coarse(case: Case, spacing: tuple[float, float, float]) -> Case:
    image, label = (
        resample(volume, spacing, nearest=nearest) for volume, nearest in ((case.image, False), (case.label, True))
    )
    return Case(name=case.name, image=image, label=label)


def add_arguments(task: EnsembleTask, parser: argparse.ArgumentParser) -> None:
    """Say what the command line of an ensemble's trial may have: ``--epochs`` and ``--patches`` are each network's."""
    patches.add_arguments(parser, epochs=task.epochs, patches=task.patches, patch=task.patch, window=None)
    parser.add_argument(
        "--patch-3d", type=int, nargs=3, default=task.patch_3d, metavar="N", help="voxels of the low resolution"
    )
    parser.add_argument(
        "--tolerance", type=float, default=10.0, metavar="MM", help="of surface Dice (default: %(default)s)"
    )


def run(task: EnsembleTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train both networks, validate the mean of their probabilities and each of them, and report it.

    A later attempt goes on in the network, and in the epoch, in which an earlier one was cut off.

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {name: _settings(task, params, name) for name in MEMBERS}
    chosen = {"2d": options, "3d": argparse.Namespace(**{**vars(options), "patch": tuple(options.patch_3d)})}
    for name in MEMBERS:
        patches.check_options(chosen[name], _multiple(settings[name]))
    if options.tolerance < 0:
        raise WorkloadError("--tolerance must not be negative")
    threads = prepare(options.threads)
    seed = patches.seed_of(options)
    full = patches.read_data(options)
    labels = segmentation.checked_labels(full)
    spacing = coarse_spacing(full.training, params["coarseness"])
    data = {"2d": full, "3d": _lower(full, spacing)}
    check_patch(data["3d"].training, patches.patch_shape(chosen["3d"]))

    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
    strategy = make_strategy()
    members = []
    for dimensions, name in enumerate(MEMBERS, start=2):
        with strategy.scope():
            model = task.build(settings[name], dimensions, len(labels))
        members.append(
            _Member(
                name=name,
                model=model,
                network=compiled(model),
                settings=settings[name],
                options=chosen[name],
                data=data[name],
            )
        )
    trained: list[Trained] = []
    for member in members:
        trained.append(_train(member, members[: len(trained) + 1], params, labels, seed=seed, strategy=strategy))
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    found = _examine(members, "validation", labels)
    metrics = {**_metrics(found, labels, options), "train_seconds": sum(each.seconds for each in trained)}
    trial.report(sum(len(each.losses) for each in trained), metrics["dice"])
    out = options.out or Path(trial.artifacts_dir())
    _write(out, found, labels, options)
    if options.test:
        tested = _examine(members, "test", labels)
        metrics.update({f"test_{name}": value for name, value in _metrics(tested, labels, options).items()})
        _write(out / "test", tested, labels, options)
    for member in members:
        member.model.save(out / f"model-{member.name}.keras")
    trial.finish(
        metrics, {**_information(found, labels, options, spacing), **_record(members, trained, params, seed, strategy)}
    )
    wait_for_chief(strategy)


def _settings(task: EnsembleTask, params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The hyperparameters of one network, its own among them without their ending."""
    endings = tuple(f"_{member}" for member in MEMBERS)
    common = {key: value for key, value in params.items() if not key.endswith(endings)}
    own = {key.removesuffix(f"_{name}"): value for key, value in params.items() if key.endswith(f"_{name}")}
    return {**task.fixed, **common, **own}


def _lower(data: Data, spacing: tuple[float, float, float]) -> Data:
    training, validation, test = (
        [_coarse(case, spacing) for case in cases] for cases in (data.training, data.validation, data.test)
    )
    return replace(data, training=training, validation=validation, test=test)


def _train(
    member: _Member,
    known: Sequence[_Member],
    params: Mapping[str, Any],
    labels: Mapping[str, int],
    *,
    seed: int,
    strategy: Any,
) -> Trained:
    """Train a network, the last one of those that are ``known``, whose mean is reported on the way."""
    return patches.train_on_patches(
        member.model,
        member.data,
        member.options,
        member.settings,
        params=params,
        seed=seed,
        loss=segmentation.loss_of(member.settings, member.model, len(labels)),
        draw=segmentation.drawing(member.data.training, member.options, member.settings, len(labels)),
        measure=lambda: _measure(known, labels),
        strategy=strategy,
        part=member.name,
        before=(len(known) - 1) * member.options.epochs,
    )


def _examine(members: Sequence[_Member], part: str, labels: Mapping[str, int]) -> dict[str, list[Segmented]]:
    """What the mean of the networks says of the cases, under ``ensemble``, and what each of them says, under its name."""
    found: dict[str, list[Segmented]] = {name: [] for name in ("ensemble", *(member.name for member in members))}
    for each in zip(*(getattr(member.data, part) for member in (members[0], *members)), strict=True):
        case, *own = each
        fields = [member.probabilities(case, mine, len(labels)) for member, mine in zip(members, own, strict=True)]
        found["ensemble"].append(judge(case, np.mean(fields, axis=0), labels))
        for member, field in zip(members, fields, strict=True):
            found[member.name].append(judge(case, field, labels))
    return found


def _measure(members: Sequence[_Member], labels: Mapping[str, int]) -> float:
    """The objective of the mean of some of the networks."""
    return summarise(_examine(members, "validation", labels)["ensemble"], labels, tolerance=0.0)["dice"]


def _metrics(
    found: Mapping[str, Sequence[Segmented]], labels: Mapping[str, int], options: argparse.Namespace
) -> dict[str, float]:
    metrics = summarise(found["ensemble"], labels, tolerance=options.tolerance)
    for name in MEMBERS:
        alone = summarise(found[name], labels, tolerance=options.tolerance)["dice"]
        metrics |= {f"dice_{name}": alone, f"gain_over_{name}": metrics["dice"] - alone}
    return metrics


def _write(
    folder: Path, found: Mapping[str, Sequence[Segmented]], labels: Mapping[str, int], options: argparse.Namespace
) -> None:
    for name, items in found.items():
        ensemble = name == "ensemble"
        write_artifacts(
            folder if ensemble else folder / name,
            items,
            labels,
            tolerance=options.tolerance,
            predictions=ensemble and not options.no_predictions,
        )
    draw(folder, found["ensemble"], labels, others={name.upper(): found[name] for name in MEMBERS})


def _information(
    found: Mapping[str, Sequence[Segmented]],
    labels: Mapping[str, int],
    options: argparse.Namespace,
    spacing: tuple[float, float, float],
) -> dict[str, Any]:
    intervals = {"dice_interval": dice_interval(found["ensemble"], labels)}
    for name in MEMBERS:
        intervals[f"dice_{name}_interval"] = dice_interval(found[name], labels)
        intervals[f"gain_over_{name}_interval"] = dice_interval(found["ensemble"], labels, other=found[name])
    return {
        "tolerance_mm": options.tolerance,
        "coarse_spacing_mm": [round(side, 4) for side in spacing],
        **{name: asdict(interval) for name, interval in intervals.items()},
    }


def _record(
    members: Sequence[_Member], trained: Sequence[Trained], params: Mapping[str, Any], seed: int, strategy: Any
) -> dict[str, Any]:
    """As in `patches.record`, with the losses of each network."""
    records = [
        patches.record(member.data, each, params=params, seed=seed, strategy=strategy)
        for member, each in zip(members, trained, strict=True)
    ]
    return {
        **records[0],
        "losses": {member.name: record["losses"] for member, record in zip(members, records, strict=True)},
        "diverged": any(each.diverged for each in trained),
        "stopped": any(each.stopped for each in trained),
    }
