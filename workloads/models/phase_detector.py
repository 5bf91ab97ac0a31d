"""A fully convolutional detector for examinations of several phases: the phases as an axis to convolve along, or as channels.

A 4D convolution, over (phase, x, y, z), is one 3D convolution that every phase shares and that is given the phase
together with its neighbours in time: kernels of 3 x 3 x 3 voxels by 3 phases have the same weights wherever they are,
in time as in space. Keras has no layer of this kind, but 3D layers that are shared make it. As in
`workloads.models.detector` there is average pooling alone, and no batch normalisation.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["ARRANGEMENTS", "NORMALISATIONS", "SIZE_MULTIPLE", "phase_detector"]

SIZE_MULTIPLE = 2  # volumes are padded to a multiple of this
ARRANGEMENTS = ("axis", "channels")
NORMALISATIONS = ("none", "group")
MOST_GROUPS = 4


def phase_detector(
    *,
    phases: int,
    arrangement: str = "axis",
    reach: int = 1,
    width: int = 4,
    layers: int = 2,
    normalisation: str = "none",
    dropout: float = 0.1,
    prior: float = 0.02,
) -> Any:
    """Build the network.

    Parameters
    ----------
    phases : int
        Channels of the image.
    arrangement : str
        ``axis``: convolutions go along the phases too, and a last layer over all of them, which tells one from
        another, gives the answer. ``channels``: the phases are the channels of one volume.
    reach : int
        With ``axis``, phases that a convolution sees to each side; beyond the first and the last these repeat. 0: each
        phase is seen by itself as far as the last layer.
    width : int
        Channels of each convolution; with ``axis`` each phase has as many.
    layers : int
        Convolutions behind the first one, at half its resolution.
    normalisation : str
        ``group``: after each convolution, over groups of channels (Wu and He 2018); or ``none``.
    dropout : float
        Share of the channels behind all convolutions that is dropped whole at each training step.
    prior : float
        Probability that the untrained network gives to every voxel.

    Returns
    -------
    keras.Model
        From (batch, x, y, z, phases) to logits (batch, x, y, z, 1); x, y and z even.
    """
    from tensorflow import keras

    if arrangement not in ARRANGEMENTS:
        raise ValueError(f"no arrangement is called {arrangement!r}: there is {', '.join(ARRANGEMENTS)}")
    parts = keras.layers

    def joined(volumes: list[Any]) -> Any:
        return parts.Concatenate()(volumes) if len(volumes) > 1 else volumes[0]

    def convolution(volumes: list[Any]) -> list[Any]:
        """Of a list of the phases' features, or of one with all of them."""
        shared = [parts.Conv3D(width, 3, padding="same")]
        if normalisation == "group":
            shared.append(parts.GroupNormalization(groups=math.gcd(width, MOST_GROUPS)))
        shared.append(parts.Activation("relu"))
        last, found = len(volumes) - 1, []
        for phase in range(len(volumes)):
            near = range(phase - reach, phase + reach + 1) if last else (0,)
            x = joined([volumes[min(max(other, 0), last)] for other in near])
            for layer in shared:
                x = layer(x)
            found.append(x)
        return found

    inputs = keras.Input((None, None, None, phases))
    whole = arrangement == "channels"
    fine = convolution([inputs] if whole else [inputs[..., phase : phase + 1] for phase in range(phases)])
    coarse = [parts.AveragePooling3D(2)(each) for each in fine]
    for _ in range(layers):
        coarse = convolution(coarse)
    x = parts.SpatialDropout3D(dropout)(joined(coarse))
    x = parts.UpSampling3D(2)(parts.Conv3D(8, 1, activation="relu")(x))
    bias = keras.initializers.Constant(-math.log(1.0 / prior - 1.0))
    x = parts.Conv3D(8, 1, activation="relu")(joined([*fine, x]))
    return keras.Model(inputs, parts.Conv3D(1, 1, bias_initializer=bias)(x), name="phase_detector")
