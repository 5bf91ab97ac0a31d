"""How sure a network is of its answer, for each case or voxel: Monte Carlo dropout, or an ensemble of networks.

From ``samples`` answers, each drawn with other units dropped (Gal and Ghahramani 2016) or given by another network
(Lakshminarayanan et al. 2017), all in nats and over the classes' probabilities p:

``entropy``      of the mean of p: how unsure the answer is, for whatever reason
``information``  mutual information of answer and network (Houlsby et al. 2011): that entropy less the mean of the
                 entropies of each p, which is what the answers disagree about
``variance``     of p over the answers, summed over the classes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.explain.network import Array, batch_of, is_segmenter

__all__ = ["Answers", "answers_of", "dropout_network", "statistics"]

Statistic = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What several answers come to, of any leading shape: cases, or the voxels of a volume.

    Attributes
    ----------
    probabilities : ndarray, shape (..., classes)
        Their mean.
    entropy, information, variance : ndarray, shape (...)
    """

    probabilities: Array
    entropy: Array
    information: Array
    variance: Array


def answers_of(moments: Array) -> Answers:
    """Read what `statistics` returns."""
    classes = moments.shape[-1] - 2
    mean = moments[..., :classes]
    entropy = -np.sum(mean * np.log(np.maximum(mean, 1e-12)), axis=-1)
    information = np.maximum(entropy - moments[..., classes], 0.0)
    return Answers(
        probabilities=mean,
        entropy=entropy,
        information=information,
        variance=np.maximum(moments[..., classes + 1], 0.0),
    )


def dropout_network(model: Any, *, seed: int = 0) -> Any:
    """``model`` with its dropout switched on for good; all else stays as in inference, normalisation by batch too.

    Raises
    ------
    WorkloadError
        If it has no layer of dropout, or drops nothing.
    """
    from tensorflow import keras

    kinds = tuple(getattr(keras.layers, kind) for kind in ("Dropout", "SpatialDropout1D", "SpatialDropout2D",
                                                           "SpatialDropout3D", "AlphaDropout", "GaussianDropout"))  # fmt: skip
    dropping = [layer for layer in model.layers if isinstance(layer, kinds) and layer.rate > 0.0]
    if not dropping:
        raise WorkloadError(
            "the network has no dropout that drops anything",
            hint="train it with dropout above 0, or give several networks by --model for an ensemble",
        )

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if layer not in dropping:
            return layer.__class__.from_config(config)
        copy = layer.__class__.from_config({**config, "seed": seed + 7919 * dropping.index(layer)})
        drop = copy.call
        copy.call = lambda inputs, training=None: drop(inputs, training=True)  # noqa: ARG005 - the layer's own signature
        return copy

    clone = keras.models.clone_model(model, clone_function=copied)
    clone.set_weights(model.get_weights())
    return clone


def statistics(networks: Sequence[Any], *, samples: int = 1, classes: int | None = None) -> Statistic:
    """The moments of several answers as a function of images, which `workloads.training.inference.predict_volume` takes too.

    Parameters
    ----------
    networks : sequence of keras.Model
        To logits: one that drops, or several.
    samples : int
        Answers of each.
    classes : int, optional
        So many channels are the classes, of a network with several answers the first; all unless it is given. One
        channel is the logit of the second of two classes.

    Returns
    -------
    callable
        From (images, ..., channels) to (images, ..., classes + 2): mean of p, mean entropy of p, variance of p. A network
        of slices is applied to a volume (1, x, y, z, channels) along z.

    Raises
    ------
    WorkloadError
        If the networks take or give different shapes.
    """
    import tensorflow as tf

    shapes = {(tuple(each.inputs[0].shape), tuple(each.outputs[0].shape)) for each in networks}
    if len(shapes) > 1:
        told = " and ".join(f"{taken} to {given}" for taken, given in sorted(shapes, key=str))
        raise WorkloadError(f"the networks differ, {told}", hint="an ensemble is of networks of one task")
    rank = len(networks[0].inputs[0].shape)

    def probabilities(network: Any, images: Any) -> Any:
        logits = tf.cast(network(images, training=False), tf.float32)[..., :classes]
        if logits.shape[-1] == 1:
            logits = tf.concat([tf.zeros_like(logits), logits], axis=-1)
        return tf.nn.softmax(logits)

    def summed_up(images: Any, repeats: Any) -> Any:
        """Sums of p, its square and its entropy over ``repeats`` copies of each image and over the networks."""
        copies = tf.repeat(images, repeats, axis=0)
        found = []
        for network in networks:
            p = probabilities(network, copies)
            parts = tf.concat([p, -tf.reduce_sum(p * tf.math.log(tf.maximum(p, 1e-12)), -1, keepdims=True), p * p], -1)
            shape = tf.concat([[tf.shape(images)[0], repeats], tf.shape(parts)[1:]], axis=0)
            found.append(tf.reduce_sum(tf.reshape(parts, shape), axis=1))
        return tf.add_n(found)

    sums = tf.function(summed_up, autograph=False, reduce_retracing=True)

    def moments(images: Array) -> Array:
        at_once = max(1, min(samples, batch_of(images.shape[1:])))
        some = max(1, batch_of(images.shape[1:]) // at_once)
        total = []
        for start in range(0, len(images), some):
            part, left = tf.constant(images[start : start + some]), samples
            summed: Any = 0.0
            while left:
                summed = summed + np.asarray(sums(part, tf.constant(min(at_once, left))), dtype=np.float64)
                left -= min(at_once, left)
            total.append(summed)
        means = np.concatenate(total) / (samples * len(networks))
        count = (means.shape[-1] - 1) // 2
        mean, entropy, square = means[..., :count], means[..., count : count + 1], means[..., count + 1 :]
        variance = np.sum(square - mean**2, axis=-1, keepdims=True)
        return np.asarray(np.concatenate([mean, entropy, variance], axis=-1), dtype=np.float32)

    def slices(volume: Array) -> Array:
        return np.moveaxis(moments(np.moveaxis(volume[0], 2, 0)), 0, 2)[None]

    if rank != 4 or not is_segmenter(networks[0]):
        return moments
    return lambda images: slices(images) if images.ndim == 5 else moments(images)
