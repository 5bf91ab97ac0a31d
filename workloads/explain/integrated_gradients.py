"""Integrated Gradients (Sundararajan, Taly and Yan 2017): how much each input value adds to a network's answer.

The gradient is averaged along the straight path from a baseline x' to the image x, at the midpoints of ``steps``
equal parts, and multiplied by x - x'. The attributions then add up to f(x) - f(x') (completeness), but for the
error of the sum: that gap is computed and returned, and is the one check that needs no other method.

Steps and images are one batch, and the whole path is one graph. That is not for speed alone: TensorFlow's gradient of
3D max pooling, computed eagerly on a CPU or with oneDNN switched off, reaches every voxel that comes within 1e-5 of
its window's maximum, and not one of them. In a graph with oneDNN, TensorFlow's default, it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.errors import WorkloadError
from workloads.explain.network import Array, batch_of, check_shape

__all__ = ["BASELINES", "SPLIT_VALUES", "Attributions", "baselines_of", "integrated_gradients", "path_integral"]

BASELINES = ("noise", "zero", "blurred")
SPLIT_VALUES = 2**23  # input values times steps that one device computes before another is worth its start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attributions:
    """What each input value adds to the answer for its image.

    Attributes
    ----------
    values : ndarray, shape (images, ..., channels)
        In the units of the network's logits; of several baselines the mean.
    answers, of_baselines : ndarray, shape (images,)
        f(x), and f(x') of the baseline, or its mean.
    """

    values: Array
    answers: NDArray[np.float64]
    of_baselines: NDArray[np.float64]

    @property
    def gaps(self) -> NDArray[np.float64]:
        """By how much of f(x) - f(x') the sum of the attributions misses it; infinite where that is 0 and the sum is not."""
        expected = self.answers - self.of_baselines
        missed = np.abs(self.values.reshape(len(self.values), -1).sum(axis=1, dtype=np.float64) - expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(missed == 0.0, 0.0, missed / np.abs(expected))


def baselines_of(images: Array, kind: str, *, seed: int = 0, number: int = 1, sigma: float | None = None) -> Array:
    """Baselines of images: what holds nothing to be seen.

    Parameters
    ----------
    images : ndarray, shape (images, ..., channels)
    kind : str
        ``noise``: uniform between the lowest and the highest value of each image's channel. ``zero``. ``blurred``: the
        image itself, smoothed by a Gaussian of ``sigma`` pixels (an eighth of its longest side unless it is given).
    number : int
        How many of each image, of ``noise``: attributions are averaged over them.

    Returns
    -------
    ndarray, shape (number, images, ..., channels)
    """
    if kind not in BASELINES:
        raise ValueError(f"a baseline is one of {', '.join(BASELINES)}, not {kind!r}")
    if kind == "zero":
        return np.zeros_like(images)[None]
    if kind == "blurred":
        width = max(images.shape[1:-1]) / 8.0 if sigma is None else sigma
        along = (0.0, *[width] * (images.ndim - 2), 0.0)
        return np.asarray(ndimage.gaussian_filter(images, along, mode="nearest"), dtype=np.float32)[None]
    axes = tuple(range(1, images.ndim - 1))
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    drawn = np.random.default_rng(seed).random((number, *images.shape), dtype=np.float32)
    return np.asarray(low + drawn * (high - low), dtype=np.float32)


def integrated_gradients(
    model: Any,
    images: Array,
    baselines: Array,
    weights: Array,
    *,
    steps: int = 200,
    strategy: Any = None,
    names: Sequence[str] = (),
    path: Callable[..., Any] | None = None,
) -> Attributions:
    """Explain an answer of ``model`` for each image.

    Parameters
    ----------
    model : keras.Model
        As `workloads.explain.network.logits_of` gives it.
    images : ndarray, shape (images, ..., channels)
        As the network takes them.
    baselines : ndarray, shape (number, images, ..., channels) or that of ``images``
    weights : ndarray, shape (images, ...)
        Of the network's logits, without the batch's axis of their shape: what is explained is their weighted sum.
    steps : int
        Midpoints of the path.
    strategy : tf.distribute.Strategy, optional
        Steps are spread over its devices, where there is enough to do for each of them.
    names : sequence of str
        Of the images, for errors.
    path : callable, optional
        `path_integral` of the model and strategy, if there is one already: it is traced once for every size.

    Raises
    ------
    WorkloadError
        If an image or a baseline is not of the size that the network takes, or a gradient is not finite.
    """
    if steps < 1:
        raise WorkloadError("at least one step is needed")
    check_shape(model, images.shape[1:], names[0] if names else "the image")
    several = baselines if baselines.ndim == images.ndim + 1 else baselines[None]
    if several.shape[1:] != images.shape:
        one, other = (" x ".join(map(str, shape[-images.ndim + 1 :])) for shape in (several.shape, images.shape))
        raise WorkloadError(
            f"the baseline is {one}, but the image is {other}", hint="a baseline has the shape of its image"
        )
    path = path or path_integral(model, strategy)
    parts = [path(images, each, weights, steps) for each in several]
    values = np.asarray(np.mean([part[0] for part in parts], axis=0), dtype=np.float32)
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        which = names[int(np.argmax(bad))] if names else f"image {int(np.argmax(bad))}"
        raise WorkloadError(
            f"{which}: the gradient of the network is not finite", hint="its weights diverged, or it divides by 0 here"
        )
    answers, of_baselines = (np.mean([part[index] for part in parts], axis=0) for index in (1, 2))
    return Attributions(values=values, answers=answers, of_baselines=of_baselines)


def path_integral(model: Any, strategy: Any = None) -> Callable[[Array, Array, Array, int], Any]:
    """The integral of one model over a path, as a function of images, baselines, weights and steps.

    It returns attributions, f(x) and f(x'). Small work is one device's, whatever the strategy has.
    """
    import tensorflow as tf

    def answer(points: Any, weights: Any) -> Any:
        logits = tf.cast(model(points, training=False), tf.float32)
        return tf.reduce_sum(tf.reshape(logits * weights, (tf.shape(points)[0], -1)), axis=1)

    def integrate(images: Any, baselines: Any, weights: Any, alphas: Any, parts: Any) -> Any:
        """Sum over rows of ``alphas`` of the gradient times the step's ``parts``, (images, ...)."""
        count, width = tf.shape(images)[0], tf.shape(alphas)[1]
        shape = tf.concat([[count, width], tf.shape(images)[1:]], axis=0)
        flat = tf.concat([[count * width], tf.shape(images)[1:]], axis=0)
        change = images - baselines
        repeated = tf.repeat(weights, width, axis=0)
        of_step = (1, -1) + (1,) * (len(images.shape) - 1)

        def advance(index: Any, total: Any) -> Any:
            along = tf.reshape(alphas[index], of_step)
            points = tf.reshape(baselines[:, None] + along * change[:, None], flat)
            points = tf.ensure_shape(points, (None, *images.shape[1:]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                value = answer(points, repeated)
            gradient = tape.gradient(value, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            gradient = tf.reshape(gradient, shape) * tf.reshape(parts[index], of_step)
            return index + 1, tf.ensure_shape(total + tf.reduce_sum(gradient, axis=1), images.shape)

        rows = tf.shape(alphas)[0]
        return tf.while_loop(lambda index, _: index < rows, advance, (0, tf.zeros_like(images)), parallel_iterations=1)[
            1
        ]

    def on_one(images: Any, baselines: Any, weights: Any, alphas: Any, parts: Any) -> Any:
        gradient = integrate(images, baselines, weights, alphas[0], parts[0])
        return gradient * (images - baselines), answer(images, weights), answer(baselines, weights)

    def on_all(images: Any, baselines: Any, weights: Any, alphas: Any, parts: Any) -> Any:
        def mine() -> Any:
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return integrate(images, baselines, weights, alphas[index], parts[index])

        gradient = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(mine), axis=None)
        return gradient * (images - baselines), answer(images, weights), answer(baselines, weights)

    graph_on_one, graph_on_all = (
        tf.function(each, autograph=False, reduce_retracing=True) for each in (on_one, on_all)
    )

    def path(images: Array, baselines: Array, weights: Array, steps: int) -> Any:
        values = int(np.prod(images.shape[1:]))
        devices = _devices(values * steps * len(images), strategy)
        # As many images at once as have all their steps in a batch; of a large image as many steps as go into one.
        at_once = max(1, batch_of((values,)) // steps)
        alphas, parts = (tf.constant(each) for each in _midpoints(steps, devices, batch_of((values,))))
        run = graph_on_all if devices > 1 else graph_on_one
        done = []
        for start in range(0, len(images), at_once):
            some = slice(start, start + at_once)
            arrays = (tf.constant(each[some]) for each in (images, baselines, weights))
            done.append([np.asarray(each) for each in run(*arrays, alphas, parts)])
        return [np.concatenate(each) for each in zip(*done, strict=True)]

    return path


def _devices(values: int, strategy: Any) -> int:
    """On how many devices ``values`` input values are computed: on all where each has enough of them, else on one."""
    among = strategy.num_replicas_in_sync if strategy is not None else 1
    return among if values >= among * SPLIT_VALUES else 1


def _midpoints(steps: int, devices: int, largest: int) -> tuple[Array, Array]:
    """Places on the path and what each counts for, (devices, batches, steps of one); what fills up the last counts nothing."""
    batches = -(-steps // (devices * largest))
    width = -(-steps // (devices * batches))
    alphas, parts = np.zeros(devices * batches * width), np.zeros(devices * batches * width)
    alphas[:steps] = (np.arange(steps) + 0.5) / steps
    parts[:steps] = 1.0 / steps
    shape = (devices, batches, width)
    return alphas.reshape(shape).astype(np.float32), parts.reshape(shape).astype(np.float32)
