"""One trial of a training by synchronous data parallelism, from the command line to the result: what the scaling studies share.

A training set of arrays, a network, a loss over the whole batch: the devices of a node or of several share each batch,
and the same seed gives the same losses on any number of them.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.errors import WorkloadError
from workloads.parameters import Parameter, resolve
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import is_chief, make_strategy, total, wait_for_chief
from workloads.training.loop import Arrays, Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions
from workloads.trials.patches import seed_of

__all__ = [
    "AT_ONCE",
    "DEVICES",
    "Forward",
    "Problem",
    "ScalingTask",
    "add_arguments",
    "class_entropy",
    "forward_of",
    "run",
]

DEVICES = "CPU_DEVICES"  # the environment variable that a scaling study counts up on a machine without GPUs
AT_ONCE = 128  # samples that are computed together where nothing is learnt

Forward: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Problem(Protocol):
    """What is to be learnt, with its data in memory.

    Attributes
    ----------
    checksum : str
        Over the data.
    packages : tuple of str
        Whose versions the result records, beside TensorFlow's, Keras's and NumPy's.
    """

    checksum: str
    packages: tuple[str, ...]

    @property
    def training(self) -> Arrays:
        """Inputs, and the numbers of their classes, first axis samples; a class of -1 does not count."""

    def network(self, settings: Mapping[str, Any]) -> Any:
        """The network of a set of hyperparameters."""

    def evaluate(self, forward: Forward) -> Mapping[str, float]:
        """Metrics of a network over the validation set."""

    def write(self, model: Any, forward: Forward, folder: Path, /) -> Mapping[str, Any]:
        """Write the artifacts of a trained network; return what the result should say besides its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingTask:
    """What makes a task of this kind.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched; ``learning_rate``, ``optimizer``, ``momentum``, ``batch_size``, ``weight_decay`` and
        ``smoothing`` (of the labels) are among it.
    objective : str
        The metric that is reported on the way.
    read : callable
        Reads the problem from a folder of data, or raises `WorkloadError`.
    epochs : int
        Default of the training's length.
    """

    parameters: tuple[Parameter, ...]
    objective: str
    read: Callable[[Path], Problem]
    epochs: int


def add_arguments(task: ScalingTask, parser: argparse.ArgumentParser) -> None:
    """Say what the command line of a trial may have."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--epochs", type=int, default=task.epochs, help="(default: %(default)s)")
    parser.add_argument(
        "--per-device",
        action="store_true",
        help="batch_size is each device's, and the learning rate grows with the number of devices",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help=f"CPU devices of this process where there is no GPU (default: {DEVICES}, else 1)",
    )
    parser.add_argument("--report-every", type=int, default=2, metavar="EPOCHS", help="validate after so many epochs")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(task: ScalingTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one network and report it; ahead of the walltime it saves and asks for another attempt (exit code 85).

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    for name in ("epochs", "report_every"):
        if getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    devices = _cpu_devices(options)
    threads = prepare(options.threads)
    seed = seed_of(options)
    problem = task.read(options.data)
    tf = import_tensorflow(threads=threads, seed=seed)
    if devices > 1 and not tf.config.list_physical_devices("GPU"):
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    strategy = make_strategy()
    with strategy.scope():
        model = problem.network(params)
    forward = forward_of(model)
    # Linear scaling of the rate with the batch: Goyal et al. 2017.
    factor = strategy.num_replicas_in_sync if options.per_device else 1
    batch = params["batch_size"] * factor
    arrays = problem.training
    trained, epoch_seconds = _train(
        problem,
        arrays,
        model,
        options,
        params,
        seed=seed,
        batch=batch,
        factor=factor,
        measure=lambda: problem.evaluate(forward)[task.objective],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    measured = problem.evaluate(forward)
    if trained.diverged:  # what such a network answers is chance at best
        measured = dict.fromkeys(measured, 0.0)
    metrics = {**measured, "train_seconds": trained.seconds, "epoch_seconds": epoch_seconds}
    trial.report(len(trained.losses), metrics[task.objective])
    out = options.out or Path(trial.artifacts_dir())
    out.mkdir(parents=True, exist_ok=True)
    said = problem.write(model, forward, out)
    model.save(out / "model.keras")
    trial.finish(
        metrics,
        {
            **said,
            "diverged": trained.diverged,
            "stopped": trained.stopped,
            "losses": [round(value, 6) for value in trained.losses if np.isfinite(value)],
            "seed": seed,
            "params": params,
            "data": problem.checksum,
            "versions": versions("tensorflow", "keras", "numpy", *problem.packages, "survey-orchestrator"),
            "peak_memory_mib": round(peak_memory(), 1),
            "devices": strategy.num_replicas_in_sync,
            "batch": batch,
            # With more devices than samples of a batch the others have nothing to do.
            "busy_devices": min(strategy.num_replicas_in_sync, batch, len(arrays[0])),
        },
    )
    wait_for_chief(strategy)


def class_entropy(smoothing: float) -> Callable[[Any, Any], Any]:
    """Mean cross-entropy of the batch, over all devices.

    Parameters
    ----------
    smoothing : float
        Share of the truth that is spread over all classes alike (Szegedy et al. 2016).

    Returns
    -------
    callable
        (numbers of classes, logits with one axis more) to a scalar tensor; numbers below 0 do not count.
    """
    import tensorflow as tf

    def loss(targets: Any, logits: Any) -> Any:
        counted = tf.cast(targets >= 0, logits.dtype)
        numbers = tf.cast(tf.maximum(targets, 0), tf.int32)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(numbers, logits)
        even = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        mixed = (1.0 - smoothing) * entropy + smoothing * even
        summed, count = tf.unstack(total(tf.stack([tf.reduce_sum(mixed * counted), tf.reduce_sum(counted)])))
        return summed / count

    return loss


def forward_of(model: Any) -> Forward:
    """A Keras model as a function of arrays, without learning, `AT_ONCE` samples at a time."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]
    graph = tf.function(lambda inputs: model(inputs, training=False), input_signature=signature, autograph=False)

    def forward(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [graph(tf.constant(inputs[start : start + AT_ONCE])) for start in range(0, len(inputs), AT_ONCE)]
        return np.concatenate([np.asarray(part) for part in parts])

    return forward


def _cpu_devices(options: argparse.Namespace) -> int:
    said = os.environ.get(DEVICES, "1") if options.devices is None else str(options.devices)
    if not said.isdigit() or not int(said):
        where = DEVICES if options.devices is None else "--devices"
        raise WorkloadError(f"{where} must be a whole number of at least 1, not {said!r}")
    return int(said)


def _train(
    problem: Problem,
    arrays: Arrays,
    model: Any,
    options: argparse.Namespace,
    params: Mapping[str, Any],
    *,
    seed: int,
    batch: int,
    factor: int,
    measure: Callable[[], float],
    strategy: Any,
) -> tuple[Trained, float]:
    """Train ``model``; give the median time of an epoch too, without validation and without the first one's tracing."""
    inputs, targets = arrays
    rng = np.random.default_rng(seed)
    times: list[float] = []
    begun = time.monotonic()

    def shuffled(_epoch: int) -> Arrays:
        order = rng.permutation(len(inputs))
        return inputs[order], targets[order]

    def after_epoch(epoch: int, _loss: float) -> bool:
        nonlocal begun
        times.append(time.monotonic() - begun)
        if epoch % options.report_every == 0 and epoch < options.epochs:
            trial.report(epoch, measure())
        stop = trial.should_stop()
        begun = time.monotonic()
        return stop

    with strategy.scope():
        optimizer = make_optimizer(
            params["optimizer"],
            learning_rate=params["learning_rate"] * factor,
            momentum=params["momentum"],
            weight_decay=params["weight_decay"],
            steps=options.epochs * math.ceil(len(inputs) / batch),
        )
    trained = train(
        model,
        optimizer=optimizer,
        loss=class_entropy(params["smoothing"]),
        epoch_data=shuffled,
        epochs=options.epochs,
        batch_size=batch,
        after_epoch=after_epoch,
        checkpoints=Checkpoints(
            {"params": params, "seed": seed, "data": problem.checksum, "epochs": options.epochs, "batch": batch}
        ),
        generators={"data": rng},
        strategy=strategy,
    )
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    return trained, float(np.median(times[1:] or times or [trained.seconds]))
