"""The lung field: scans of any range, air that is no lung, cases without lung, small pieces, and a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.nifti import read_volume
from workloads.data.splits import read_split
from workloads.evaluation.components import remove_small
from workloads.metrics.overlap import dice
from workloads.phantoms.torso import TorsoPhantom, make_case

SMALL = TorsoPhantom(shape=(24, 24, 12))
Mask = NDArray[np.bool_]


def torsos(folder: Path, *options: str) -> Path:
    sizes = ["--train", "8", "--validation", "4", "--test", "2", "--shape", "32", "32", "10"]
    assert main(["phantom", "lung-field", "--out", str(folder), "--seed", "2", *sizes, *options]) == 0
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chests and chests with abdomens, 1 mm and 5 mm; tests must not change them."""
    return torsos(tmp_path_factory.mktemp("torsos") / "data")


@pytest.fixture(scope="module")
def abdomens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chest, and then an abdomen."""
    ranges = ["--ranges", "chest", "abdomen", "--thickness", "5"]
    return torsos(tmp_path_factory.mktemp("abdomens") / "data", *ranges)


def test_ranges_and_thicknesses_take_turns(scans: Path) -> None:
    sizes = []
    for images, *_ in open_dataset(scans).files.values():
        volume = read_volume(images)
        sizes.append((volume.spacing[2], volume.spacing[2] * volume.array.shape[2]))
    thickness, length = zip(*sizes, strict=True)
    assert thickness[:4] == pytest.approx((1.0, 5.0, 1.0, 5.0))
    assert max(length[0::4] + length[1::4]) < min(length[2::4] + length[3::4])


def test_the_abdomen_has_air_that_is_no_lung() -> None:
    abdomen = replace(SMALL, scan="abdomen")
    for seed in range(3):
        made = make_case(np.random.default_rng(seed), abdomen, 0)
        assert not made.label.any()
        assert (made.image[8:16, 8:16] < -500).any()


def test_lung_as_dense_as_muscle_is_lung_all_the_same() -> None:
    healthy, ill = (make_case(np.random.default_rng(4), SMALL, lesions) for lesions in (0, 6))
    assert ill.label.sum() == pytest.approx(healthy.label.sum(), rel=0.02)
    dense = [(made.image[made.label == 1] > -300).mean() for made in (healthy, ill)]
    assert dense[1] > dense[0] + 0.1


def test_the_spine_lies_at_the_back_whichever_way_the_file_runs() -> None:
    ways = set()
    for seed in range(4):
        made = make_case(np.random.default_rng(seed), replace(SMALL, scan="abdomen", noise=0.0), 0)
        back = np.argwhere(made.image > 300) @ made.affine[:3, :3].T
        body = np.argwhere(made.image > -200) @ made.affine[:3, :3].T
        assert back[:, 1].mean() < body[:, 1].mean() - 20  # mm to the front
        ways.add(bool(made.affine[1, 1] > 0))
    assert ways == {True, False}


def test_a_thick_slice_is_the_mean_of_thin_ones() -> None:
    quiet = replace(SMALL, noise=0.0)
    thin, thick = (make_case(np.random.default_rng(1), replace(quiet, thickness=mm), 0) for mm in (1.0, 5.0))
    slices = min(thin.image.shape[2] // 5, thick.image.shape[2])
    means = thin.image[:, :, : 5 * slices].reshape(24, 24, slices, 5).mean(axis=-1)
    assert np.corrcoef(means.ravel(), thick.image[:, :, :slices].ravel())[0, 1] > 0.97


def test_a_piece_is_judged_by_its_volume_in_three_dimensions() -> None:
    labels = np.zeros((10, 10, 4), dtype=np.uint8)
    labels[0:2, 0:2, :] = 1  # 16 voxels over four slices
    labels[6:9, 6:9, 0] = 1  # 9 voxels in one
    labels[0, 8, 0] = 2
    kept = remove_small(labels, (5.0, 5.0, 4.0), smallest=1.0)  # a voxel is 0.1 ml
    assert kept[0:2, 0:2].sum() == 16
    assert not kept[6:9].any()
    assert not (kept == 2).any()
    assert np.array_equal(remove_small(labels, (10.0, 10.0, 10.0), smallest=1.0), labels)
    assert np.array_equal(remove_small(labels, (1.0, 1.0, 1.0), smallest=0.0), labels)


def largest_two(air: Mask) -> Mask:
    """The largest pieces of air but the one around the body."""
    pieces, _ = ndimage.label(air)
    outside = np.unique(pieces[[0, -1]])
    order = [number for number in np.argsort(-np.bincount(pieces.ravel())) if number and number not in outside]
    return np.isin(pieces, order[:2])


def thresholded(case: Case) -> tuple[float, float]:
    """Dice of what is below -400 HU, all of it and the two largest pieces alone; images are in units of 500 HU from -500."""
    air, truth = np.asarray(case.image.array < 0.2), case.lesion
    return dice(air, truth), dice(largest_two(air), truth)


def result(scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    small = ["--epochs", "6", "--patches", "64", "--patch", "32", "32", "--report-every", "9", "--seed", "1"]
    sets = ["--set", "filters=4", "--set", "smallest=1", "--set", "entropy_share=0.3"]
    return trial_here("lung-field", out, monkeypatch, "--data", str(scans), *small, *sets, *arguments)


@pytest.mark.tensorflow
def test_the_trained_network_beats_thresholds(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = result(scans, tmp_path, monkeypatch)["metrics"]
    dataset = open_dataset(scans)
    names = read_split(scans / "splits.json", dataset).validation
    every, largest = np.mean([thresholded(load_case(dataset, name)) for name in names], axis=0)
    assert metrics["dice_lung"] > largest + 0.02 > every
    assert {"surface_dice_lung", "outside_lung"} <= set(metrics)
    assert (tmp_path / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_without_lung_is_named_before_tensorflow_is_loaded(
    abdomens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lung-field", "--data", str(abdomens), "--patch", "32", "32"]) == 2
    said = capsys.readouterr().err
    assert "labelsTr/torso_0001.nii.gz: marks no lung" in said
    assert "--without-lung" in said


@pytest.mark.tensorflow
@pytest.mark.slow
def test_what_is_marked_in_an_abdomen_is_false_volume(
    abdomens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = result(abdomens, tmp_path, monkeypatch, "--without-lung", "--epochs", "1", "--no-predictions")["metrics"]
    assert 0.0 <= found["false_volume_lung"] <= 2.0 * found["outside_lung"]
    assert found["dice_lung"] == found["dice"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "smallest=-1"], "out of range"),
        (["--patch", "64", "64"], "a patch of (64, 64, 1) voxels is larger than the volume"),
        (["--patch", "20", "20"], "must be multiples of 8, not (20, 20)"),
    ],
)
def test_what_cannot_be_a_lung_field_is_refused(
    scans: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["lung-field", "--data", str(scans), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_slices_need_a_thickness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "lung-field", "--out", str(tmp_path / "d"), "--thickness", "0"]) == 2
    assert "--thickness must be positive" in capsys.readouterr().err
