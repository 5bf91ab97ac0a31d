"""Half precision: the same learning in half of the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial

from workloads.training.inference import compiled
from workloads.training.loop import Arrays, make_optimizer, train

pytestmark = pytest.mark.tensorflow
RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(8, 4, 4, 4, 1)).astype(np.float32)
TARGETS = (INPUTS > 0.3).astype(np.float32)


@pytest.fixture
def policy() -> Iterator[Any]:
    """Sets Keras' precision, and sets it back."""
    from tensorflow import keras

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def network() -> Any:
    from tensorflow import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((None, None, None, 1))
    x = keras.layers.Conv3D(4, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Conv3D(1, 1)(x))


def trained() -> tuple[Any, tuple[float, ...]]:
    import tensorflow as tf

    def loss(targets: Any, logits: Any) -> Any:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))

    def epoch_data(_epoch: int) -> Arrays:
        return INPUTS, TARGETS

    model = network()
    result = train(
        model,
        optimizer=make_optimizer("sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.0, steps=6),
        loss=loss,
        epoch_data=epoch_data,
        epochs=3,
        batch_size=4,
        after_epoch=lambda _epoch, _loss: False,
    )
    return model, result.losses


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_alike_keeps_single_weights_and_answers_in_single(policy: Any, precision: str) -> None:
    _, expected = trained()
    policy(precision)
    model, losses = trained()
    assert losses == pytest.approx(expected, rel=0.03)
    assert losses != expected
    assert losses[-1] < losses[0]
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert compiled(model)(INPUTS[:1]).dtype == np.float32


def test_a_trial_computes_in_half_precision_if_asked_to(phantoms: Path, tmp_path: Path) -> None:
    short = ("--epochs", "1", "--patches", "8", "--no-predictions", "--mixed")
    result = trial("aneurysm", tmp_path / "t", "--data", str(phantoms), *short, "--set", "batch_size=4")
    assert np.isfinite(result["info"]["losses"]).all()
