"""Volumes with a class: CT and segmentation as one input, multiplied by deformation, classified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.classified_volumes import open_volumes, read_classified
from workloads.data.labelled import Samples, load_samples
from workloads.data.nifti import read_volume, write_volume
from workloads.data.splits import read_split
from workloads.errors import WorkloadError
from workloads.metrics.classification import balanced_accuracy, confusion
from workloads.phantoms.typicality import KINDS, make_typicality
from workloads.tasks.covid_typicality import TASK

SHAPE = (24, 20, 12)


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small chests; tests must not change them."""
    folder = tmp_path_factory.mktemp("chests") / "data"
    sizes = ["--train", "24", "--validation", "14", "--test", "2", "--shape", *map(str, SHAPE)]
    assert main(["phantom", "covid-typicality", "--out", str(folder), "--seed", "3", *sizes]) == 0
    return folder


def two(folder: Path) -> Path:
    """A data set of two volumes, whose files lie the other way round along x."""
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    for name in ("a", "b"):
        image = np.full((6, 4, 3), -500, dtype=np.int16)
        label = np.zeros((6, 4, 3), dtype=np.uint8)
        image[5, 3, 2], label[5, 3, 2], label[4, 3, 2] = 400, 2, 1
        write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", image, affine)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", label, affine)
    labels = {"background": 0, "normal": 1, "abnormal": 2}
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    (folder / "classes.json").write_text('{"a": "high", "b": "low"}')
    (folder / "splits.json").write_text('{"train": ["a"], "validation": ["b"]}')
    return folder


def test_ct_and_segmentation_are_two_channels_in_the_patients_orientation(tmp_path: Path) -> None:
    data = open_volumes(two(tmp_path))
    assert (data.classes, data.class_of) == (("high", "low"), {"a": 0, "b": 1})
    seen = data.read("a")
    assert seen.shape == (6, 4, 3, 2)
    assert seen.dtype == np.float32
    assert seen[0, 3, 2] == pytest.approx([1.8, 1.0])
    assert seen[1, 3, 2] == pytest.approx([0.0, 0.5])
    assert seen[5, 0, 0] == pytest.approx([0.0, 0.0])
    alone = read_classified(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    assert np.array_equal(alone, seen)


def test_a_size_cuts_to_what_is_segmented(tmp_path: Path) -> None:
    seen = open_volumes(two(tmp_path), size=(2, 3, 1)).read("a")
    assert seen.shape == (2, 3, 1, 2)
    assert seen[:, 1, 0] == pytest.approx(np.array([[1.8, 1.0], [0.0, 0.5]]))


def spoil_class(data: Path) -> str:
    (data / "classes.json").write_text('{"a": "high", "b": "high"}')
    return "classes.json: has 1 class"


def spoil_missing(data: Path) -> str:
    (data / "classes.json").write_text('{"a": "high"}')
    return "classes.json: does not name 'b'"


def spoil_unknown(data: Path) -> str:
    (data / "classes.json").write_text('{"a": "high", "b": "low", "c": "low"}')
    return "classes.json: names 'c'"


def spoil_form(data: Path) -> str:
    (data / "classes.json").write_text('{"a": 1, "b": 2}')
    return "classes.json: is not of the form"


def spoil_file(data: Path) -> str:
    several(data)
    (data / "imagesTr" / "b_0000.nii.gz").write_text("no volume")
    return "b_0000.nii.gz: cannot be read as NIfTI"


def several(data: Path) -> None:
    """Make four of the two volumes, so that each class trains and validates."""
    (data / "classes.json").write_text('{"a": "high", "b": "low", "c": "high", "d": "low"}')
    for name, source in (("c", "a"), ("d", "b")):
        for file in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"):
            (data / file).write_bytes((data / file.replace(f"/{name}", f"/{source}")).read_bytes())
    (data / "splits.json").write_text('{"train": ["a", "b"], "validation": ["c", "d"]}')


def spoil_size(data: Path) -> str:
    several(data)
    write_volume(data / "imagesTr" / "b_0000.nii.gz", np.zeros((3, 4, 3), np.int16), np.eye(4))
    write_volume(data / "labelsTr" / "b.nii.gz", np.ones((3, 4, 3), np.uint8), np.eye(4))
    return "b_0000.nii.gz: is 3 x 4 x 3, but"


def spoil_part(data: Path) -> str:
    assert data.is_dir()
    return 'no case of the split\'s "train" is of class "low"'


def spoil_channel(data: Path) -> str:
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "T1"}}))
    return "has no channel 'CT'"


SPOILT = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda each: each.__name__)
def test_what_cannot_be_used_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, spoil: Any
) -> None:
    message = spoil(two(tmp_path))
    assert main(["covid-typicality", "--data", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert message in text


def test_a_volume_with_nothing_segmented_cannot_be_cut_to_it(tmp_path: Path) -> None:
    two(tmp_path)
    write_volume(tmp_path / "labelsTr" / "b.nii.gz", np.zeros((6, 4, 3), np.uint8), np.diag([-2.0, 2.0, 3.0, 1.0]))
    with pytest.raises(WorkloadError, match=r"b\.nii\.gz: nothing is segmented"):
        open_volumes(tmp_path, size=(4, 4, 4)).read("b")


def test_deformed_copies_keep_class_and_labels_and_differ_from_each_other() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([rng.normal(size=(2, 10, 9, 8)), rng.integers(0, 3, (2, 10, 9, 8)) * 0.5], axis=-1)
    samples = Samples(names=("a", "b"), images=images.astype(np.float32), classes=np.array([1, 0]))
    many = TASK.multiply(rng, samples, {"copies": 2, "deformation": 0.5})
    assert many.images.shape == (6, 10, 9, 8, 2)
    assert many.classes.tolist() == [1, 0, 1, 0, 1, 0]
    assert np.array_equal(many.images[:2], samples.images)
    assert not np.allclose(many.images[2], many.images[4])
    assert set(np.unique(many.images[..., 1]).tolist()) == {0.0, 0.5, 1.0}
    assert TASK.multiply(rng, samples, {"copies": 0}).images.shape == samples.images.shape


def test_typical_opacities_are_on_both_sides_and_others_on_one() -> None:
    share = {}
    for kind in KINDS:
        cases = [make_typicality(np.random.default_rng([1, seed]), kind, shape=SHAPE, noise=60.0) for seed in range(12)]
        halves = [[np.sum(half == 2) for half in np.array_split(case.label, 2)] for case in cases]
        share[kind] = np.mean([min(pair) > 0 for pair in halves])
    assert share["high"] == 1.0
    assert share["low"] <= 0.25
    one, same = (make_typicality(np.random.default_rng(4), "high", shape=SHAPE, noise=60.0) for _ in range(2))
    assert np.array_equal(one.image, same.image)


def test_masks_show_the_opacities_on_the_grid_of_the_image(chests: Path) -> None:
    data = open_volumes(chests)
    for name in list(data.class_of)[:6]:
        image, label = (read_volume(path) for path in data.dataset.files[name])
        mask = read_volume(chests / "masks" / f"{name}.nii.gz")
        assert np.array_equal(mask.array, label.array == 2)
        assert np.allclose(mask.affine, image.affine)


def volumes(data: Path, part: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How much of the lung is abnormal, and how dense that is: what is known without seeing where."""
    labelled = open_volumes(data)
    samples = load_samples(labelled, getattr(read_split(data / "splits.json", labelled.dataset), part))
    abnormal = samples.images[..., 1] > 0.9
    amount = abnormal.sum((1, 2, 3))
    density = (samples.images[..., 0] * abnormal).sum((1, 2, 3)) / np.maximum(amount, 1)
    return np.stack([amount, density], axis=1).astype(float), samples.classes


@pytest.mark.tensorflow
def test_typicality_is_told_better_than_by_how_much_is_abnormal(
    chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(*volumes(chests, "train"))
    features, truth = volumes(chests, "validation")
    baseline = balanced_accuracy(confusion(truth, tree.predict(features), 2))
    result = trial_here("covid-typicality", tmp_path, monkeypatch, "--data", str(chests), "--seed", "1")
    metrics, info = result["metrics"], result["info"]
    assert metrics["balanced_accuracy"] > max(baseline, 0.5) + 0.05
    assert metrics["auc"] > 0.6
    assert metrics["balanced_accuracy"] == pytest.approx((metrics["accuracy_high"] + metrics["accuracy_low"]) / 2)
    assert info["auc_interval"]["low"] <= metrics["auc"] <= info["auc_interval"]["high"]
    assert info["classes"] == ["high", "low"]
    for name in ("overview.png", "confusion.png", "confusion.csv", "predictions.csv", "model.keras"):
        assert (tmp_path / "artifacts" / name).stat().st_size > 20
