"""Losses of voxel-wise detectors, on logits, for soft targets between 0 and 1.

Each sum over the batch goes through `devices.total`: on several devices the loss is the whole batch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workloads.training.devices import total

__all__ = ["detection_loss"]


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
