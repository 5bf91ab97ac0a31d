"""The training loop: batches in, a trained model out, on one device or on several as one (`workloads.training.devices`).

It is a loop of our own because Keras 3's `fit` does not work under `MultiWorkerMirroredStrategy`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.training.batches import Arrays, epochs_ahead
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import agreed, is_chief, shared
from workloads.training.step import make_step

__all__ = ["OPTIMIZERS", "Arrays", "Trained", "make_optimizer", "train"]

OPTIMIZERS = ("adam", "sgd")


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
    generators: Mapping[str, Any] | None = None,
    strategy: Any = None,
    accumulate: int = 1,
    recompute: bool = False,
) -> Trained:
    """Train ``model`` for ``epochs``; with ``checkpoints``, from where an earlier attempt left it.

    Parameters
    ----------
    model, optimizer : keras.Model, keras.optimizers.Optimizer
        Made in the scope of ``strategy``.
    loss : callable
        Of targets and outputs, a scalar; with several devices or parts each of its sums goes through `devices.total`.
    epoch_data : callable
        Given the epoch, from 1, its inputs and targets, first axis samples; the last batch may be short.
        Every process makes the same. It is called ahead, while the epoch before trains, in another thread: it must
        not look at the model.
    after_epoch : callable
        Given the epoch and its mean loss; True ends the training there, with a checkpoint. Of several processes only
        the first one calls it.
    checkpoints : Checkpoints, optional
        Where the state is kept; what goes on from there equals what was never interrupted.
    generators : mapping, optional
        What is drawn from, by name: part of the state. NumPy's are ``epoch_data``'s alone.
    strategy : tf.distribute.Strategy, optional
        The devices; TensorFlow's present one unless it is given.
    accumulate : int
        In how many parts each device computes its share of a batch: less memory, more time (`workloads.training.step`).
    recompute : bool
        Compute blocks of the network again on the way back: less memory, more time (`workloads.training.recompute`).
    """
    import tensorflow as tf

    from workloads.training.keras_state import capture, restore

    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer=optimizer, loss=loss, strategy=strategy, parts=accumulate, recompute=recompute)
    generators = generators or {}
    losses: list[float] = []
    begun = time.monotonic()
    if checkpoints is not None and (known := checkpoints.load()) is not None:
        restore(known, model, optimizer, generators=generators)
        losses = list(known.facts["losses"])
        begun -= known.facts["seconds"]
    ahead = epochs_ahead(epoch_data, first=len(losses) + 1, last=epochs, batch_size=batch_size, generators=generators)
    with contextlib.closing(ahead):
        for epoch in ahead:
            values = [step(*shared(strategy, *batch)) for batch in epoch.batches]
            losses.append(float(np.mean([float(value) for value in values])))
            if not math.isfinite(losses[-1]):
                return Trained(losses=tuple(losses), diverged=True, seconds=time.monotonic() - begun)
            stopped = agreed(strategy, is_chief(strategy) and after_epoch(epoch.number, losses[-1]))
            if checkpoints is not None and is_chief(strategy) and (stopped or checkpoints.due):
                facts = {"losses": losses, "seconds": time.monotonic() - begun}
                state = capture(
                    model, optimizer, step=epoch.number, generators=generators, facts=facts, random=epoch.random
                )
                checkpoints.save(state)
            if stopped:
                return Trained(losses=tuple(losses), stopped=epoch.number < epochs, seconds=time.monotonic() - begun)
    return Trained(losses=tuple(losses), seconds=time.monotonic() - begun)
