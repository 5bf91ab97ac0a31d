"""A trained network as the methods of this room take it: loaded, checked, its answers as logits, a number to explain.

What is explained is a weighted sum of a network's logits: one class of a classifier has weight 1; of a
segmenter one class in the voxels of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError

__all__ = [
    "Array",
    "batch_of",
    "check_class",
    "check_shape",
    "class_weights",
    "is_segmenter",
    "load_network",
    "logits_of",
    "of_batch",
]

Array: TypeAlias = NDArray[np.float32]
NONLINEAR = ("softmax", "sigmoid")  # activations that make probabilities of logits
BATCH_VALUES = 2**17  # input values computed at once: more is not quicker on a CPU, and memory grows with it


def load_network(path: Path) -> Any:
    """Read a Keras model from a file, without compiling it.

    Raises
    ------
    WorkloadError
        If there is no such file, or it is none that Keras can read by itself.
    """
    from tensorflow import keras

    if not path.is_file():
        raise WorkloadError(f"{path}: no such file", hint="a trial's trained network is its artifact model.keras")
    if path.name.endswith(".weights.h5"):
        raise WorkloadError(f"{path}: holds weights without their network", hint="save it whole: model.save(FILE)")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # what Keras raises goes from KeyError to its own, by where in the file it stops
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WorkloadError(
            f"{path}: is no model that Keras can read ({reason})",
            hint="a file written by model.save is needed, .keras or .h5, of layers that Keras has itself",
        ) from None


def logits_of(model: Any, name: str = "the model") -> Any:
    """``model`` without the softmax or sigmoid at its end, which flattens the gradient where it is sure.

    Shares no weights with ``model`` where its last layer had to be changed, else all.

    Raises
    ------
    WorkloadError
        If it has several inputs or outputs, or is not made of layers that can be taken apart.
    """
    from tensorflow import keras

    try:
        inputs, outputs, layers = model.inputs, model.outputs, model.layers
    except (AttributeError, ValueError):
        inputs = outputs = layers = None
    if not inputs or not outputs or not layers:
        raise WorkloadError(
            f"{name}: its layers cannot be taken apart", hint="a functional or sequential Keras model is needed"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise WorkloadError(f"{name}: has {len(inputs)} inputs and {len(outputs)} outputs, but one of each is needed")
    last = layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if isinstance(last, keras.layers.Softmax) or (
        isinstance(last, keras.layers.Activation) and activation in NONLINEAR
    ):
        return keras.Model(inputs[0], last.input)
    if activation not in NONLINEAR:
        return model

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        return layer.__class__.from_config({**config, "activation": "linear"} if layer is last else config)

    clone = keras.models.clone_model(model, clone_function=copied)
    clone.set_weights(model.get_weights())
    return clone


def is_segmenter(model: Any) -> bool:
    """Whether it answers for each pixel or voxel: its output has as many axes as its input."""
    return len(model.outputs[0].shape) == len(model.inputs[0].shape)


def check_shape(model: Any, shape: Sequence[int], name: str) -> None:
    """Make sure that a network takes an image.

    Parameters
    ----------
    shape : sequence of int
        (x, y[, z], channels), without the batch's axis.

    Raises
    ------
    WorkloadError
        If it takes another number of axes or channels, or another size.
    """
    taken = tuple(model.inputs[0].shape[1:])
    shown = " x ".join("any" if side is None else str(side) for side in taken)
    given = " x ".join(str(side) for side in shape)
    if len(taken) != len(shape):
        raise WorkloadError(
            f"{name}: is {given}, but the network takes {shown}",
            hint="axes are those of the image, channels last: is it a network of another task?",
        )
    if any(side not in {None, own} for side, own in zip(taken, shape, strict=True)):
        raise WorkloadError(
            f"{name}: is {given}, but the network takes {shown}",
            hint="bring the image to that size, or train on its own",
        )


def class_weights(model: Any, classes: Sequence[int], name: str = "the model") -> Array:
    """Weights of the logits of a classifier that leave the class of each image, (images, classes).

    Raises
    ------
    WorkloadError
        If a class does not exist.
    """
    count = int(model.outputs[0].shape[-1])
    check_class(max(classes, default=0), count, name)
    check_class(min(classes, default=0), count, name)
    return np.eye(count, dtype=np.float32)[np.asarray(classes, dtype=np.int64)]


def check_class(number: int, count: int, name: str) -> None:
    """Make sure that a class exists.

    Raises
    ------
    WorkloadError
        If it does not.
    """
    if not 0 <= number < count:
        there = "only class 0" if count == 1 else f"classes 0 to {count - 1}"
        raise WorkloadError(f"{name}: has no class {number}", hint=f"it has {there}")


def batch_of(shape: Sequence[int], values: int = BATCH_VALUES) -> int:
    """How many images of ``shape`` are computed at once; at least one."""
    return max(1, values // max(1, int(np.prod(shape))))


def of_batch(model: Any) -> Any:
    """A network as a function of arrays (images, ...), traced once for every size."""
    import tensorflow as tf

    graph = tf.function(lambda inputs: tf.cast(model(inputs, training=False), tf.float32), autograph=False)

    def answer(images: Array) -> Array:
        batch = batch_of(images.shape[1:])
        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        return np.concatenate([np.asarray(graph(tf.constant(part))) for part in parts])

    return answer
