"""Grad-CAM (Selvaraju et al. 2017): where the features lie that speak for a class.

The channels A_k of a convolution's output, weighted by how much the class's logit y rises with them,
a_k = mean over space of dy / dA_k, and summed; what speaks against the class is cut off: max(0, sum of a_k A_k).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from workloads.errors import WorkloadError, did_you_mean
from workloads.explain.network import Array, batch_of, check_shape, is_segmenter

__all__ = ["feature_layer", "grad_cam"]

CONVOLUTIONS = ("Conv2D", "Conv3D", "SeparableConv2D", "DepthwiseConv2D", "Conv2DTranspose", "Conv3DTranspose")
BEHIND = ("BatchNormalization", "GroupNormalization", "LayerNormalization", "Activation", "ReLU", "LeakyReLU")


def feature_layer(model: Any, name: str | None = None) -> Any:
    """The layer whose output Grad-CAM weighs: ``name``, else the last convolution with its normalisation and activation.

    Raises
    ------
    WorkloadError
        If there is no such layer, its output has no sides, the network has no convolution at all, or is no classifier.
    """
    from tensorflow import keras

    if is_segmenter(model):
        raise WorkloadError(
            "the network answers for each voxel, and Grad-CAM is of classes of whole images",
            hint="explain it by integrated-gradients",
        )
    layers, rank = list(model.layers), len(model.inputs[0].shape)
    if name is not None:
        chosen = next((layer for layer in layers if layer.name == name), None)
        if chosen is None:
            raise WorkloadError(
                f"the network has no layer {name!r}", hint=did_you_mean(name, [layer.name for layer in layers])
            )
        if len(getattr(chosen.output, "shape", ())) != rank:
            raise WorkloadError(f"layer {name!r}: its output has no sides", hint="choose a convolution")
        return chosen
    kinds = tuple(getattr(keras.layers, kind) for kind in CONVOLUTIONS)
    places = [place for place, layer in enumerate(layers) if isinstance(layer, kinds)]
    if not places:
        raise WorkloadError(
            "the network has no convolution, and Grad-CAM weighs the features of one",
            hint="explain it by integrated-gradients, or name a layer with sides by --layer",
        )
    last = layers[places[-1]]
    for layer in layers[places[-1] + 1 :]:
        if type(layer).__name__ not in BEHIND or layer.input is not last.output:
            break
        last = layer
    return last


def grad_cam(
    model: Any, images: Array, classes: Array, *, layer: str | None = None, name: str = "the image"
) -> tuple[Array, Array]:
    """Explain an answer of a classifier for each image.

    Parameters
    ----------
    model : keras.Model
        As `workloads.explain.network.logits_of` gives it.
    images : ndarray, shape (images, ..., channels)
    classes : ndarray, shape (images, classes)
        Weights of the logits, as `workloads.explain.network.class_weights` gives them.
    layer : str, optional
        As of `feature_layer`.

    Returns
    -------
    maps : ndarray, shape (images, ...)
        On the images' grid, interpolated linearly; of no unit, 0 and above.
    logits : ndarray, shape (images, classes)

    Raises
    ------
    WorkloadError
        If an image is not of the network's size, a gradient is not finite, or as of `feature_layer`.
    """
    import tensorflow as tf
    from tensorflow import keras

    check_shape(model, images.shape[1:], name)
    both = keras.Model(model.inputs[0], [feature_layer(model, layer).output, model.outputs[0]])

    def weighed(some: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(some)
            features, logits = both(some, training=False)
            value = tf.reduce_sum(tf.cast(logits, tf.float32) * weights)
        gradient = tape.gradient(value, features, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        features, gradient, logits = (tf.cast(each, tf.float32) for each in (features, gradient, logits))
        sides = list(range(1, len(some.shape) - 1))
        return tf.nn.relu(tf.reduce_sum(features * tf.reduce_mean(gradient, sides, keepdims=True), axis=-1)), logits

    graph = tf.function(weighed, autograph=False, reduce_retracing=True)
    batch = batch_of(images.shape[1:])
    done = [
        [
            np.asarray(each)
            for each in graph(tf.constant(images[at : at + batch]), tf.constant(classes[at : at + batch]))
        ]
        for at in range(0, len(images), batch)
    ]
    maps, logits = (np.concatenate(each) for each in zip(*done, strict=True))
    if not np.isfinite(maps).all():
        raise WorkloadError(f"{name}: the gradient of the network is not finite", hint="its weights diverged")
    zoom = [1.0, *(side / own for side, own in zip(images.shape[1:-1], maps.shape[1:], strict=True))]
    # Each feature is the middle of the pixels that it stands for.
    enlarged = ndimage.zoom(maps, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(enlarged, dtype=np.float32), logits
