"""Losses against NumPy and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.losses import OVERLAPS, deep_supervision, detection_loss, segmentation_loss

pytestmark = pytest.mark.tensorflow
RNG = np.random.default_rng(1)
SURE = 50.0  # a logit that leaves no doubt


def value(loss: Any, targets: NDArray[Any], logits: NDArray[Any]) -> float:
    import tensorflow as tf

    return float(loss(tf.constant(targets, tf.float32), tf.constant(logits, tf.float32)))


def one_hot(labels: list[int], classes: int = 3) -> NDArray[np.float64]:
    """Targets of one row of voxels, shape (1, n, 1, 1, classes)."""
    return np.eye(classes)[labels][None, :, None, None, :]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def test_dice_of_two_sure_classes_is_worked_out_by_hand() -> None:
    targets, answer = one_hot([0, 0, 1, 1, 2, 2]), one_hot([0, 0, 1, 2, 2, 2])
    # Class 1 shares 1 of 2 + 1 voxels, class 2 shares 2 of 2 + 3; each sum has one more, so that nothing is 0/0.
    dice = ((2 * 1 + 1) / (3 + 1) + (2 * 2 + 1) / (5 + 1)) / 2
    found = value(segmentation_loss(overlap="dice", entropy_share=0.0), targets, SURE * answer)
    assert found == pytest.approx(1 - dice, abs=1e-5)


def test_generalized_dice_weighs_a_class_by_its_squared_volume() -> None:
    targets, answer = one_hot([0, 0, 0, 0, 1, 2, 2]), one_hot([0, 0, 0, 1, 1, 2, 0])
    shared, predicted, true = np.array([3, 1, 1]), np.array([4, 2, 1]), np.array([4, 1, 2])
    weights = 1 / true.astype(float) ** 2
    expected = 1 - 2 * (weights @ shared) / (weights @ (predicted + true))
    found = value(segmentation_loss(overlap="generalized", entropy_share=0.0), targets, SURE * answer)
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_class_that_is_absent_weighs_as_much_as_the_rarest_that_is_there() -> None:
    targets, answer = one_hot([0, 0, 0, 0, 1, 1]), one_hot([0, 0, 0, 2, 1, 1])
    shared, predicted, true = np.array([3, 2, 0]), np.array([3, 2, 1]), np.array([4, 2, 0])
    weights = np.array([1 / 16, 1 / 4, 1 / 4])
    expected = 1 - 2 * (weights @ shared) / (weights @ (predicted + true))
    found = value(segmentation_loss(overlap="generalized", entropy_share=0.0), targets, SURE * answer)
    assert found == pytest.approx(expected, abs=1e-5)


def test_entropy_is_the_mean_over_voxels() -> None:
    targets = one_hot(RNG.integers(0, 3, 20).tolist())
    logits = RNG.normal(size=targets.shape)
    expected = -np.mean(np.log(np.sum(softmax(logits) * targets, axis=-1)))
    assert value(segmentation_loss(entropy_share=1.0), targets, logits) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_the_right_answer_costs_nothing_and_the_loss_has_a_slope_whatever_is_absent(
    overlap: str, labels: list[int]
) -> None:
    import tensorflow as tf

    loss = segmentation_loss(overlap=overlap)
    targets = tf.constant(one_hot(labels), tf.float32)
    assert float(loss(targets, SURE * targets)) == pytest.approx(0.0, abs=1e-4)
    logits = tf.Variable(RNG.normal(size=targets.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        cost = loss(targets, logits)
    slope = np.asarray(tape.gradient(cost, logits))
    assert float(cost) > 0.05
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 1e-3


def test_coarser_answers_count_half_as_much_each() -> None:
    targets = one_hot([0, 1, 2, 2])
    loss = segmentation_loss()
    answers = [RNG.normal(size=targets.shape) for _ in range(3)]
    each = [value(loss, targets, answer) for answer in answers]
    together = value(deep_supervision(loss, 3), targets, np.concatenate(answers, axis=-1))
    assert together == pytest.approx((each[0] + each[1] / 2 + each[2] / 4) / 1.75, rel=1e-5)
    assert value(deep_supervision(loss, 1), targets, answers[0]) == pytest.approx(each[0])


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_enlarged_answer_costs_what_it_costs_at_its_own_scale_against_the_shares_of_classes(overlap: str) -> None:
    coarse = 3 * RNG.normal(size=(1, 6, 6, 6, 3))
    targets = np.eye(3)[RNG.integers(0, 3, (1, 12, 12, 12))]
    shares = targets.reshape(1, 6, 2, 6, 2, 6, 2, 3).mean(axis=(2, 4, 6))
    enlarged = coarse.repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    loss = segmentation_loss(overlap=overlap, entropy_share=0.5)
    # Dice adds one to its sums whatever the scale: that much they may differ.
    assert value(loss, targets, enlarged) == pytest.approx(value(loss, shares, coarse), abs=5e-3)
    entropy = segmentation_loss(overlap=overlap, entropy_share=1.0)
    assert value(entropy, targets, enlarged) == pytest.approx(value(entropy, shares, coarse), rel=1e-5)


def test_a_detectors_loss_weighs_lesions_and_mixes_with_dice() -> None:
    targets = (RNG.random((2, 3, 3, 3, 1)) < 0.2).astype(np.float64)
    logits = RNG.normal(size=targets.shape)
    chance = 1 / (1 + np.exp(-logits))
    entropy = -np.mean(4.0 * targets * np.log(chance) + (1 - targets) * np.log(1 - chance))
    dice = (2 * np.sum(chance * targets) + 1) / (chance.sum() + targets.sum() + 1)
    found = value(detection_loss(positive_weight=4.0, dice_weight=0.3), targets, logits)
    assert found == pytest.approx(0.7 * 10 * entropy + 0.3 * (1 - dice), rel=1e-5)


def test_an_overlap_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is dice, generalized"):
        segmentation_loss(overlap="dise")
