"""A tiny training as a program: whole, cut short after three of six epochs, or taken up again.

``python interrupted_training.py whole|stop|kill|resume FOLDER``. By our own loop and by Keras' ``fit``;
each draws from every generator that a training may draw from.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.training.checkpoint import Checkpoints
from workloads.training.keras_state import checkpoint_callback
from workloads.training.loop import make_optimizer, train
from workloads.training.setup import import_tensorflow, prepare

EPOCHS, CUT, SEED = 6, 3, 11
Cut = Callable[[], None]


def network() -> Any:
    from tensorflow import keras

    layers = keras.layers
    parts = [layers.Dense(8, "relu"), layers.Dropout(0.3), layers.BatchNormalization(), layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *parts])


def keep(path: Path, model: Any, optimizer: Any, losses: list[float]) -> None:
    """Write down all that two trainings must have in common."""
    arrays: dict[str, Any] = {f"model-{n}": np.asarray(each) for n, each in enumerate(model.variables)}
    arrays |= {f"optimizer-{n}": np.asarray(each) for n, each in enumerate(optimizer.variables)}
    next_draws = np.array([random.random(), np.random.random()])  # noqa: NPY002 - the global one is meant
    np.savez(path, losses=np.array(losses), next_draws=next_draws, **arrays)


def by_loop(checkpoints: Checkpoints, out: Path, *, seed: int, cut_at: int, cut: Cut) -> None:
    """Train by `train`."""
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    tf_rng = tf.random.Generator.from_seed(seed)
    model = network()

    def epoch_data(_epoch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        inputs = rng.normal(size=(20, 4)) + random.gauss(0.0, 0.1) + np.random.normal(size=(20, 1))  # noqa: NPY002
        return inputs.astype(np.float32), inputs.sum(axis=1, keepdims=True).astype(np.float32)

    def loss(target: Any, output: Any) -> Any:
        return tf.reduce_mean((target - output) ** 2)

    def after_epoch(epoch: int, _loss: float) -> bool:
        tf_rng.uniform(())
        if epoch == cut_at:
            cut()
        return trial.should_stop()

    optimizer = make_optimizer("adam", learning_rate=0.05, momentum=0.9, weight_decay=0.01, steps=EPOCHS * 3)
    trained = train(
        model,
        optimizer=optimizer,
        loss=loss,
        epoch_data=epoch_data,
        epochs=EPOCHS,
        batch_size=8,
        after_epoch=after_epoch,
        checkpoints=checkpoints,
        generators={"data": rng, "tf": tf_rng},
    )
    if not trained.stopped:
        keep(out, model, optimizer, [*trained.losses, float(tf_rng.uniform(()))])


def by_fit(checkpoints: Checkpoints, out: Path, *, cut: Cut) -> None:
    """Train by ``fit``; a stop ahead of the walltime ends the program with exit code 85."""
    from tensorflow import keras

    model = network()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    inputs = np.random.default_rng(SEED).normal(size=(40, 4)).astype(np.float32)
    # A rate that falls whenever two epochs bring little, and a memory of the best weights.
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2, min_delta=100.0)
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=50, restore_best_weights=True)

    class CutShort(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is not typed
        def on_epoch_end(self, epoch: int, _logs: Any = None) -> None:
            if epoch + 1 == CUT:
                cut()

    callback, done = checkpoint_callback(checkpoints, epochs=EPOCHS, also=[plateau, stopping])
    callbacks = [plateau, stopping, CutShort(), callback]
    target = inputs.sum(axis=1)
    past = model.fit(inputs, target, batch_size=8, epochs=EPOCHS, initial_epoch=done, verbose=0, callbacks=callbacks)
    keep(out, model, model.optimizer, past.history["loss"][-(EPOCHS - CUT) :] + past.history["learning_rate"][-1:])


def main(mode: str, folder: Path) -> None:
    """Train as ``mode`` says; checkpoints and results go below ``folder``."""
    prepare(1)
    import_tensorflow(threads=1, seed=SEED)
    from tensorflow import keras

    def stop() -> None:
        Path(os.environ["SURVEY_STOP"]).write_text("walltime\n")

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def nothing() -> None:
        pass

    def loop(name: str, *, every: float = 3600.0, seed: int = SEED, cut_at: int = CUT, cut: Cut = nothing) -> None:
        keras.utils.set_random_seed(seed)
        checkpoints = Checkpoints({"epochs": EPOCHS}, every=every, folder=str(folder / f"loop-{name}"))
        by_loop(checkpoints, folder / f"{mode}-loop-{name}.npz", seed=seed, cut_at=cut_at, cut=cut)

    def fit(name: str, *, cut: Cut = nothing) -> None:
        keras.utils.set_random_seed(SEED)
        checkpoints = Checkpoints({"epochs": EPOCHS}, every=3600.0, folder=str(folder / f"fit-{name}"))
        by_fit(checkpoints, folder / f"{mode}-fit-{name}.npz", cut=cut)

    if mode == "whole":
        loop("none")
        fit("none")
    elif mode == "stop":
        loop("stop", cut=stop)
        Path(os.environ["SURVEY_STOP"]).unlink()
        fit("stop", cut=stop)
    elif mode == "kill":
        loop("kill", every=0.0, cut_at=CUT + 1, cut=kill)  # before the fourth epoch is saved
    else:
        # With another seed: what is not in the checkpoint would be different.
        loop("stop", seed=SEED + 1)
        loop("kill", seed=SEED + 2)
        fit("stop")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
