"""Geometric augmentation moves an image and its target alike and makes nothing up."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.data.deformation import deform

Batch = NDArray[np.float32]


def balls(shape: tuple[int, ...], count: int = 6) -> tuple[Batch, Batch]:
    """Images of a bright ball, and one channel for background and one for the ball."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid - (np.asarray(shape) - 1) / 2, axis=-1) < min(shape) / 4
    target = np.stack([~inside, inside], axis=-1).astype(np.float32)
    image = inside[..., None].astype(np.float32)
    return np.repeat(image[None], count, axis=0), np.repeat(target[None], count, axis=0)


@pytest.mark.parametrize("shape", [(20, 24), (16, 18, 12)])
def test_image_and_target_move_together(shape: tuple[int, ...]) -> None:
    images, targets = balls(shape)
    moved, moved_targets = deform(np.random.default_rng(0), images, targets, 1.0)
    assert moved.shape == images.shape
    for before, image, target in zip(targets, moved, moved_targets, strict=True):
        assert not np.array_equal(before, target)
        marked = target[..., 1] > 0.5
        assert image[marked, 0].mean() > 0.7
        assert image[~marked, 0].mean() < 0.1


def test_a_target_keeps_one_class_in_each_voxel() -> None:
    _, targets = deform(np.random.default_rng(1), *balls((16, 16, 16)), 1.0)
    assert set(np.unique(targets)) == {0.0, 1.0}
    assert np.array_equal(targets.sum(axis=-1), np.ones(targets.shape[:-1], dtype=np.float32))


def test_each_patch_is_deformed_in_its_own_way_and_the_same_seed_does_the_same() -> None:
    images, targets = balls((16, 16, 16), count=3)
    one, same = (deform(np.random.default_rng(2), images, targets, 0.5) for _ in range(2))
    assert np.array_equal(one[0], same[0])
    assert np.array_equal(one[1], same[1])
    assert not np.array_equal(one[0][0], one[0][1])


def test_more_strength_moves_further_and_none_does_nothing() -> None:
    images, targets = balls((24, 24), count=20)
    same, same_targets = deform(np.random.default_rng(3), images, targets, 0.0)
    assert same is images
    assert same_targets is targets
    changed = [
        float(np.mean(deform(np.random.default_rng(3), images, targets, strength)[1] != targets))
        for strength in (0.1, 0.4, 1.0)
    ]
    assert 0 < changed[0] < changed[1] < changed[2] < 0.3


def test_a_deformation_bends_and_does_not_only_shift() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[:, None, None], (32, 32, 1))[None]
    moved, _ = deform(np.random.default_rng(4), ramp, ramp, 1.0)
    along = np.diff(moved[0, 8:24, 8:24, 0], axis=0)
    assert along.std() > 0.02
    assert along.min() > 0  # and does not fold over
