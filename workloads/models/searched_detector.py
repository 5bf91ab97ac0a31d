"""A fully convolutional detector whose architecture is searched: how many layers, how wide, at which scale.

As in `workloads.models.detector` there is average pooling alone, and no batch normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["NORMALISATIONS", "SCALES", "SIZE_MULTIPLE", "searched_detector"]

SIZE_MULTIPLE = 2  # volumes are padded to a multiple of this, at either scale
SCALES = ("full", "half")
NORMALISATIONS = ("none", "group")
MOST_GROUPS = 4


def searched_detector(
    *,
    widths: Sequence[int],
    reach: int = 1,
    scale: str = "half",
    normalisation: str = "none",
    dropout: float = 0.0,
    prior: float = 0.02,
) -> Any:
    """Build the network.

    Parameters
    ----------
    widths : sequence of int
        Channels of each convolution layer, the first one's first: as many layers as numbers.
    reach : int
        Voxels that the first layer sees to each side: its kernel is ``2 reach + 1`` wide, all others 3.
    scale : str
        ``half``: the layers after the first work at half its resolution, which sees twice as far at an
        eighth of the cost; ``full``: at its own. Either way the last layer sees the first one's output too.
    normalisation : str
        ``group``: after each convolution, over groups of channels (Wu and He 2018); or ``none``.
    dropout : float
        Share of the last layer's channels that is dropped whole at each training step.
    prior : float
        Probability that the untrained network gives to every voxel.

    Returns
    -------
    keras.Model
        From (batch, x, y, z, 1) to logits of the same shape; x, y and z even.
    """
    from tensorflow import keras

    layers = keras.layers

    def convolution(x: Any, width: int, kernel: int) -> Any:
        x = layers.Conv3D(width, kernel, padding="same")(x)
        if normalisation == "group":
            x = layers.GroupNormalization(groups=math.gcd(width, MOST_GROUPS))(x)
        return layers.Activation("relu")(x)

    inputs = keras.Input((None, None, None, 1))
    first = x = convolution(inputs, widths[0], 2 * reach + 1)
    if scale == "half":
        x = layers.AveragePooling3D(2)(x)
    for width in widths[1:]:
        x = convolution(x, width, 3)
    x = layers.SpatialDropout3D(dropout)(x)
    if scale == "half":
        x = layers.Conv3D(4, 1, activation="relu")(x)
        x = layers.UpSampling3D(2)(x)
    bias = keras.initializers.Constant(-math.log(1.0 / prior - 1.0))
    outputs = layers.Conv3D(1, 1, bias_initializer=bias)(layers.Concatenate()([first, x]))
    return keras.Model(inputs, outputs, name="searched_detector")
