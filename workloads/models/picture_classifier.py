"""A residual network that says what is on a picture (He et al. 2016, with group normalisation: Wu and He 2018).

Group normalisation, since it is each sample's own: what a network learns does not depend on how many devices share a batch.
"""

from __future__ import annotations

from typing import Any

__all__ = ["picture_classifier"]


def picture_classifier(
    *, size: tuple[int, int, int], classes: int, filters: int = 12, stages: int = 2, dropout: float = 0.0
) -> Any:
    """Build a network.

    Parameters
    ----------
    size : tuple of int
        Rows, columns and channels of a picture.
    filters : int
        Channels of the first stage, doubled at each further one.
    stages : int
        Residual blocks; each after the first halves the resolution by its stride.
    dropout : float
        Share of the pooled features that is dropped at each training step.

    Returns
    -------
    keras.Model
        From (batch, *size), 0 to 1, to logits (batch, classes).
    """
    from tensorflow import keras

    layers = keras.layers

    def normalised(x: Any) -> Any:
        groups = next(groups for groups in (4, 3, 2, 1) if x.shape[-1] % groups == 0)
        return layers.GroupNormalization(groups)(x)

    inputs = keras.Input(size)
    x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(normalised(x))
    for stage in range(stages):
        width, stride = filters * 2**stage, 1 if stage == 0 else 2
        inner = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        inner = layers.ReLU()(normalised(inner))
        inner = normalised(layers.Conv2D(width, 3, padding="same", use_bias=False)(inner))
        around = x if stride == 1 else layers.Conv2D(width, 1, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([inner, around]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(layers.Dropout(dropout)(x)))
