"""A batch in parts trains as the batch at once, though its loss is no mean over samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial_here

from workloads.losses import deep_supervision, detection_loss, segmentation_loss
from workloads.training.loop import Arrays, make_optimizer, train

pytestmark = pytest.mark.tensorflow
SAMPLES, BATCH = 7, 5  # the last batch has two samples, so that one of three parts is empty


def network(answers: int, *, dropout: float = 0.0) -> Any:
    from tensorflow import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((4, 4, 4, 1))
    x = layers.Conv3D(4, 3, padding="same")(inputs)
    x = layers.ReLU()(layers.GroupNormalization(2)(x))
    return keras.Model(inputs, layers.Conv3D(answers, 1)(layers.SpatialDropout3D(dropout)(x)))


def trained(model: Any, loss: Any, classes: int, parts: int) -> tuple[tuple[float, ...], list[Any]]:
    """Losses and weights after three epochs."""
    rng = np.random.default_rng(0)

    def epoch_data(_epoch: int) -> Arrays:
        images = rng.normal(size=(SAMPLES, 4, 4, 4, 1)).astype(np.float32)
        marked = (images > 1).astype(np.float32)
        marked[3:] = 0.0  # a part without a lesion has no Dice of its own
        return images, marked if classes == 1 else np.concatenate([1 - marked, marked], axis=-1)

    done = train(
        model,
        optimizer=make_optimizer("adam", learning_rate=0.01, momentum=0.9, weight_decay=1e-3, steps=6),
        loss=loss,
        epoch_data=epoch_data,
        epochs=3,
        batch_size=BATCH,
        after_epoch=lambda _epoch, _loss: False,
        accumulate=parts,
    )
    return done.losses, model.get_weights()


@pytest.mark.parametrize("name", ["detector", "generalized"])
def test_losses_and_weights_of_a_batch_in_parts_are_those_of_the_batch_at_once(name: str) -> None:
    if name == "detector":
        classes, answers, loss = 1, 1, detection_loss(positive_weight=3.0, dice_weight=0.5)
    else:
        classes, answers = 2, 4
        loss = deep_supervision(segmentation_loss(overlap=name, entropy_share=0.3), 2)
    once, weights = trained(network(answers), loss, classes, 1)
    parts, weights_of_parts = trained(network(answers), loss, classes, 3)
    assert len(once) == 3
    assert parts == pytest.approx(once, abs=1e-5)
    for one, other in zip(weights, weights_of_parts, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_both_passes_over_a_batch_drop_the_same_channels() -> None:
    model = network(1, dropout=0.5)
    (seeds,) = [each for each in model.non_trainable_variables if "seed" in each.path]
    before = np.asarray(seeds)
    trained(model, detection_loss(positive_weight=3.0, dice_weight=0.5), 1, 2)
    again = network(1, dropout=0.5)
    inputs = np.zeros((1, 4, 4, 4, 1), np.float32)
    for _ in range(3 * 2 * 2):  # epochs, batches, parts: each moves the seed once, though it is computed twice
        again(inputs, training=True)
    (expected,) = [each for each in again.non_trainable_variables if "seed" in each.path]
    assert not np.array_equal(before, np.asarray(expected))
    assert np.array_equal(np.asarray(seeds), np.asarray(expected))


def test_a_loss_that_is_not_made_of_sums_over_the_batch_is_refused() -> None:
    import tensorflow as tf

    def mean(targets: Any, outputs: Any) -> Any:
        return tf.reduce_mean((targets - outputs) ** 2)

    assert len(trained(network(1), mean, 1, 1)[0]) == 3
    with pytest.raises(ValueError, match=r"go through workloads\.training\.devices\.total"):
        trained(network(1), mean, 1, 2)


def test_a_trial_that_saves_memory_has_the_result_of_one_that_does_not(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--data", str(phantoms), "--epochs", "1", "--patches", "8", "--seed", "1", "--no-predictions"]
    plain = trial_here("aneurysm", tmp_path / "plain", monkeypatch, *given)
    saving = trial_here("aneurysm", tmp_path / "saving", monkeypatch, *given, "--accumulate", "2", "--recompute")
    assert saving["info"]["losses"] == pytest.approx(plain["info"]["losses"], abs=1e-4)
    assert saving["metrics"]["pauc"] == pytest.approx(plain["metrics"]["pauc"], abs=0.05)
