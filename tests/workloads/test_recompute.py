"""A network that computes its blocks again on the way back trains as one that keeps everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workloads.losses import segmentation_loss
from workloads.models.segmenter import segmenter
from workloads.training.loop import Arrays, make_optimizer, train
from workloads.training.recompute import recomputed
from workloads.training.step import make_step

pytestmark = pytest.mark.tensorflow


def network(*, depth: int, dropout: float = 0.0) -> Any:
    from tensorflow import keras

    keras.utils.set_random_seed(3)
    return segmenter("unet", dimensions=2, classes=2, filters=2, depth=depth, dropout=dropout)


def trained(model: Any, *, recompute: bool = False) -> tuple[tuple[float, ...], list[Any]]:
    """Losses and weights after two epochs."""
    rng = np.random.default_rng(0)

    def epoch_data(_epoch: int) -> Arrays:
        images = rng.normal(size=(5, 8, 8, 1)).astype(np.float32)
        marked = (images > 1).astype(np.float32)
        return images, np.concatenate([1 - marked, marked], axis=-1)

    done = train(
        model,
        optimizer=make_optimizer("adam", learning_rate=0.01, momentum=0.9, weight_decay=1e-3, steps=4),
        loss=segmentation_loss(),
        epoch_data=epoch_data,
        epochs=2,
        batch_size=3,
        after_epoch=lambda _epoch, _loss: False,
        recompute=recompute,
    )
    return done.losses, model.get_weights()


def test_losses_weights_and_dropped_channels_are_the_same() -> None:
    kept, weights = trained(network(depth=1, dropout=0.4))
    again, weights_again = trained(network(depth=1, dropout=0.4), recompute=True)
    assert len(kept) == 2
    assert again == pytest.approx(kept, abs=1e-5)
    for one, other in zip(weights, weights_again, strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_all_but_the_last_convolutions_are_computed_twice() -> None:
    import tensorflow as tf

    def convolutions(*, recompute: bool) -> int:
        model = network(depth=2)
        optimizer = make_optimizer("adam", learning_rate=0.01, momentum=0.9, weight_decay=0.0, steps=2)
        optimizer.build(model.trainable_variables)
        step: Any = make_step(
            model,
            optimizer=optimizer,
            loss=segmentation_loss(),
            strategy=tf.distribute.get_strategy(),
            recompute=recompute,
        )
        graph = step.get_concrete_function(tf.zeros((1, 8, 8, 1)), tf.zeros((1, 8, 8, 2))).graph
        return sum(operation.type == "Conv2D" for operation in graph.get_operations())

    # Two on each of two levels down and two up, two at the bottom, one beside all of them, and the answer's.
    assert convolutions(recompute=False) == 12
    assert convolutions(recompute=True) == 12 + 12 - 4


def test_the_network_answers_as_before_and_keeps_its_form() -> None:
    model = network(depth=2)
    before = model.to_json()
    inputs = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    assert np.allclose(recomputed(model)(inputs), model(inputs), atol=1e-5)
    assert model.to_json() == before
