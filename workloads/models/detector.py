"""A small fully convolutional detector: a volume in, a map of logits of the same size out.

Average pooling, never max pooling or strided convolution: TensorFlow's CPU kernels give the gradient
of a 3D max pool to every near-tied voxel, and take many times longer over strided 3D convolutions.
There is no batch normalisation: its running means do not settle in a training this short.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["SIZE_MULTIPLE", "detector"]

SIZE_MULTIPLE = 2  # volumes are padded to a multiple of this


def detector(*, filters: int = 8, dropout: float = 0.1, prior: float = 0.02) -> Any:
    """Build the network.

    Parameters
    ----------
    filters : int
        Channels of the inner convolutions.
    dropout : float
        Share of inner channels that is dropped whole at each training step.
    prior : float
        Probability that the untrained network gives to every voxel; the output's bias is set to it,
        so that training does not begin by learning that lesions are rare.

    Returns
    -------
    keras.Model
        From (batch, x, y, z, 1) to logits of the same shape; x, y and z even.
    """
    from tensorflow import keras

    layers = keras.layers
    inputs = keras.Input((None, None, None, 1))
    fine = layers.Conv3D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.AveragePooling3D(2)(fine)
    x = layers.Conv3D(filters, 3, padding="same", activation="relu")(x)
    x = layers.Conv3D(filters, 3, padding="same", activation="relu")(x)
    x = layers.SpatialDropout3D(dropout)(x)
    x = layers.Conv3D(4, 1, activation="relu")(x)
    x = layers.Concatenate()([fine, layers.UpSampling3D(2)(x)])
    bias = keras.initializers.Constant(-math.log(1.0 / prior - 1.0))
    return keras.Model(inputs, layers.Conv3D(1, 1, bias_initializer=bias)(x), name="detector")
