"""Training of a generator against a discriminator: two networks and two optimizers, step about, on one device.

Without a discriminator it is an ordinary training. The adversarial loss is that of least squares (Mao et al. 2017).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.training.checkpoint import Checkpoints
from workloads.training.loop import Arrays, Trained

__all__ = ["train_adversarial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Both:
    """Variables of several parts, as `workloads.training.keras_state` takes them of one."""

    variables: list[Any]


def train_adversarial(
    generator: Any,
    discriminator: Any | None,
    *,
    make_optimizer: Callable[[], Any],
    content: Callable[[Any, Any], Any],
    weight: float,
    epoch_data: Callable[[int], Arrays],
    epochs: int,
    batch_size: int,
    after_epoch: Callable[[int, float], bool],
    checkpoints: Checkpoints,
    generators: Mapping[str, np.random.Generator],
) -> Trained:
    """Train ``generator``, and ``discriminator`` against it; go on from where an earlier attempt left it.

    Parameters
    ----------
    discriminator : keras.Model or None
        Scores inputs and outputs, stacked as channels; None: ``content`` is all there is.
    make_optimizer : callable
        Makes the optimizer of either network.
    content : callable
        Of targets and outputs, a scalar; the generator's loss is this plus ``weight`` times the adversarial one.
    epoch_data : callable
        Given the epoch, from 1, its inputs and targets, first axis samples; a last short batch is left out.
    after_epoch : callable
        Given the epoch and the mean of ``content``; True ends the training there, with a checkpoint.
    checkpoints : Checkpoints
        The state is also kept after the last epoch: who trains several generators need not do it again.
    generators : mapping
        What ``epoch_data`` draws from, by name: part of the state.

    Returns
    -------
    Trained
        Its losses are those of ``content``.
    """
    import tensorflow as tf

    from workloads.training.keras_state import capture, restore

    optimizers = [make_optimizer()]
    optimizers[0].build(generator.trainable_variables)
    networks = [generator]
    if discriminator is not None:
        optimizers.append(make_optimizer())
        optimizers[1].build(discriminator.trainable_variables)
        networks.append(discriminator)

    def scores(inputs: Any, images: Any) -> Any:
        assert discriminator is not None
        return discriminator(tf.concat([inputs, images], axis=-1), training=True)

    def step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape, tf.GradientTape() as other:
            outputs = generator(inputs, training=True)
            value = content(targets, outputs)
            loss = value
            if discriminator is not None:
                made, real = scores(inputs, outputs), scores(inputs, targets)
                loss = value + weight * tf.reduce_mean((made - 1.0) ** 2)
                against = (tf.reduce_mean((real - 1.0) ** 2) + tf.reduce_mean(made**2)) / 2.0
        gradients = tape.gradient(loss, generator.trainable_variables)
        optimizers[0].apply_gradients(zip(gradients, generator.trainable_variables, strict=True))
        if discriminator is not None:
            gradients = other.gradient(against, discriminator.trainable_variables)
            optimizers[1].apply_gradients(zip(gradients, discriminator.trainable_variables, strict=True))
        return value

    graph = tf.function(step, reduce_retracing=True, autograph=False)
    models = _Both(variables=[variable for network in networks for variable in network.variables])
    states = _Both(variables=[variable for optimizer in optimizers for variable in optimizer.variables])
    losses: list[float] = []
    begun = time.monotonic()
    if (known := checkpoints.load()) is not None:
        restore(known, models, states, generators=generators)
        losses = list(known.facts["losses"])
        begun -= known.facts["seconds"]
    for epoch in range(len(losses) + 1, epochs + 1):
        inputs, targets = epoch_data(epoch)
        size = min(batch_size, len(inputs))
        starts = range(0, len(inputs) - size + 1, size)
        values = [graph(inputs[start : start + size], targets[start : start + size]) for start in starts]
        losses.append(float(np.mean([float(value) for value in values])))
        seconds = time.monotonic() - begun
        if not math.isfinite(losses[-1]):
            return Trained(losses=tuple(losses), diverged=True, seconds=seconds)
        stopped = after_epoch(epoch, losses[-1])
        if stopped or checkpoints.due or epoch == epochs:
            facts = {"losses": losses, "seconds": seconds}
            checkpoints.save(capture(models, states, step=epoch, generators=generators, facts=facts))
        if stopped:
            return Trained(losses=tuple(losses), stopped=epoch < epochs, seconds=seconds)
    return Trained(losses=tuple(losses), seconds=time.monotonic() - begun)
