"""Networks that sharpen an interpolated image, in two dimensions or three, and the adversaries that judge them.

Each generator adds what is missing to its input (residual learning, Kim et al. 2016), and begins by adding nothing.
"""

from __future__ import annotations

from typing import Any

__all__ = ["METHODS", "discriminator", "generator"]

METHODS = ("srcnn", "pix2pix", "gan3d")


def generator(method: str, *, filters: int, blocks: int = 2, dropout: float = 0.0) -> Any:
    """Build a generator: from (batch, x, z, 1) of slices, or (batch, x, z, y, 1) of blocks, to the same shape.

    Parameters
    ----------
    method : str
        ``srcnn``: three convolutions, 9, 1 and 5 wide (Dong et al. 2014). ``pix2pix``: a U-Net of two levels with
        dropout (Isola et al. 2017), for sides that are multiples of 4. ``gan3d``: residual blocks in three dimensions
        (after Ledig et al. 2017, whose networks are for photographs).
    filters : int
        Channels of the first convolution.
    blocks : int
        Residual blocks of ``gan3d``.
    dropout : float
        Share of the bottom's values in ``pix2pix``.
    """
    from tensorflow import keras

    if method not in METHODS:
        raise ValueError(f"no method is called {method!r}: there is {', '.join(METHODS)}")
    layers = keras.layers
    dimensions = 3 if method == "gan3d" else 2
    convolution = layers.Conv3D if dimensions == 3 else layers.Conv2D
    inputs = keras.Input((*(None,) * dimensions, 1))

    def convolved(field: Any, width: int, kernel: int, *, strides: int = 1, activation: str | None = "relu") -> Any:
        return convolution(width, kernel, strides=strides, padding="same", activation=activation)(field)

    if method == "srcnn":
        field, last = convolved(convolved(inputs, filters, 9), max(1, filters // 2), 1), 5
    elif method == "pix2pix":
        top = convolved(inputs, filters, 3)
        middle = convolved(top, 2 * filters, 4, strides=2)
        bottom = layers.Dropout(dropout)(convolved(convolved(middle, 4 * filters, 4, strides=2), 4 * filters, 3))
        up = convolved(layers.Concatenate()([layers.UpSampling2D()(bottom), middle]), 2 * filters, 3)
        field, last = convolved(layers.Concatenate()([layers.UpSampling2D()(up), top]), filters, 3), 3
    else:
        field, last = convolved(inputs, filters, 3), 3
        for _ in range(blocks):
            inner = convolved(convolved(field, filters, 3), filters, 3, activation=None)
            field = layers.Add()([field, inner])
    missing = convolution(1, last, padding="same", kernel_initializer="zeros")(field)
    return keras.Model(inputs, layers.Add()([inputs, missing]), name=method)


def discriminator(dimensions: int, *, filters: int) -> Any:
    """Build an adversary: from (..., 2), the interpolated image and a sharp one, to a score of each patch of it (Isola et al. 2017)."""
    from tensorflow import keras

    layers = keras.layers
    convolution = layers.Conv3D if dimensions == 3 else layers.Conv2D
    inputs = keras.Input((*(None,) * dimensions, 2))
    field = inputs
    for width, strides in ((filters, 2), (2 * filters, 2), (2 * filters, 1)):
        field = layers.LeakyReLU(negative_slope=0.2)(convolution(width, 3, strides=strides, padding="same")(field))
    return keras.Model(inputs, convolution(1, 3, padding="same")(field), name="discriminator")
