"""Losses on logits, voxel by voxel: of detectors for soft targets between 0 and 1, of segmenters for one channel a class.

Each sum over the batch goes through `devices.total`: on several devices the loss is the whole batch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workloads.training.devices import total

__all__ = [
    "OVERLAPS",
    "RECONSTRUCTIONS",
    "deep_supervision",
    "detection_loss",
    "reconstruction_loss",
    "segmentation_loss",
]

OVERLAPS = ("dice", "generalized")
RECONSTRUCTIONS = ("squared", "absolute")


def detection_loss(*, positive_weight: float, dice_weight: float) -> Callable[[Any, Any], Any]:
    """Weighted cross-entropy mixed with a soft Dice loss over the whole batch.

    Parameters
    ----------
    positive_weight : float
        How many times a lesion voxel counts in the cross-entropy.
    dice_weight : float
        Share of the Dice loss, 0 to 1. Dice is taken over the batch and not over each patch: a
        patch without a lesion has no Dice, and pulling it to nothing teaches the network nothing
        else (Milletari et al. 2016 for the soft form).

    Returns
    -------
    callable
        (targets, logits), both (batch, x, y, z, 1), to a scalar tensor.
    """
    import tensorflow as tf

    def loss(targets: Any, logits: Any) -> Any:
        entropies = tf.nn.weighted_cross_entropy_with_logits(targets, logits, positive_weight)
        probabilities = tf.sigmoid(logits)
        sums = [tf.reduce_sum(each) for each in (entropies, probabilities * targets, probabilities, targets)]
        entropy, shared, predicted, true = tf.unstack(total(tf.stack(sums)))
        entropy /= total(tf.cast(tf.size(targets), targets.dtype))
        dice = (2.0 * shared + 1.0) / (predicted + true + 1.0)
        # Lesions fill about a hundredth of a patch; ten times the entropy makes both terms of one size.
        return (1.0 - dice_weight) * 10.0 * entropy + dice_weight * (1.0 - dice)

    return loss


def segmentation_loss(*, overlap: str = "dice", entropy_share: float = 0.5) -> Callable[[Any, Any], Any]:
    """Cross-entropy over classes mixed with a loss of overlap, over the whole batch.

    Parameters
    ----------
    overlap : str
        ``dice``: one minus the mean soft Dice of the classes but background (Milletari et al. 2016).
        ``generalized``: one minus the generalized Dice of all classes, each weighted by one over its squared
        volume (Sudre et al. 2017); a class that the batch does not have weighs as much as the rarest that it has,
        since one over nothing would leave room for no other.
    entropy_share : float
        Share of the cross-entropy, 0 to 1.

    Returns
    -------
    callable
        (targets, logits), both (batch, ..., classes) with background first, to a scalar tensor. Targets are the
        classes' shares of each voxel.
    """
    import tensorflow as tf

    if overlap not in OVERLAPS:
        raise ValueError(f"no overlap is called {overlap!r}: there is {', '.join(OVERLAPS)}")

    def loss(targets: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        true, found = tf.reshape(targets, (-1, classes)), tf.reshape(logits, (-1, classes))
        probabilities = tf.nn.softmax(found)
        of_classes = [tf.reduce_sum(each, axis=0) for each in (probabilities * true, probabilities, true)]
        entropy = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(true, found))
        sums = total(tf.concat([*of_classes, tf.reshape(entropy, (1,))], axis=0))
        shared, predicted, volumes = tf.split(sums[:-1], 3)
        entropy = sums[-1] / tf.maximum(tf.reduce_sum(volumes), 1.0)
        if overlap == "dice":
            dice = (2.0 * shared + 1.0) / (predicted + volumes + 1.0)
            missed = 1.0 - tf.reduce_mean(dice[1:])
        else:
            rarest = tf.reduce_min(tf.where(volumes > 0.0, volumes, tf.reduce_max(volumes)))
            weights = 1.0 / tf.maximum(tf.where(volumes > 0.0, volumes, rarest), 1.0) ** 2
            missed = 1.0 - 2.0 * tf.reduce_sum(weights * shared) / tf.reduce_sum(weights * (predicted + volumes))
        return entropy_share * entropy + (1.0 - entropy_share) * missed

    return loss


def reconstruction_loss(kind: str) -> Callable[[Any, Any], Any]:
    """Mean ``squared`` or ``absolute`` difference of targets and outputs over the whole batch."""
    import tensorflow as tf

    measure = {"squared": tf.square, "absolute": tf.abs}[kind]

    def loss(targets: Any, outputs: Any) -> Any:
        differences = tf.reduce_sum(measure(targets - outputs))
        return total(differences) / total(tf.cast(tf.size(targets), targets.dtype))

    return loss


def deep_supervision(loss: Callable[[Any, Any], Any], scales: int) -> Callable[[Any, Any], Any]:
    """``loss`` of the answers of several scales, each counting half as much as the next finer one.

    Parameters
    ----------
    scales : int
        How many answers the network gives, each brought to the size of its input: their logits follow each other
        along the last axis, the finest first. The weights add up to one. An answer that is enlarged by repeating
        its voxels costs what it costs at its own scale against the shares of the classes in each of its voxels
        (the entropy exactly, Dice but for what is added to its sums), so that no scale loses a small region.
    """
    import tensorflow as tf

    weights = [0.5**scale for scale in range(scales)]

    def of_all(targets: Any, logits: Any) -> Any:
        answers = tf.split(logits, scales, axis=-1)
        values = [weight * loss(targets, answer) for weight, answer in zip(weights, answers, strict=True)]
        return tf.add_n(values) / sum(weights)

    return of_all
