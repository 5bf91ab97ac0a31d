"""One trial of a network that learns the segments of the lungs from points: from the command line to the result.

The lungs of each case, as a mask gives them, fill one grid of the same number of voxels in all cases. A voxel of that
grid lies at the same place relative to the lungs in all of them, and these places may be channels of the input.
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
from workloads.data.points import Points, points_checksum, read_points
from workloads.errors import WorkloadError
from workloads.evaluation.segments import Partitioned, accuracy_interval, draw, summarise, write_artifacts
from workloads.parameters import Parameter, resolve
from workloads.training.devices import is_chief, make_strategy, total, wait_for_chief
from workloads.training.inference import compiled
from workloads.training.loop import Arrays
from workloads.training.setup import import_tensorflow, prepare
from workloads.trials import patches
from workloads.trials.patches import Data

__all__ = ["IGNORE", "LungGrid", "PointsTask", "add_arguments", "lung_grid", "point_loss", "run"]

IGNORE = "ignore"  # the label of lung whose segment is not annotated, as nnU-Net has it


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsTask:
    """What makes a task of sparse points.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched, with ``coordinates`` (lung or none), ``augmentation``, and what ``build`` wants to know.
    fixed : mapping
        What is not.
    build : callable
        The network of a set of hyperparameters, for so many classes and channels.
    multiple : callable
        Of which the sides of the grid have to be multiples.
    grid : tuple of int
        The default grid.
    epochs, volumes : int
        Defaults of the training's length: cases of one epoch, drawn with replacement.
    """

    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any]
    build: Callable[[Mapping[str, Any], int, int], Any]
    multiple: Callable[[Mapping[str, Any]], int]
    grid: tuple[int, int, int]
    epochs: int
    volumes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LungGrid:
    """A case on the grid of its lungs.

    Attributes
    ----------
    image : ndarray of float32, shape (x, y, z)
    points : ndarray of int, shape (n, 3)
        The grid's voxel in which each point lies.
    scale, offset : ndarray of float, shape (3,)
        From the grid's voxels to those of the case: times ``scale``, plus ``offset``.
    """

    image: NDArray[np.float32]
    points: NDArray[np.int64]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]


def lung_grid(case: Case, points: Points, shape: tuple[int, ...]) -> LungGrid:
    """Bring the box of a case's lungs to ``shape``.

    Raises
    ------
    WorkloadError
        If the label map marks no lung, or a point lies outside of the lungs' box.
    """
    occupied = np.argwhere(case.lesion)
    if not len(occupied):
        raise WorkloadError(f"{case.label.path}: marks no lung", hint="leave the case out of the split")
    low, high = occupied.min(axis=0), occupied.max(axis=0) + 1.0
    scale = (high - low) / np.asarray(shape)
    offset = low + 0.5 * scale - 0.5
    # What is finer than the grid is averaged first, so that noise does not stand for what lies about it.
    smooth = ndimage.gaussian_filter(case.image.array, np.maximum(scale - 1.0, 0.0) / 2.0)
    image = ndimage.affine_transform(smooth, scale, offset, output_shape=tuple(shape), order=1, mode="nearest")
    within = (points.voxels - offset) / scale
    outside = np.flatnonzero(((within < -0.5) | (within > np.asarray(shape) - 0.5)).any(axis=1))
    if len(outside):
        where = ", ".join(f"{value:.1f}" for value in points.positions[outside[0]])
        raise WorkloadError(
            f"{points.path}: point {outside[0] + 1} at ({where}) mm lies outside of the lungs",
            hint=f"as {case.label.path} marks them",
        )
    nearest = np.clip(np.rint(within), 0, np.asarray(shape) - 1).astype(np.int64)
    return LungGrid(image=np.asarray(image, dtype=np.float32), points=nearest, scale=scale, offset=offset)


def point_loss() -> Callable[[Any, Any], Any]:
    """Cross-entropy at labelled points alone, their mean; the rest of the volume teaches nothing.

    Returns
    -------
    callable
        (targets, logits) to a scalar tensor. Logits are (batch, x, y, z, classes); targets (batch, points, 5): a voxel's
        three indices, its class, and its weight, 0 for a point that is none.
    """
    import tensorflow as tf

    def loss(targets: Any, logits: Any) -> Any:
        voxels = tf.cast(targets[..., :3], tf.int32)
        found = tf.gather_nd(logits, voxels, batch_dims=1)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets[..., 3], tf.int32), found)
        sums = total(tf.stack([tf.reduce_sum(entropies * targets[..., 4]), tf.reduce_sum(targets[..., 4])]))
        return sums[0] / tf.maximum(sums[1], 1.0)

    return loss


def add_arguments(task: PointsTask, parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have: ``--patch`` is the lungs' grid, ``--patches`` cases of an epoch."""
    patches.add_arguments(parser, epochs=task.epochs, patches=task.volumes, patch=task.grid, window=None)


def run(task: PointsTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one network and report it; ahead of the walltime as in `workloads.trials.detection.run`.

    Raises
    ------
    WorkloadError
        If the data, a point, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {**task.fixed, **params}
    patches.check_options(options, task.multiple(settings))
    if options.window is not None:
        raise WorkloadError("--window has no meaning here: the grid of the lungs is computed at once")
    threads = prepare(options.threads)
    seed = patches.seed_of(options)
    data = patches.read_data(options)
    segments = _segments(data, options.data / "dataset.json")
    data = replace(data, checksum=points_checksum(options.data, _names(data), data.checksum))
    prepared = {
        part: [_prepare(case, options, segments) for case in cases]
        for part, cases in (("train", data.training), ("validation", data.validation), ("test", data.test))
    }

    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
    strategy = make_strategy()
    with strategy.scope():
        model = task.build(settings, len(segments), _places(options.patch, settings).shape[-1] + 1)
    network = compiled(model)

    def examine(part: str) -> list[Partitioned]:
        return [_partition(network, *each, settings, len(segments)) for each in prepared[part]]

    trained = patches.train_on_patches(
        model,
        data,
        options,
        settings,
        params=params,
        seed=seed,
        loss=point_loss(),
        draw=_drawing(prepared["train"], options, settings),
        measure=lambda: summarise(examine("validation"), segments)["accuracy"],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    found = examine("validation")
    metrics = {**summarise(found, segments), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics["accuracy"])
    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, found, segments, predictions=not options.no_predictions)
    draw(out, found, segments)
    if options.test:
        tested = examine("test")
        metrics.update({f"test_{name}": value for name, value in summarise(tested, segments).items()})
        write_artifacts(out / "test", tested, segments, predictions=not options.no_predictions)
    model.save(out / "model.keras")
    trial.finish(
        metrics,
        {
            "accuracy_interval": asdict(accuracy_interval(found)),
            "points": {part: sum(len(points.segments) for _, points, _ in each) for part, each in prepared.items()},
            **patches.record(data, trained, params=params, seed=seed, strategy=strategy),
        },
    )
    wait_for_chief(strategy)


_Prepared = tuple[Case, Points, LungGrid]


def _names(data: Data) -> list[str]:
    return [case.name for case in (*data.training, *data.validation, *data.test)]


def _segments(data: Data, file: Path) -> dict[str, int]:
    """The labels but background and what is not annotated, if they are numbered 1, 2, ... without a gap."""
    segments = {name: number for name, number in data.labels.items() if number and name != IGNORE}
    if sorted(segments.values()) != list(range(1, len(segments) + 1)) or len(segments) < 2:
        raise WorkloadError(
            f"{file}: segments are numbered {sorted(segments.values())}",
            hint=f'from 1 without a gap, two at least; lung that is not annotated is "{IGNORE}", the number after them',
        )
    return segments


def _prepare(case: Case, options: argparse.Namespace, segments: Mapping[str, int]) -> _Prepared:
    points = read_points(options.data, case, segments)
    return case, points, lung_grid(case, points, tuple(options.patch))


def _places(shape: Sequence[int], settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """Place of each voxel relative to the lungs, -1 to 1 along each axis, as channels (Liu et al. 2018), or no channel.

    One segment looks like another, it is its place that tells. Convolutions see it at the grid's border alone, where
    zeros are (Islam et al. 2020); channels tell it everywhere, at the price that a network may learn no more than the
    place where a segment usually is.
    """
    if settings["coordinates"] == "none":
        return np.empty((*shape, 0), dtype=np.float32)
    axes = [(np.arange(side) + 0.5) / side * 2.0 - 1.0 for side in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def _drawing(
    cases: Sequence[_Prepared], options: argparse.Namespace, settings: Mapping[str, Any]
) -> Callable[[np.random.Generator], Arrays]:
    """Cases with their points, as `point_loss` takes them; cases with few points are filled up with no weight."""
    places = _places(options.patch, settings)
    most = max(len(points.segments) for _, points, _ in cases)
    images = np.stack([grid.image for _, _, grid in cases])
    targets = np.zeros((len(cases), most, 5), dtype=np.float32)
    for row, (_, points, grid) in enumerate(cases):
        known = len(points.segments)
        targets[row, :known] = np.column_stack([grid.points, points.segments - 1, np.ones(known)])

    def epoch(rng: np.random.Generator) -> Arrays:
        rows, strength = rng.integers(len(cases), size=options.patches), settings["augmentation"]
        each = (len(rows), 1, 1, 1)
        # No flips, which would make left of right; the lungs' box is never quite the same.
        seen = images[rows] * np.exp(rng.normal(0.0, 0.2 * strength, each)) + rng.normal(0.0, 0.2 * strength, each)
        seen += rng.normal(size=seen.shape) * rng.uniform(0.0, 0.3 * strength, each)
        where = places + rng.normal(0.0, 0.1 * strength, (*each, places.shape[-1]))
        inputs = np.concatenate([seen[..., None], where], axis=-1).astype(np.float32)
        return inputs, targets[rows]

    return epoch


def _partition(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    case: Case,
    points: Points,
    grid: LungGrid,
    settings: Mapping[str, Any],
    classes: int,
) -> Partitioned:
    """The most probable segment of each voxel of lung, and at the points; probabilities are interpolated linearly."""
    inputs = np.concatenate([grid.image[..., None], _places(grid.image.shape, settings)], axis=-1)
    odds = special.softmax(np.nan_to_num(network(inputs[None])[0]), axis=-1)
    best = np.full(case.image.array.shape, -1.0, dtype=np.float32)
    prediction = np.zeros(case.image.array.shape, dtype=np.uint8)
    back = (1.0 / grid.scale, -grid.offset / grid.scale)
    for index in range(classes):
        probability = ndimage.affine_transform(
            odds[..., index], *back, output_shape=best.shape, order=1, mode="nearest"
        )
        better = probability > best
        best[better], prediction[better] = probability[better], index + 1
    at = np.clip(np.rint(points.voxels), 0, np.asarray(best.shape) - 1).astype(np.intp)
    lung = case.lesion
    return Partitioned(
        case=case,
        points=points,
        prediction=np.where(lung, prediction, 0).astype(np.uint8),
        at_points=prediction[tuple(at.T)].astype(np.int64),
        dense=int(case.label.array.max()) <= classes,
    )
