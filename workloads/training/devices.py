"""A training's devices as one: the GPUs of this node, or those of several nodes.

Every process makes the same whole batch, from the same seed, and each device takes its share of it. A loss is
made of sums over the batch, each through `total`: so it is the whole batch's whatever the shares are, be they
uneven (three devices) or empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from workloads.training.nodes import tensorflow_config

__all__ = ["Sums", "agreed", "is_chief", "make_strategy", "of_batch", "share", "shared", "total", "wait_for_chief"]


def make_strategy() -> Any:
    """`MultiWorkerMirroredStrategy` where several processes were started, `MirroredStrategy` over several GPUs, or neither.

    Must be the first that is done with TensorFlow where there are several processes. Logical CPU devices count
    where a test made some.

    Returns
    -------
    tf.distribute.Strategy

    Raises
    ------
    WorkloadError
        If the nodes are not known.
    """
    if (config := tensorflow_config()) is not None:
        os.environ["TF_CONFIG"] = config
    import tensorflow as tf

    if config is not None:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def share(count: int, index: int, among: int) -> slice:
    """Which of ``count`` samples the device ``index`` of ``among`` takes; the first ones take one more if need be."""
    least, more = divmod(count, among)
    start = index * least + min(index, more)
    return slice(start, start + least + (index < more))


def shared(strategy: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Hand each device its share of a batch; the first axis of both tensors is the samples'.

    A device for which nothing is left gets no targets, and the first sample to compute on: convolutions do not take
    an empty batch. Of what a network makes of its inputs, the first ``len(targets)`` count.
    """
    among = strategy.num_replicas_in_sync
    if among == 1:
        return inputs, targets

    def part(tensor: Any, context: Any) -> Any:
        return tensor[share(len(tensor), context.replica_id_in_sync_group, among)]

    def of_inputs(context: Any) -> Any:
        mine = part(inputs, context)
        return mine if len(mine) else inputs[:1]

    values = strategy.experimental_distribute_values_from_function
    return values(of_inputs), values(lambda context: part(targets, context))


class Sums:
    """The sums of a loss over a batch that is computed in parts.

    Parameters
    ----------
    known : sequence of tensor, optional
        What they come to, in the order in which the loss asks for them; unless it is given, they are to be found.

    Attributes
    ----------
    found : list of tensor
        What the part at hand adds to each.
    """

    def __init__(self, known: Sequence[Any] | None = None) -> None:
        self._known = known
        self.found: list[Any] = []

    def total(self, value: Any) -> Any:
        """The sum over the batch where it is known; its slope is that of the part at hand."""
        import tensorflow as tf

        self.found.append(value)
        if self._known is None:
            return value
        return self._known[len(self.found) - 1] + (value - tf.stop_gradient(value))


_sums: ContextVar[Sums | None] = ContextVar("sums", default=None)


@contextlib.contextmanager
def of_batch(sums: Sums) -> Iterator[Sums]:
    """Have `total` take its answers from ``sums``."""
    token = _sums.set(sums)
    try:
        yield sums
    finally:
        _sums.reset(token)


def total(value: Any) -> Any:
    """Sum of ``value`` over the whole batch, so over all devices and parts; differentiable, and just ``value`` on one."""
    import tensorflow as tf

    if (sums := _sums.get()) is not None:
        return sums.total(value)

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one that reports and writes: the only one, or the first of several."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_id in {None, 0}


def agreed(strategy: Any, answer: bool) -> bool:
    """Tell all processes the chief's answer: one that left a training alone would leave the others waiting for it."""
    import tensorflow as tf

    if strategy.cluster_resolver is None:
        return answer
    mine = tf.constant(float(answer and is_chief(strategy)))
    said = strategy.experimental_distribute_values_from_function(lambda _context: mine)
    return bool(strategy.reduce("SUM", said, axis=None) > 0)


def wait_for_chief(strategy: Any) -> None:
    """Wait until the chief has come here too: TensorFlow ends the others where one of several processes is gone."""
    agreed(strategy, answer=True)
