"""The training loop: batches in, a trained model out. A plain loop works with every kind of device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPTIMIZERS", "Trained", "make_optimizer", "train"]

OPTIMIZERS = ("adam", "sgd")
Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a training went.

    Attributes
    ----------
    losses : tuple of float
        Mean loss of each epoch.
    diverged : bool
        The loss became infinite or NaN; training ended there, and the model is worth nothing.
    stopped : bool
        It was asked to end early, and did.
    """

    losses: tuple[float, ...]
    diverged: bool = False
    stopped: bool = False


def make_optimizer(name: str, *, learning_rate: float, momentum: float, weight_decay: float, steps: int) -> Any:
    """One of `OPTIMIZERS`, its rate falling to zero over ``steps`` along a cosine.

    ``momentum`` is Nesterov's for sgd and beta_1 for adam; ``weight_decay`` is decoupled from the
    gradient (Loshchilov and Hutter 2019).
    """
    from tensorflow import keras

    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    if name == "adam":
        return keras.optimizers.Adam(rate, beta_1=momentum, weight_decay=weight_decay)
    if name == "sgd":
        return keras.optimizers.SGD(rate, momentum=momentum, nesterov=True, weight_decay=weight_decay)
    raise ValueError(f"no optimizer is called {name!r}: there is {', '.join(OPTIMIZERS)}")


def train(
    model: Any,
    *,
    optimizer: Any,
    loss: Callable[[Any, Any], Any],
    epoch_data: Callable[[int], Arrays],
    epochs: int,
    batch_size: int,
    after_epoch: Callable[[int, float], bool],
) -> Trained:
    """Train ``model`` for ``epochs``.

    Parameters
    ----------
    epoch_data : callable
        Given the epoch, from 1, its inputs and targets, first axis samples; the last batch may be short.
    after_epoch : callable
        Given the epoch and its mean loss; True ends the training there.
    """
    import tensorflow as tf

    optimizer.build(model.trainable_variables)

    def eager_step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(targets, model(inputs, training=True))
        optimizer.apply_gradients(
            zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return value

    step = tf.function(eager_step, reduce_retracing=True, autograph=False)
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        inputs, targets = epoch_data(epoch)
        values = [
            step(tf.constant(inputs[start : start + batch_size]), tf.constant(targets[start : start + batch_size]))
            for start in range(0, len(inputs), batch_size)
        ]
        losses.append(float(np.mean([float(value) for value in values])))
        if not math.isfinite(losses[-1]):
            return Trained(losses=tuple(losses), diverged=True)
        if after_epoch(epoch, losses[-1]):
            return Trained(losses=tuple(losses), stopped=epoch < epochs)
    return Trained(losses=tuple(losses))
