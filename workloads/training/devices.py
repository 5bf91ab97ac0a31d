"""A training's devices as one: the GPUs of this node, or those of several nodes.

Every process makes the same whole batch, from the same seed, and each device takes its share of it. A loss is
made of sums over the batch, each through `total`: so it is the whole batch's whatever the shares are, be they
uneven (three devices) or empty.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workloads.training.nodes import tensorflow_config

__all__ = ["agreed", "is_chief", "make_strategy", "share", "shared", "total", "wait_for_chief"]

Array: TypeAlias = NDArray[np.float32]


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


def shared(strategy: Any, inputs: Array, targets: Array) -> tuple[Any, Any]:
    """Hand each device its share of a batch; the first axis of both arrays is the samples'.

    A device for which nothing is left gets no targets, and the first sample to compute on: convolutions do not take
    an empty batch. Of what a network makes of its inputs, the first ``len(targets)`` count.
    """
    import tensorflow as tf

    among = strategy.num_replicas_in_sync
    if among == 1:
        return tf.constant(inputs), tf.constant(targets)

    def part(array: Array, context: Any) -> Array:
        return array[share(len(array), context.replica_id_in_sync_group, among)]

    def of_inputs(context: Any) -> Any:
        mine = part(inputs, context)
        return tf.constant(mine if len(mine) else inputs[:1])

    values = strategy.experimental_distribute_values_from_function
    return values(of_inputs), values(lambda context: tf.constant(part(targets, context)))


def total(value: Any) -> Any:
    """Sum of ``value`` over all devices; differentiable, and just ``value`` on one."""
    import tensorflow as tf

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
