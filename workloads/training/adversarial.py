"""A generator and its adversary as one model with one loss, for `workloads.training.loop.train`: on one device or several.

The two losses of such a training are added up, and each reaches its own network alone: the adversary that scores for the
generator has constants for weights, and the images that it learns from are constants too. One optimizer
then does what two of the same settings would, as long as it treats each variable by itself, as Adam does and clipping
of the gradients' common norm does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workloads.training.devices import total

__all__ = ["adversarial_loss", "with_adversary"]


def with_adversary(generator: Any, discriminator: Any) -> Any:
    """Make a model of the variables of both, the generator's first; it gives its inputs and what is made of them, stacked as channels."""
    import tensorflow as tf
    from tensorflow import keras

    class Both(keras.Model):  # type: ignore[misc]  # Keras is not typed
        def __init__(self) -> None:
            super().__init__()
            self.generator = generator
            self.discriminator = discriminator

        def call(self, inputs: Any, *, training: bool = False) -> Any:
            return tf.concat([inputs, self.generator(inputs, training=training)], axis=-1)

    return Both()


def adversarial_loss(discriminator: Any, *, content: Callable[[Any], Any], weight: float) -> Callable[[Any, Any], Any]:
    """The loss of what `with_adversary` makes: that of least squares (Mao et al. 2017) beside the mean of ``content``.

    Parameters
    ----------
    discriminator : keras.Model
        Scores inputs and images, stacked as channels: 1 is a true one, 0 one that was made.
    content : callable
        Of the difference of targets and what was made, value by value. The generator trains on its mean plus
        ``weight`` times the mean squared distance of its scores from 1; the adversary on half the mean squared
        distance from 1 of true images' scores plus half that from 0 of the others'.

    Returns
    -------
    callable
        Of targets and the model's outputs. Its value is the mean of ``content``, which alone tells how a training
        goes; its gradients are those of all terms.
    """
    import tensorflow as tf

    def fixed(images: Any) -> Any:
        constants = [tf.stop_gradient(variable.value) for variable in discriminator.trainable_variables]
        others = [variable.value for variable in discriminator.non_trainable_variables]
        return discriminator.stateless_call(constants, others, images, training=True)[0]

    def learning(images: Any) -> Any:
        return discriminator(images, training=True)

    def scores(network: Callable[[Any], Any], images: Any) -> Any:
        # A device for which nothing of a batch is left scores an empty image in vain: convolutions take no empty batch.
        count = tf.shape(images)[0]
        more = [[0, tf.cast(tf.equal(count, 0), tf.int32)], *[[0, 0]] * (len(images.shape) - 1)]
        return network(tf.ensure_shape(tf.pad(images, more), (None, *images.shape[1:])))[:count]

    def loss(targets: Any, outputs: Any) -> Any:
        channels = targets.shape[-1]
        inputs, made = outputs[..., :-channels], outputs[..., -channels:]
        judged = scores(fixed, outputs)
        false = scores(learning, tf.stop_gradient(outputs))
        true = scores(learning, tf.concat([inputs, targets], axis=-1))
        squares = tf.reduce_sum((judged - 1.0) ** 2), tf.reduce_sum(false**2) + tf.reduce_sum((true - 1.0) ** 2)
        # At once: devices wait for each other at every sum.
        value, generators, adversarys = tf.unstack(total(tf.stack([tf.reduce_sum(content(targets - made)), *squares])))
        values, patches = tf.unstack(total(tf.cast(tf.stack([tf.size(targets), tf.size(judged)]), value.dtype)))
        terms = (weight * generators + adversarys / 2.0) / patches
        return value / values + (terms - tf.stop_gradient(terms))

    return loss
