"""A convolutional network that gives an image its class, in two dimensions or three.

Average pooling, as in `workloads.models.detector`. A functional Keras model whose last layer gives logits, so that
methods of explanation find its convolutions and its answer.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["HEADS", "LAST", "NORMALISATIONS", "classifier"]

NORMALISATIONS = ("none", "group")
HEADS = ("average", "flatten")
LAST = "logits"  # name of the last layer
MOST_GROUPS = 4


def classifier(
    *,
    shape: tuple[int, ...],
    classes: int,
    filters: int = 8,
    depth: int = 3,
    dilations: int = 0,
    normalisation: str = "group",
    head: str = "average",
    dropout: float = 0.1,
) -> Any:
    """Build a network.

    Parameters
    ----------
    shape : tuple of int
        Of an image: its sides, two or three, and its channels. Sides need not be even.
    filters : int
        Channels of the first level, doubled at each further one.
    depth : int
        Levels; each ends with its resolution halved along every axis that is still longer than two.
    dilations : int
        Dilated convolutions behind them, of rates 2, 4, 8.
    normalisation : str
        ``none`` or ``group``, after each convolution.
    head : str
        ``average``: the mean of the last features over the image, so that where something lies is not seen unless the
        features tell it. ``flatten``: all of them, so that it is.
    dropout : float
        Share of what enters the last layer that is dropped at each training step.

    Returns
    -------
    keras.Model
        From (batch, *shape) to logits (batch, classes); the last layer is a Dense called ``logits``, the last
        convolution the last layer of its kind.
    """
    from tensorflow import keras

    if head not in HEADS:
        raise ValueError(f"no head is called {head!r}: there is {', '.join(HEADS)}")
    layers = keras.layers
    dimensions = len(shape) - 1
    convolution = {2: layers.Conv2D, 3: layers.Conv3D}[dimensions]
    pooling = {2: layers.AveragePooling2D, 3: layers.AveragePooling3D}[dimensions]
    averaging = {2: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling3D}[dimensions]

    def block(x: Any, width: int, rate: int = 1) -> Any:
        x = convolution(width, 3, padding="same", dilation_rate=rate, kernel_initializer="he_normal")(x)
        if normalisation == "group":
            x = layers.GroupNormalization(groups=math.gcd(width, MOST_GROUPS))(x)
        return layers.Activation("relu")(x)

    inputs = keras.Input(shape)
    x = inputs
    for level in range(depth):
        x = block(x, filters * 2**level)
        # The first level is the dearest; a second convolution pays off where the image is smaller.
        if level:
            x = block(x, filters * 2**level)
        x = pooling(tuple(2 if side > 2 else 1 for side in x.shape[1:-1]))(x)
    for power in range(dilations):
        x = block(x, filters * 2 ** (depth - 1), rate=2 ** (power + 1))
    x = averaging()(x) if head == "average" else layers.Flatten()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Dense(classes, name=LAST)(x), name="classifier")
