"""One step of a training, on one device or several, the batch at once or in parts (gradient accumulation).

A loss such as Dice is no mean over samples, so the gradients of parts do not add up to that of the batch. But ours
are functions of sums over the batch, each of which goes through `devices.total`. A batch in parts is therefore
computed twice: first forwards, for its sums; then, part by part, forwards and backwards with these sums in place of
the part's own. By the chain rule the gradients of the parts then add up to the batch's, exactly but for rounding, at
the price of one more pass forwards. What a network computes over a batch itself (batch normalisation) is the part's.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

from workloads.errors import WorkloadError
from workloads.training.devices import Sums, of_batch, total
from workloads.training.recompute import recomputed

__all__ = ["add_memory_arguments", "check_memory_options", "make_step"]


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how a command line may trade time for memory."""
    parser.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="compute a batch in N parts: less memory, more time"
    )
    parser.add_argument(
        "--recompute", action="store_true", help="compute blocks of the network again on the way back: the same"
    )


def check_memory_options(options: argparse.Namespace) -> None:
    """Make sure of what `add_memory_arguments` asks for.

    Raises
    ------
    WorkloadError
        If an option cannot be.
    """
    if options.accumulate < 1:
        raise WorkloadError("--accumulate must be at least 1")


def make_step(
    model: Any,
    *,
    optimizer: Any,
    loss: Callable[[Any, Any], Any],
    strategy: Any,
    parts: int = 1,
    recompute: bool = False,
) -> Callable[[Any, Any], Any]:
    """A function of a batch's inputs and targets, as `devices.shared` hands them out, that trains one step.

    Parameters
    ----------
    model, optimizer : keras.Model, keras.optimizers.Optimizer
        Built, in the scope of ``strategy``.
    loss : callable
        Of targets and outputs, a scalar. With several devices or parts each of its sums goes through `devices.total`,
        and none of them may depend on what came out of another.
    parts : int
        In how many parts each device computes its share. Samples that are fewer leave some of them empty.
    recompute : bool
        Compute blocks of the network again on the way back (`workloads.training.recompute`).

    Returns
    -------
    callable
        It returns the loss of the whole batch, before the step.
    """
    import tensorflow as tf

    devices = strategy.num_replicas_in_sync
    variables = model.trainable_variables
    forward = recomputed(model) if recompute else functools.partial(model, training=True)

    def cost(inputs: Any, targets: Any) -> Any:
        outputs = tf.cast(forward(inputs), targets.dtype)
        # Of an empty share there is a sample to compute on, and no target.
        return loss(targets, outputs if devices == parts == 1 else outputs[: tf.shape(targets)[0]])

    def at_once(inputs: Any, targets: Any) -> tuple[Any, Sequence[Any]]:
        with tf.GradientTape() as tape:
            value = cost(inputs, targets)
            # Each device has the loss of the whole batch, and the optimizer adds up the gradients of all devices.
            scaled = optimizer.scale_loss(value / devices)
        return value, tape.gradient(scaled, variables)

    def sums_of_part(inputs: Any, targets: Any) -> list[Any]:
        with of_batch(Sums()) as sums:
            cost(inputs, targets)
        return sums.found

    def part_of(inputs: Any, targets: Any, known: Sequence[Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape, of_batch(Sums(known=known)):
            value = cost(inputs, targets)
            scaled = optimizer.scale_loss(value)
        return value, tape.gradient(scaled, variables)

    # Traced once for all parts.
    forwards = tf.function(sums_of_part, reduce_retracing=True, autograph=False)
    backwards = tf.function(part_of, reduce_retracing=True, autograph=False)

    def in_parts(inputs: Any, targets: Any) -> tuple[Any, Sequence[Any]]:
        # Both passes drop the same channels, and what is a running mean moves once.
        before = [tf.identity(variable) for variable in model.non_trainable_variables]
        sums: list[Any] = []
        for index in range(parts):
            with tf.control_dependencies(sums):  # one after the other: memory is that of one part
                found = forwards(*_part(inputs, targets, index, parts))
            sums = [one + other for one, other in zip(sums, found, strict=True)] if index else found
        if not sums:
            raise ValueError("a batch in parts needs a loss whose sums go through workloads.training.devices.total")
        sums = [total(each) for each in sums]
        for variable, value in zip(model.non_trainable_variables, before, strict=True):
            variable.assign(value)
        gradients: list[Any] = []
        for index in range(parts):
            with tf.control_dependencies([each for each in (*sums, *gradients) if each is not None]):
                value, found = backwards(*_part(inputs, targets, index, parts), sums)
            gradients = [_added(one, other) for one, other in zip(gradients, found, strict=True)] if index else found
        return value, gradients

    def on_one(inputs: Any, targets: Any) -> Any:
        value, gradients = (at_once if parts == 1 else in_parts)(inputs, targets)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    def on_all(inputs: Any, targets: Any) -> Any:
        if devices == 1:
            return on_one(inputs, targets)
        return strategy.reduce("MEAN", strategy.run(on_one, args=(inputs, targets)), axis=None)

    step: Callable[[Any, Any], Any] = tf.function(on_all, reduce_retracing=True, autograph=False)
    return step


def _part(inputs: Any, targets: Any, index: int, among: int) -> tuple[Any, Any]:
    """Part ``index`` of ``among`` of a share; of an empty one some sample, and no target."""
    import tensorflow as tf

    count = tf.shape(targets)[0]
    start, end = index * count // among, (index + 1) * count // among
    first = tf.minimum(start, tf.shape(inputs)[0] - 1)
    return inputs[first : tf.maximum(end, first + 1)], targets[start:end]


def _added(one: Any, other: Any) -> Any:
    """Sum of two gradients; of a variable that the loss does not depend on there is none."""
    return None if one is None else one + other
