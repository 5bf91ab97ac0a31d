"""Encoder-decoder networks that give each pixel or voxel its class, in two dimensions or three.

Average pooling, as in `workloads.models.detector`. Group normalisation and not batch normalisation: batches are
small, and a patch's statistics are not a volume's, so that inference should use windows about as large as the
patches of training.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["DENSE", "NETWORKS_2D", "NETWORKS_3D", "NORMALISATIONS", "segmenter"]

NETWORKS_2D = ("dense", "unet")
NETWORKS_3D = ("multiscale", "dense", "unet")
DENSE = ("multiscale", "dense")  # those with dense pooling and dilated convolutions
NORMALISATIONS = ("none", "group")
MOST_GROUPS = 4


def segmenter(
    network: str,
    *,
    dimensions: int,
    classes: int,
    channels: int = 1,
    filters: int = 8,
    depth: int = 2,
    dilations: int = 2,
    normalisation: str = "group",
    dropout: float = 0.1,
) -> Any:
    """Build a network.

    Parameters
    ----------
    network : str
        ``unet``: the baseline (Ronneberger et al. 2015; Cicek et al. 2016). ``dense``: each level of the
        encoder takes the pooled features of all levels above it (dense pooling), and dilated convolutions at
        the bottom widen what it sees. ``multiscale``: dense too, and each level takes the image at its own
        scale, and each level, the bottom too, gives an answer of its own (deep supervision).
    filters : int
        Channels of the first level, doubled at each further one.
    depth : int
        How many times the resolution is halved; sides are to be multiples of ``2 ** depth``.
    dilations : int
        Dilated convolutions at the bottom, of rates 2, 4, 8; not of ``unet``.
    dropout : float
        Share of the bottom's channels that is dropped whole at each training step.

    Returns
    -------
    keras.Model
        From (batch, x, y[, z], channels) to logits: ``classes`` channels, of ``multiscale`` as many for each of its
        ``depth + 1`` answers, the finest first, all of the input's size.
    """
    from tensorflow import keras

    layers = keras.layers
    convolution = {2: layers.Conv2D, 3: layers.Conv3D}[dimensions]
    pooling = {2: layers.AveragePooling2D, 3: layers.AveragePooling3D}[dimensions]
    enlarging = {2: layers.UpSampling2D, 3: layers.UpSampling3D}[dimensions]
    dropping = {2: layers.SpatialDropout2D, 3: layers.SpatialDropout3D}[dimensions]

    def block(x: Any, width: int, rate: int = 1) -> Any:
        x = convolution(width, 3, padding="same", dilation_rate=rate)(x)
        if normalisation == "group":
            x = layers.GroupNormalization(groups=math.gcd(width, MOST_GROUPS))(x)
        return layers.Activation("relu")(x)

    def joined(parts: list[Any]) -> Any:
        return layers.Concatenate()(parts) if len(parts) > 1 else parts[0]

    inputs = keras.Input((None,) * dimensions + (channels,))
    # Normalised features of a patch do not tell all lung from all muscle: the answer sees intensities themselves too.
    plain = convolution(filters, 3, padding="same", activation="relu")(inputs)
    image, levels = inputs, []
    x = inputs
    for level in range(depth):
        levels.append(block(block(x, filters * 2**level), filters * 2**level))
        above = levels if network in DENSE else levels[-1:]
        pooled = [pooling(2 ** (level + 1 - index))(each) for index, each in enumerate(above, level + 1 - len(above))]
        if network == "multiscale":
            image = pooling(2)(image)
            pooled.append(image)
        x = joined(pooled)
    x = block(x, filters * 2**depth)
    for power in range(dilations if network in DENSE else 1):
        x = block(x, filters * 2**depth, rate=2 ** (power + 1) if network in DENSE else 1)
    x = dropping(dropout)(x)
    answers = []
    for level in reversed(range(depth + 1)):
        if level < depth:
            x = joined([levels[level], enlarging(2)(x)])
            x = block(block(x, filters * 2**level), filters * 2**level)
        if network == "multiscale" or level == 0:
            answer = convolution(classes, 1)(x if level else joined([x, plain]))
            answers.append(enlarging(2**level)(answer) if level else answer)
    return keras.Model(inputs, joined(answers[::-1]), name=network)
