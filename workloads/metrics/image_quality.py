"""How near an image is to its reference: PSNR, SSIM, MS-SSIM, NMSE, in any number of dimensions.

``data_range`` is the span of values that images of this kind can have (255 for 8 bits; for CT the window
that is judged). It is asked for and not guessed: the numbers hang on it. SSIM follows Wang et al. 2004:
Gaussian windows of sigma 1.5 and 11 samples, population statistics, averaged where whole windows fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SCALE_WEIGHTS", "ms_ssim", "nmse", "psnr", "ssim"]

SIGMA, HALF = 1.5, 5  # of the window: 11 samples
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales: Wang, Simoncelli and Bovik 2003
Array = NDArray[np.float64]
Image = NDArray[np.floating] | NDArray[np.integer]


def _pair(reference: Image, image: Image) -> tuple[Array, Array]:
    if reference.shape != image.shape:
        raise ValueError(f"images of different shape: {reference.shape} and {image.shape}")
    return reference.astype(np.float64), image.astype(np.float64)


def psnr(reference: Image, image: Image, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    one, other = _pair(reference, image)
    error = float(np.mean((one - other) ** 2))
    return float("inf") if error == 0.0 else float(10.0 * np.log10(data_range**2 / error))


def nmse(reference: Image, image: Image) -> float:
    """Squared error over the squared reference, as fastMRI has it; NaN for a reference of zeros."""
    one, other = _pair(reference, image)
    energy = float(np.sum(one**2))
    return float(np.sum((one - other) ** 2)) / energy if energy else float("nan")


def _similarity(one: Array, other: Array, data_range: float) -> tuple[float, float]:
    """Mean SSIM and its part without luminance (contrast and structure)."""

    def blur(values: Array) -> Array:
        smooth = ndimage.gaussian_filter(values, SIGMA, truncate=HALF / SIGMA, mode="reflect")
        return np.asarray(smooth[(slice(HALF, -HALF),) * values.ndim])

    if min(one.shape) <= 2 * HALF:
        raise ValueError(f"an image of {one.shape} is smaller than the window of {2 * HALF + 1}")
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_one, mean_other = blur(one), blur(other)
    variance_one, variance_other = blur(one * one) - mean_one**2, blur(other * other) - mean_other**2
    covariance = blur(one * other) - mean_one * mean_other
    structure = (2.0 * covariance + c2) / (variance_one + variance_other + c2)
    luminance = (2.0 * mean_one * mean_other + c1) / (mean_one**2 + mean_other**2 + c1)
    return float(np.mean(luminance * structure)), float(np.mean(structure))


def ssim(reference: Image, image: Image, *, data_range: float) -> float:
    """Structural similarity, 1 for equal images.

    Raises
    ------
    ValueError
        If the images differ in shape, or a side is shorter than the window of 11.
    """
    return _similarity(*_pair(reference, image), data_range)[0]


def ms_ssim(reference: Image, image: Image, *, data_range: float, weights: tuple[float, ...] = SCALE_WEIGHTS) -> float:
    """Multi-scale SSIM: contrast and structure at each of ``len(weights)`` scales, luminance at the coarsest.

    Each scale has half the resolution of the one before, by the mean of two neighbours along each axis; an odd
    last sample is left out. A scale whose mean structure is negative counts as 0.

    Raises
    ------
    ValueError
        If the images differ in shape, or are too small for so many scales.
    """
    one, other = _pair(reference, image)
    least = (2 * HALF + 1) * 2 ** (len(weights) - 1)
    if min(one.shape) < least:
        raise ValueError(f"an image of {one.shape} is too small for {len(weights)} scales: {least} a side are needed")
    product = 1.0
    for scale, weight in enumerate(weights, start=1):
        whole, structure = _similarity(one, other, data_range)
        product *= max(whole if scale == len(weights) else structure, 0.0) ** weight
        one, other = _halved(one), _halved(other)
    return product


def _halved(values: Array) -> Array:
    for axis in range(values.ndim):
        even = values.shape[axis] // 2 * 2
        first = np.take(values, range(0, even, 2), axis=axis)
        values = (first + np.take(values, range(1, even, 2), axis=axis)) / 2.0
    return values
