from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from workloads.data.dataset import checksum, load_case, open_dataset
from workloads.data.nifti import write_volume
from workloads.data.splits import Split, read_split
from workloads.errors import WorkloadError
from workloads.metrics.matching import label_lesions
from workloads.phantoms.datasets import lesion_counts
from workloads.phantoms.vessels import VesselPhantom, make_case

nib: Any = nibabel  # half of it is not typed


@pytest.fixture
def own(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that a test may damage."""
    return Path(shutil.copytree(phantoms, tmp_path / "own"))


def test_phantoms_are_read_back_whole(phantoms: Path) -> None:
    dataset = open_dataset(phantoms)
    split = read_split(phantoms / "splits.json", dataset)
    assert (len(split.train), len(split.validation), len(split.test)) == (16, 12, 4)
    case = load_case(dataset, split.validation[0])
    assert case.image.array.shape == case.label.array.shape
    assert case.image.array.dtype == np.float32
    assert abs(float(np.median(case.image.array))) < 0.05


def test_every_split_has_its_fixed_number_of_normal_cases(phantoms: Path) -> None:
    dataset = open_dataset(phantoms)
    split = read_split(phantoms / "splits.json", dataset)
    for names in (split.train, split.validation, split.test):
        normal = sum(not load_case(dataset, name).lesion.any() for name in names)
        assert normal == round(0.25 * len(names))


def test_the_normal_fraction_is_exact_whatever_the_seed() -> None:
    for seed in range(20):
        counts = lesion_counts(40, 0.3, np.random.default_rng(seed))
        assert counts.count(0) == 12
        assert set(counts) <= {0, 1, 2}


@pytest.mark.parametrize("lesions", [0, 1, 2])
def test_a_phantom_has_the_lesions_it_was_asked_for_and_each_can_be_told_apart(lesions: int) -> None:
    for seed in range(6):
        case = make_case(np.random.default_rng(seed), VesselPhantom(), lesions=lesions)
        mask = case.label > 0
        _, found = label_lesions(mask)
        assert found == lesions
        if lesions:
            assert case.image[mask].mean() > 1.3 * case.image[~mask].mean()


def test_the_same_seed_makes_the_same_phantom_and_another_seed_another() -> None:
    one, same, other = (make_case(np.random.default_rng(seed), VesselPhantom(), lesions=1) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.label, same.label)
    assert np.array_equal(one.affine, same.affine)
    assert not np.array_equal(one.image, other.image)


def test_a_block_too_small_for_an_aneurysm_is_refused() -> None:
    with pytest.raises(ValueError, match="no room for 1 aneurysms"):
        make_case(np.random.default_rng(0), VesselPhantom(shape=(6, 6, 4)), lesions=1)


def test_the_checksum_follows_the_files_that_are_used(own: Path) -> None:
    dataset = open_dataset(own)
    names = sorted(dataset.files)
    before, before_rest = checksum(dataset, names), checksum(dataset, names[1:])
    image = dataset.files[names[0]][0]
    image.write_bytes(image.read_bytes() + b"x")
    assert checksum(dataset, names) != before
    assert checksum(dataset, names[1:]) == before_rest


def test_a_decathlon_layout_and_a_val_split_are_understood(own: Path) -> None:
    for image in (own / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace("_0000.nii.gz", ".nii.gz")))
    description = json.loads((own / "dataset.json").read_text())
    description["modality"] = description.pop("channel_names")
    (own / "dataset.json").write_text(json.dumps(description))
    names = sorted(open_dataset(own).files)
    (own / "mine.json").write_text(json.dumps({"train": names[:2], "val": names[2:4]}))
    expected = Split(train=tuple(names[:2]), validation=tuple(names[2:4]), test=())
    assert read_split(own / "mine.json", open_dataset(own)) == expected


def test_a_missing_folder_or_dataset_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(WorkloadError, match=r"dataset\.json: no such file"):
        open_dataset(tmp_path)


def test_a_dataset_json_that_is_not_json_is_named_with_its_line(own: Path) -> None:
    (own / "dataset.json").write_text('{\n "labels": {"background": 0,},\n}')
    with pytest.raises(WorkloadError, match=r"dataset\.json:2: is not JSON"):
        open_dataset(own)


def test_a_folder_without_images_says_so(own: Path) -> None:
    shutil.rmtree(own / "imagesTr")
    with pytest.raises(WorkloadError, match="imagesTr: holds no image"):
        open_dataset(own)


def test_an_image_without_a_label_map_is_named(own: Path) -> None:
    (own / "labelsTr" / "vessels_0002.nii.gz").unlink()
    with pytest.raises(WorkloadError, match=r"vessels_0002_0000\.nii\.gz: has no label map"):
        open_dataset(own)


def test_several_channels_are_refused(own: Path) -> None:
    description = json.loads((own / "dataset.json").read_text())
    description["channel_names"]["1"] = "T1"
    (own / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(WorkloadError, match="2 channels"):
        open_dataset(own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", "its shape is not that of"),
        ("affine", "its affine is not that of"),
        ("labels", r"holds label 7, but dataset.json lists \[0, 1\]"),
    ],
)
def test_a_label_map_that_does_not_belong_to_its_image_is_named(own: Path, change: str, message: str) -> None:
    path = own / "labelsTr" / "vessels_0001.nii.gz"
    image = nib.load(path)
    array, affine = np.asarray(image.dataobj).copy(), np.asarray(image.affine).copy()
    if change == "shape":
        array = array[:-1]
    elif change == "affine":
        affine[0, 3] += 1.0
    else:
        array[0, 0, 0] = 7
    write_volume(path, array, affine)
    with pytest.raises(WorkloadError, match=r"vessels_0001\.nii\.gz: " + message):
        load_case(open_dataset(own), "vessels_0001")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": [], "validation": ["vessels_0001"]}, '"train" names no case'),
        ({"train": ["vessels_0001"]}, '"validation" names no case'),
        ({"train": ["vessels_0001"], "validation": ["vessels_0001"]}, 'is in "train" and in "validation"'),
        ({"train": ["vessels_9"], "validation": ["vessels_0001"]}, "names 'vessels_9', which"),
        (["vessels_0001"], "is not of the form"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused(own: Path, split: object, message: str) -> None:
    (own / "mine.json").write_text(json.dumps(split))
    with pytest.raises(WorkloadError, match=message):
        read_split(own / "mine.json", open_dataset(own))


def test_a_data_set_is_not_written_over_another(own: Path) -> None:
    from workloads.__main__ import main

    before = (own / "splits.json").read_bytes()
    assert main(["phantom", "aneurysm", "--out", str(own)]) == 2
    assert (own / "splits.json").read_bytes() == before
