"""What cannot be trained on is refused with exit code 2, by the name of its file, before TensorFlow is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.__main__ import main
from workloads.data.nifti import write_volume

SIDE = 12
AFFINE = np.diag([0.8, 0.8, 1.0, 1.0])
NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four small cases with a lesion of one voxel each."""
    folder = tmp_path / "data"
    folder.mkdir()
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "splits.json").write_text(json.dumps({"train": NAMES[:2], "validation": NAMES[2:]}))
    for number, name in enumerate(NAMES):
        write_volume(image(folder, name), noise(number), AFFINE)
        write_volume(labels(folder, name), lesion(), AFFINE)
    return folder


def noise(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(SIDE, SIDE, SIDE)).astype(np.float32)


def lesion() -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    mask[5, 6, 7] = 1
    return mask


def image(folder: Path, name: str) -> Path:
    return folder / "imagesTr" / f"{name}_0000.nii.gz"


def labels(folder: Path, name: str) -> Path:
    return folder / "labelsTr" / f"{name}.nii.gz"


def refusal(task: str, folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    def not_yet(**_settings: Any) -> None:
        pytest.fail("it got as far as TensorFlow")

    with pytest.MonkeyPatch.context() as patched:
        for module in ("detection", "segmentation"):
            patched.setattr(f"workloads.trials.{module}.import_tensorflow", not_yet)
        assert main([task, "--data", str(folder), *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    return text


def scrambled(folder: Path) -> None:
    image(folder, "b").write_bytes(b"this is no image")


def cut_short(folder: Path) -> None:
    whole = image(folder, "b").read_bytes()
    image(folder, "b").write_bytes(whole[: len(whole) // 2])


def another_shape(folder: Path) -> None:
    write_volume(labels(folder, "b"), lesion()[:-1], AFFINE)


def another_place(folder: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 3.0
    write_volume(labels(folder, "b"), lesion(), moved)


def unknown_label(folder: Path) -> None:
    write_volume(labels(folder, "b"), 4 * lesion(), AFFINE)


def no_numbers(folder: Path) -> None:
    voxels = noise(0)
    voxels[3, 4, 5] = np.nan
    write_volume(image(folder, "b"), voxels, AFFINE)


def small_volume(folder: Path) -> None:
    write_volume(image(folder, "b"), noise(0)[:, :, :6], AFFINE)
    write_volume(labels(folder, "b"), lesion()[:, :, 2:8], AFFINE)


def nothing_to_learn(folder: Path) -> None:
    for name in NAMES[:2]:
        write_volume(labels(folder, name), 0 * lesion(), AFFINE)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (scrambled, "imagesTr/b_0000.nii.gz", "cannot be read as NIfTI"),
        (cut_short, "imagesTr/b_0000.nii.gz", "the file is damaged or cut short: copy it again"),
        (another_shape, "labelsTr/b.nii.gz", "its shape is not that of"),
        (another_place, "labelsTr/b.nii.gz", "its affine is not that of"),
        (unknown_label, "labelsTr/b.nii.gz", "holds label 4, but dataset.json lists [0, 1]"),
        (no_numbers, "imagesTr/b_0000.nii.gz", "1 voxels are not finite"),
        (small_volume, "imagesTr/b_0000.nii.gz", "a patch of (12, 12, 12) voxels is larger than the volume"),
        (nothing_to_learn, "splits.json", 'no case of the split\'s "train" has'),
    ],
)
@pytest.mark.parametrize("task", ["aneurysm", "covid-3d"])
def test_a_file_that_cannot_be_used_is_named(
    data: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    damage: Callable[[Path], None],
    file: str,
    message: str,
) -> None:
    damage(data)
    text = refusal(task, data, capsys, "--patch", "12", "12", "12")
    assert str(data / file) in text
    assert message in text


def test_an_empty_fold_is_named_with_its_file(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds = [{"train": NAMES[:2], "val": NAMES[2:]}, {"train": NAMES, "val": []}]
    (data / "folds.json").write_text(json.dumps(folds))
    text = refusal("aneurysm", data, capsys, "--split", str(data / "folds.json"), "--fold", "2")
    assert f'{data / "folds.json"}: fold 2: "validation" names no case' in text


def test_a_split_without_test_cases_has_none_to_evaluate(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refusal("aneurysm", data, capsys, "--test")
    assert f"{data / 'splits.json'}: the split has no test cases" in text


def test_a_batch_has_at_least_one_part(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--accumulate must be at least 1" in refusal("aneurysm", data, capsys, "--accumulate", "0")
