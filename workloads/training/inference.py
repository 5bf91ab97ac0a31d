"""A network over a volume of any size: whole where it fits, else in overlapping windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["compiled", "predict_volume"]


def compiled(model: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A Keras model as a function of arrays (1, x, y, z, channels), traced once for every size of volume.

    A model of slices, (batch, x, y, channels), is applied to all slices along z at once.
    """
    import tensorflow as tf

    slices = len(model.input_shape) == 4
    signature = [tf.TensorSpec((None,) * (3 if slices else 4) + model.input_shape[-1:], tf.float32)]

    def answer(inputs: Any) -> Any:
        return tf.cast(model(inputs, training=False), tf.float32)

    graph = tf.function(answer, input_signature=signature, autograph=False)

    def network(array: NDArray[np.float32]) -> NDArray[np.float32]:
        if slices:
            return np.moveaxis(np.asarray(graph(tf.constant(np.moveaxis(array[0], 2, 0)))), 0, 2)[None]
        return np.asarray(graph(tf.constant(array)))

    return network


def _starts(length: int, window: int) -> list[int]:
    """First voxels of windows that cover ``length``, half a window apart."""
    if length <= window:
        return [0]
    return [*range(0, length - window, max(1, window // 2)), length - window]


def _weights(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A Gaussian over the window: what lies at its border has seen the least around it."""
    profile = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 6)) ** 2) for n in shape]
    return np.asarray(np.einsum("i,j,k->ijk", *profile), dtype=np.float32)


def predict_volume(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    array: NDArray[np.float32],
    *,
    window: int | tuple[int, int, int] = 64,
    multiple: int | tuple[int, int, int] = 1,
) -> NDArray[np.float32]:
    """Apply ``network`` to a volume.

    Parameters
    ----------
    network : callable
        From (1, x, y, z, channels) to (1, x, y, z, classes).
    array : ndarray, shape (x, y, z), of several channels (x, y, z, channels)
    window : int or tuple of int
        Longest sides that are computed at once; memory is bound by them. Multiples of ``multiple``.
    multiple : int or tuple of int
        The network takes sides that are multiples of this; the volume is padded by repeating its border.

    Returns
    -------
    ndarray, shape (x, y, z, classes)
    """
    multiples = (multiple,) * 3 if isinstance(multiple, int) else multiple
    longest = (window,) * 3 if isinstance(window, int) else window
    extent = array.shape[:3]
    padding = [(0, -length % side) for length, side in zip(extent, multiples, strict=True)]
    padded = np.pad(array if array.ndim == 4 else array[..., None], [*padding, (0, 0)], mode="edge")
    room = padded.shape[:3]
    size = tuple(min(pair) for pair in zip(longest, room, strict=True))
    if size == room:
        result = network(padded[None])[0]
    else:
        total: NDArray[np.float32] | None = None  # until it is known how many classes there are
        weight = np.zeros((*room, 1), dtype=np.float32)
        weights = _weights(size)[..., None]
        for corner in itertools.product(*(_starts(*pair) for pair in zip(room, size, strict=True))):
            cut = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
            answer = network(padded[cut][None])[0]
            if total is None:
                total = np.zeros((*room, answer.shape[-1]), dtype=np.float32)
            total[cut] += weights * answer
            weight[cut] += weights
        assert total is not None
        result = total / weight
    return np.asarray(result[tuple(slice(0, length) for length in extent)], dtype=np.float32)
