"""Augmentation of patches with one knob: how strong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["augment"]

Batch = NDArray[np.float32]


def augment(rng: np.random.Generator, images: Batch, targets: Batch, strength: float) -> tuple[Batch, Batch]:
    """Flip, scale, shift and roughen patches; ``strength`` 0 changes nothing, 1 is strong.

    Parameters
    ----------
    images, targets : ndarray, shape (n, x, y, z, channels)
        Flips apply to both, changes of intensity to the images alone, to each channel of an image its own.
    """
    if strength <= 0:
        return images, targets
    images, targets = images.copy(), targets.copy()
    for axis in (1, 2, 3):
        turned = rng.random(len(images)) < 0.5 * strength
        images[turned] = np.flip(images[turned], axis=axis)
        targets[turned] = np.flip(targets[turned], axis=axis)
    each = (len(images), 1, 1, 1, images.shape[-1])
    scale = np.exp(rng.normal(0.0, 0.3 * strength, each))
    shift = rng.normal(0.0, 0.3 * strength, each)
    noise = rng.normal(size=images.shape) * rng.uniform(0.0, 0.5 * strength, each)
    return (images * scale + shift + noise).astype(np.float32), targets
