from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.data.augmentation import augment
from workloads.data.dataset import Case
from workloads.data.nifti import Volume
from workloads.data.patches import PatchSource, class_source, draw_patches, soft_target
from workloads.training.inference import predict_volume


def sources() -> list[PatchSource]:
    rng = np.random.default_rng(0)
    made = []
    for lesions in (0, 1, 1):
        target = np.zeros((14, 12, 10, 1), dtype=np.float32)
        if lesions:
            target[1:3, 9:11, 7:9] = 1.0
        image = rng.normal(size=target.shape[:3]).astype(np.float32)
        made.append(PatchSource(image=image, target=target, lesion_voxels=np.argwhere(target[..., 0] > 0)))
    return made


@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 9, 23), (40, 6, 11)])
def test_windows_put_every_voxel_back_in_its_place(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    result = predict_volume(lambda x: 2.0 * x, array, window=8, multiple=2)
    assert result.shape == (*shape, 1)
    assert np.allclose(result[..., 0], 2.0 * array, atol=1e-5)


def test_each_class_has_its_channel_and_slices_may_be_of_any_number() -> None:
    array = np.random.default_rng(1).normal(size=(13, 9, 7)).astype(np.float32)
    seen = []

    def network(x: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(x.shape)
        return np.concatenate([x, -x, 3.0 * x], axis=-1)

    result = predict_volume(network, array, window=8, multiple=(4, 4, 1))
    assert {shape[1:4] for shape in seen} == {(8, 8, 7)}
    assert np.allclose(result, np.stack([array, -array, 3.0 * array], axis=-1), atol=1e-5)


def test_a_network_never_sees_more_than_the_window_nor_an_odd_side() -> None:
    seen: list[tuple[int, ...]] = []

    def network(x: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(x.shape)
        return x

    predict_volume(network, np.zeros((21, 5, 33), dtype=np.float32), window=16, multiple=2)
    assert set(seen) == {(1, 16, 6, 16, 1)}
    seen.clear()
    predict_volume(network, np.zeros((21, 5, 33), dtype=np.float32), window=64, multiple=2)
    assert seen == [(1, 22, 6, 34, 1)]


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_lesion_fraction_is_the_share_of_patches_with_a_lesion(fraction: float) -> None:
    _, targets = draw_patches(np.random.default_rng(2), sources(), shape=(4, 4, 4), count=600, lesion_fraction=fraction)
    share = float((targets.max(axis=(1, 2, 3, 4)) > 0).mean())
    by_chance = 0.08  # a patch from anywhere may meet a lesion too
    assert fraction - 0.05 <= share <= fraction + by_chance


def test_a_patch_and_its_target_are_cut_at_the_same_place() -> None:
    one = sources()[1]
    same = PatchSource(image=one.image, target=one.image[..., None], lesion_voxels=one.lesion_voxels)
    images, targets = draw_patches(np.random.default_rng(0), [same], shape=(6, 4, 4), count=20, lesion_fraction=0.5)
    assert images.shape == (20, 6, 4, 4, 1)
    assert np.array_equal(images, targets)


def test_classes_become_channels_and_the_sought_one_is_oversampled() -> None:
    labels = np.zeros((12, 12, 12), dtype=np.uint8)
    labels[6:] = 1
    labels[8, 8, 8] = 2
    volume = Volume(array=labels, affine=np.eye(4), path=Path("label.nii.gz"))
    image = Volume(array=labels.astype(np.float32), affine=np.eye(4), path=Path("image.nii.gz"))
    source = class_source(Case(name="a", image=image, label=volume), classes=3, sought=2)
    images, targets = draw_patches(
        np.random.default_rng(0), [source], shape=(4, 4, 1), count=200, lesion_fraction=1 / 3
    )
    assert targets.shape == (200, 4, 4, 1, 3)
    assert np.array_equal(targets.argmax(axis=-1), images[..., 0])
    share = float(targets[..., 2].any(axis=(1, 2, 3)).mean())
    assert 0.25 < share < 0.45


def test_a_soft_target_falls_with_the_distance_in_mm() -> None:
    lesion = np.zeros((9, 9, 9), dtype=bool)
    lesion[4, 4, 4] = True
    target = soft_target(lesion, (1.0, 1.0, 2.0), 2.0)
    assert target[4, 4, 4] == 1.0
    assert target[6, 4, 4] == pytest.approx(np.exp(-0.5))
    assert target[4, 4, 5] == pytest.approx(np.exp(-0.5))
    assert np.array_equal(soft_target(lesion, (1.0, 1.0, 2.0), 0.0), lesion.astype(np.float32))


def test_augmentation_flips_image_and_target_together_and_changes_only_the_image_else() -> None:
    images, targets = draw_patches(np.random.default_rng(0), sources(), shape=(6, 6, 6), count=16, lesion_fraction=1.0)
    same, same_targets = augment(np.random.default_rng(1), images, targets, 0.0)
    assert same is images
    assert same_targets is targets
    changed, turned = augment(np.random.default_rng(1), targets.copy(), targets, 1.0)
    assert not np.array_equal(turned, targets)
    assert np.array_equal(np.sort(turned, axis=None), np.sort(targets, axis=None))
    bright = changed[turned > 0].mean()
    assert bright > changed[turned == 0].mean() + 0.4  # still on the lesion after flips, scale, shift and noise
