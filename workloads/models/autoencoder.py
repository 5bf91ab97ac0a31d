"""A convolutional autoencoder: a volume through a narrow middle and back, fully convolutional.

What it has learnt to draw is what it was trained on; of anything else the difference between the volume and what comes
out is large. Average pooling, as in `workloads.models.detector`. Inside it values are larger than
outside: of an image whose contrasts are a tenth or two it would else draw one grey for a long time.
"""

from __future__ import annotations

from typing import Any

__all__ = ["autoencoder"]

GAIN = 5.0


def autoencoder(*, filters: int = 8, depth: int = 2, latent: int = 4) -> Any:
    """Build the network.

    Parameters
    ----------
    filters : int
        Channels of the first level, doubled at each further one.
    depth : int
        How many times the resolution is halved; sides are to be multiples of ``2 ** depth``.
    latent : int
        Channels in the middle, at the lowest resolution: ``8 ** depth`` voxels become so many numbers.

    Returns
    -------
    keras.Model
        From (batch, x, y, z, 1) to the same shape.
    """
    from tensorflow import keras

    layers = keras.layers
    inputs = keras.Input((None, None, None, 1))
    x = layers.Rescaling(GAIN)(inputs)
    for level in range(depth):
        x = layers.Conv3D(filters * 2**level, 3, padding="same", activation="relu")(x)
        x = layers.AveragePooling3D(2)(x)
    x = layers.Conv3D(filters * 2**depth, 3, padding="same", activation="relu")(x)
    x = layers.Conv3D(latent, 1, name="latent")(x)
    for level in reversed(range(depth)):
        x = layers.Conv3D(filters * 2 ** (level + 1), 3, padding="same", activation="relu")(x)
        x = layers.UpSampling3D(2)(x)
    x = layers.Conv3D(filters, 3, padding="same", activation="relu")(x)
    outputs = layers.Rescaling(1.0 / GAIN)(layers.Conv3D(1, 3, padding="same")(x))
    return keras.Model(inputs, outputs, name="autoencoder")
