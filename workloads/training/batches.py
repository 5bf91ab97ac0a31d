"""The input of a training as a pipeline of `tf.data`: an epoch is drawn, by a thread of its own, while the one before it trains."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workloads.training.checkpoint import numpy_states

__all__ = ["Arrays", "Epoch", "epochs_ahead"]

Arrays: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
READY = 2  # batches that are cut out before they are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one epoch trains on.

    Attributes
    ----------
    number : int
        From 1.
    batches : tf.data.Dataset
        Of inputs and targets; the last batch may be short.
    random : mapping
        Where the generators stood when it was drawn, as `checkpoint.numpy_states` has it: where the next epoch
        begins, however much is drawn ahead.
    """

    number: int
    batches: Any
    random: Mapping[str, Any]


def epochs_ahead(
    draw: Callable[[int], Arrays],
    *,
    first: int,
    last: int,
    batch_size: int,
    generators: Mapping[str, Any],
) -> Generator[Epoch]:
    """Epochs ``first`` to ``last``, each drawn while the one before it is worked on.

    An error of ``draw`` is raised when its epoch is asked for. Two epochs are in memory.

    Parameters
    ----------
    draw : callable
        Given the epoch, its inputs and targets, first axis samples. It is called in the order of the epochs, in
        another thread.
    generators : mapping
        What it draws from, by name; nothing else may draw from them meanwhile, nor from the global generators of
        Python and NumPy if ``draw`` does.
    """
    # Not `Dataset.from_generator`: where TensorFlow is to be deterministic it takes prefetching from behind one away.
    import tensorflow as tf

    def drawn(number: int) -> Epoch:
        arrays = draw(number)
        random = numpy_states(generators)
        with tf.device("CPU:0"):
            batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size).prefetch(READY)
        return Epoch(number=number, batches=batches, random=random)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as thread:
        ahead = thread.submit(drawn, first) if first <= last else None
        while ahead is not None:
            epoch = ahead.result()
            ahead = thread.submit(drawn, epoch.number + 1) if epoch.number < last else None
            yield epoch
