"""Data sets of several channels: which a task takes, each normalised by its own kind, all of a case on one grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.__main__ import main
from workloads.data.augmentation import augment
from workloads.data.dataset import checksum, load_case, open_dataset
from workloads.data.nifti import write_volume
from workloads.data.patches import check_patch, draw_patches, patch_source
from workloads.errors import WorkloadError
from workloads.training.inference import predict_volume

SHAPE = (6, 5, 4)
NAMES = {"0": "CT", "1": "early", "2": "late"}


def dataset(folder: Path, *, names: Mapping[str, str] = NAMES, cases: tuple[str, ...] = ("a", "b")) -> Path:
    rng = np.random.default_rng(0)
    for case in cases:
        for number in names:
            image = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
            write_volume(folder / "imagesTr" / f"{case}_{int(number):04d}.nii.gz", image, np.eye(4))
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[2, 2, 2] = 1
        write_volume(folder / "labelsTr" / f"{case}.nii.gz", label, np.eye(4))
    description = {"channel_names": names, "labels": {"background": 0, "nodule": 1}}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_channels_come_in_the_order_of_the_task_and_each_is_normalised_by_its_own_kind(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    case = load_case(open_dataset(root, channels=["late", "CT"]), "a")
    late, ct, early = (
        load_case(open_dataset(root, channels=[name]), "a").image.array for name in ("late", "CT", "early")
    )
    assert case.image.array.shape == (*SHAPE, 2)
    assert case.image.array.dtype == np.float32
    assert np.array_equal(case.image.array[..., 0], late)
    assert np.array_equal(case.image.array[..., 1], ct)
    assert not np.array_equal(late, early)
    assert (ct.min(), ct.max()) == (pytest.approx(-1.0, abs=0.1), pytest.approx(1.8))
    assert np.median(late) == pytest.approx(0.0, abs=1e-6)


def test_one_channel_has_no_axis_of_its_own_and_several_are_resampled_alike(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    assert load_case(open_dataset(root, channels=["late"]), "a").image.array.shape == SHAPE
    finer = load_case(open_dataset(root, channels=["early", "late"]), "a", spacing=(0.5, 1.0, 2.0))
    assert finer.image.array.shape == (12, 5, 2, 2)
    assert finer.label.array.shape == (12, 5, 2)
    assert finer.image.spacing == pytest.approx((0.5, 1.0, 2.0))


def test_a_task_of_one_channel_refuses_several(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="3 channels, but this task takes one"):
        open_dataset(dataset(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "CT", "1": "early"}, r"dataset\.json: has no channel 'late', but CT, early"),
        ({"0": "late", "1": "late"}, "different names"),
        ({"first": "late"}, '"channel_names" is'),
        ({}, '"channel_names" is missing'),
    ],
)
def test_channels_that_the_task_needs_and_the_data_lack_are_named(
    tmp_path: Path, names: dict[str, str], message: str
) -> None:
    dataset(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"channel_names": names, "labels": {"background": 0}}))
    with pytest.raises(WorkloadError, match=message):
        open_dataset(tmp_path, channels=["early", "late"])


@pytest.mark.parametrize("number", [0, 2])
def test_a_missing_phase_is_named_with_its_file(tmp_path: Path, number: int) -> None:
    dataset(tmp_path)
    (tmp_path / "imagesTr" / f"b_{number:04d}.nii.gz").unlink()
    with pytest.raises(WorkloadError, match=rf"b_{number:04d}\.nii\.gz: no such file: case 'b' lacks its channel"):
        open_dataset(tmp_path, channels=["late", "early", "CT"])


@pytest.mark.parametrize("change", ["shape", "affine"])
def test_a_misaligned_phase_is_named_with_the_image_it_should_lie_on(tmp_path: Path, change: str) -> None:
    dataset(tmp_path)
    moved = np.eye(4)
    shape = SHAPE
    if change == "affine":
        moved[2, 3] = 4.0
    else:
        shape = (6, 5, 3)
    write_volume(tmp_path / "imagesTr" / "a_0002.nii.gz", np.zeros(shape, dtype=np.int16), moved)
    with pytest.raises(WorkloadError, match=rf"a_0002\.nii\.gz: its {change} is not that of .*a_0001\.nii\.gz"):
        load_case(open_dataset(tmp_path, channels=["early", "late"]), "a")


def test_the_checksum_follows_every_channel_that_is_used(tmp_path: Path) -> None:
    both = open_dataset(dataset(tmp_path), channels=["early", "late"])
    early = open_dataset(tmp_path, channels=["early"])
    before = checksum(both, ["a"]), checksum(early, ["a"])
    path = tmp_path / "imagesTr" / "a_0002.nii.gz"
    path.write_bytes(path.read_bytes() + b"x")
    assert checksum(both, ["a"]) != before[0]
    assert checksum(early, ["a"]) == before[1]


def test_folds_are_made_of_data_of_any_number_of_channels(tmp_path: Path) -> None:
    dataset(tmp_path)
    assert main(["folds", "--data", str(tmp_path), "--folds", "2"]) == 0
    assert len(json.loads((tmp_path / "folds.json").read_text())) == 2


def test_patches_are_cut_from_all_channels_at_one_place_and_fit_into_the_volume(tmp_path: Path) -> None:
    case = load_case(open_dataset(dataset(tmp_path), channels=["CT", "early", "late"]), "a")
    check_patch([case], SHAPE)
    with pytest.raises(WorkloadError, match=r"larger than the volume, \(6, 5, 4\)"):
        check_patch([case], (4, 4, 5))
    source = patch_source(case, sigma=0.0)
    images, targets = draw_patches(np.random.default_rng(0), [source], shape=(2, 2, 2), count=20, lesion_fraction=1.0)
    assert images.shape == (20, 2, 2, 2, 3)
    assert targets.shape == (20, 2, 2, 2, 1)
    assert np.all(images[targets[..., 0] == 1.0] == case.image.array[2, 2, 2])


def test_channels_flip_together_and_change_apart() -> None:
    images = np.zeros((64, 4, 4, 4, 2), dtype=np.float32)
    images[:, 0, 0, 0] = 1.0
    turned, _ = augment(np.random.default_rng(0), images, images[..., :1], 0.5)
    bright = turned.reshape(64, -1, 2)
    # Scale and shift differ between the channels of an image, the bright corner is the same.
    assert np.mean(bright.argmax(axis=1)[:, 0] == bright.argmax(axis=1)[:, 1]) > 0.9
    assert abs(np.corrcoef(bright.mean(axis=1).T)[0, 1]) < 0.4


@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 9, 11)])
def test_windows_take_all_channels(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)

    def network(block: NDArray[np.float32]) -> NDArray[np.float32]:
        assert block.shape[-1] == 3
        return block[..., 1:] - block[..., :1]

    result = predict_volume(network, array, window=8, multiple=2)
    assert np.allclose(result, array[..., 1:] - array[..., :1], atol=1e-5)


@pytest.mark.tensorflow
def test_a_compiled_model_takes_as_many_channels_as_it_was_made_for() -> None:
    from tensorflow import keras

    from workloads.training.inference import compiled

    array = np.random.default_rng(0).normal(size=(6, 5, 4, 3)).astype(np.float32)
    ones = keras.initializers.Ones()
    for dimensions, layer in ((3, keras.layers.Conv3D), (2, keras.layers.Conv2D)):
        inputs = keras.Input((None,) * dimensions + (3,))
        model = keras.Model(inputs, layer(1, 1, kernel_initializer=ones)(inputs))
        assert np.allclose(predict_volume(compiled(model), array)[..., 0], array.sum(axis=-1), atol=1e-5)
