"""The training loop: batches in, a trained model out, on one device or on several as one (`workloads.training.devices`).

It is a loop of our own because Keras 3's `fit` does not work under `MultiWorkerMirroredStrategy`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import agreed, is_chief, shared

__all__ = ["OPTIMIZERS", "Arrays", "Trained", "make_optimizer", "train"]

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
    seconds : float
        What it took, earlier attempts included as far as their work is part of it.
    """

    losses: tuple[float, ...]
    diverged: bool = False
    stopped: bool = False
    seconds: float = 0.0


def make_optimizer(name: str, *, learning_rate: float, momentum: float, weight_decay: float, steps: int) -> Any:
    """One of `OPTIMIZERS`, its rate falling to zero over ``steps`` along a cosine.

    ``momentum`` is Nesterov's for sgd and beta_1 for adam; ``weight_decay`` is decoupled from the
    gradient (Loshchilov and Hutter 2019).
    """
    from tensorflow import keras

    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    if name == "adam":
        optimizer = keras.optimizers.Adam(rate, beta_1=momentum, weight_decay=weight_decay)
    elif name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=momentum, nesterov=True, weight_decay=weight_decay)
    else:
        raise ValueError(f"no optimizer is called {name!r}: there is {', '.join(OPTIMIZERS)}")
    # Gradients in half precision vanish unless they are scaled up.
    half = keras.config.dtype_policy().compute_dtype == "float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


def train(
    model: Any,
    *,
    optimizer: Any,
    loss: Callable[[Any, Any], Any],
    epoch_data: Callable[[int], Arrays],
    epochs: int,
    batch_size: int,
    after_epoch: Callable[[int, float], bool],
    checkpoints: Checkpoints | None = None,
    generators: Mapping[str, np.random.Generator] | None = None,
    strategy: Any = None,
) -> Trained:
    """Train ``model`` for ``epochs``; with ``checkpoints``, from where an earlier attempt left it.

    Parameters
    ----------
    model, optimizer : keras.Model, keras.optimizers.Optimizer
        Made in the scope of ``strategy``.
    loss : callable
        Of targets and outputs, a scalar; with several devices each of its sums goes through `devices.total`.
    epoch_data : callable
        Given the epoch, from 1, its inputs and targets, first axis samples; the last batch may be short.
        Every process makes the same.
    after_epoch : callable
        Given the epoch and its mean loss; True ends the training there, with a checkpoint. Of several processes only
        the first one calls it.
    checkpoints : Checkpoints, optional
        Where the state is kept; what goes on from there equals what was never interrupted.
    generators : mapping, optional
        What ``epoch_data`` draws from, by name: part of the state.
    strategy : tf.distribute.Strategy, optional
        The devices; TensorFlow's present one unless it is given.
    """
    import tensorflow as tf

    from workloads.training.keras_state import capture, restore

    strategy = strategy or tf.distribute.get_strategy()
    devices = strategy.num_replicas_in_sync
    with strategy.scope():
        optimizer.build(model.trainable_variables)

    def on_one(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = tf.cast(model(inputs, training=True), targets.dtype)
            value = loss(targets, outputs if devices == 1 else outputs[: tf.shape(targets)[0]])
            # Each device has the loss of the whole batch, and the optimizer adds up the gradients of all devices.
            part = optimizer.scale_loss(value / devices)
        gradients = tape.gradient(part, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    def on_all(inputs: Any, targets: Any) -> Any:
        if devices == 1:
            return on_one(inputs, targets)
        return strategy.reduce("MEAN", strategy.run(on_one, args=(inputs, targets)), axis=None)

    step = tf.function(on_all, reduce_retracing=True, autograph=False)
    generators = generators or {}
    losses: list[float] = []
    begun = time.monotonic()
    if checkpoints is not None and (known := checkpoints.load()) is not None:
        restore(known, model, optimizer, generators=generators)
        losses = list(known.facts["losses"])
        begun -= known.facts["seconds"]
    for epoch in range(len(losses) + 1, epochs + 1):
        inputs, targets = epoch_data(epoch)
        values = [
            step(*shared(strategy, inputs[start : start + batch_size], targets[start : start + batch_size]))
            for start in range(0, len(inputs), batch_size)
        ]
        losses.append(float(np.mean([float(value) for value in values])))
        if not math.isfinite(losses[-1]):
            return Trained(losses=tuple(losses), diverged=True, seconds=time.monotonic() - begun)
        stopped = agreed(strategy, is_chief(strategy) and after_epoch(epoch, losses[-1]))
        if checkpoints is not None and is_chief(strategy) and (stopped or checkpoints.due):
            facts = {"losses": losses, "seconds": time.monotonic() - begun}
            checkpoints.save(capture(model, optimizer, step=epoch, generators=generators, facts=facts))
        if stopped:
            return Trained(losses=tuple(losses), stopped=epoch < epochs, seconds=time.monotonic() - begun)
    return Trained(losses=tuple(losses), seconds=time.monotonic() - begun)
