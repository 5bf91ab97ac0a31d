"""Measures of images: by hand, and scikit-image's on the same images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage import metrics

from workloads.metrics.image_quality import SCALE_WEIGHTS, ms_ssim, nmse, psnr, ssim

skimage: Any = metrics  # not typed
RNG = np.random.default_rng(5)
SMOOTH = 255 * ndimage.gaussian_filter(RNG.random((200, 190)), 4)
NOISY = SMOOTH + RNG.normal(0, 6, SMOOTH.shape)
VOLUME = ndimage.gaussian_filter(RNG.random((22, 24, 20)), 2)
ROUGH = VOLUME + RNG.normal(0, 0.02, VOLUME.shape)


def test_psnr_and_nmse_are_worked_out_by_hand() -> None:
    flat = np.full((4, 4), 10.0)
    assert psnr(flat, flat + 1.0, data_range=100.0) == pytest.approx(40.0)  # 10 log10(100^2 / 1)
    assert nmse(flat, flat + 1.0) == pytest.approx(0.01)


def test_an_image_is_equal_to_itself() -> None:
    assert psnr(SMOOTH, SMOOTH, data_range=255) == math.inf
    assert nmse(SMOOTH, SMOOTH) == 0.0
    assert ssim(SMOOTH, SMOOTH, data_range=255) == pytest.approx(1.0)
    assert ms_ssim(SMOOTH, SMOOTH, data_range=255) == pytest.approx(1.0)
    assert math.isnan(nmse(np.zeros((3, 3)), np.ones((3, 3))))


@pytest.mark.parametrize(("reference", "image", "span"), [(SMOOTH, NOISY, 255.0), (VOLUME, ROUGH, 0.6)])
def test_scikit_image_says_the_same_in_two_and_three_dimensions(
    reference: NDArray[np.float64], image: NDArray[np.float64], span: float
) -> None:
    assert psnr(reference, image, data_range=span) == pytest.approx(
        skimage.peak_signal_noise_ratio(reference, image, data_range=span)
    )
    expected = skimage.structural_similarity(
        reference, image, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert 0.1 < expected < 0.95
    assert ssim(reference, image, data_range=span) == pytest.approx(expected, abs=1e-9)


def test_integers_do_not_wrap_around() -> None:
    dark, light = np.zeros((12, 12), dtype=np.uint8), np.full((12, 12), 255, dtype=np.uint8)
    assert psnr(dark, light, data_range=255) == 0.0
    assert ssim(dark, light, data_range=255) == pytest.approx((0.01 * 255) ** 2 / (255**2 + (0.01 * 255) ** 2))


def test_ms_ssim_of_one_scale_is_ssim_and_of_five_forgives_noise_that_coarser_scales_do_not_see() -> None:
    single = ssim(SMOOTH, NOISY, data_range=255)
    assert ms_ssim(SMOOTH, NOISY, data_range=255, weights=(1.0,)) == pytest.approx(single)
    assert single < ms_ssim(SMOOTH, NOISY, data_range=255) < 1.0
    assert sum(SCALE_WEIGHTS) == pytest.approx(1.0, abs=1e-3)


def test_a_negative_of_an_image_is_like_it_at_no_scale() -> None:
    pattern = np.indices((190, 190)).sum(axis=0) % 2 * 255.0
    assert ms_ssim(pattern, 255.0 - pattern, data_range=255) == 0.0
    assert ssim(pattern, 255.0 - pattern, data_range=255) < -0.9


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="different shape"):
        psnr(SMOOTH, VOLUME, data_range=1)
    with pytest.raises(ValueError, match="smaller than the window of 11"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)), data_range=1)
    with pytest.raises(ValueError, match="too small for 5 scales: 176 a side"):
        ms_ssim(VOLUME, ROUGH, data_range=1)
