"""Anomalies in head CT: phantoms, the brain found in them, scores and thresholds by hand, one autoencoder trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, ct_window, hounsfield, load_case, open_dataset
from workloads.data.intracranial import intracranial
from workloads.data.nifti import Volume
from workloads.data.splits import read_split
from workloads.errors import WorkloadError
from workloads.evaluation.anomaly import examine, summarise, youden_threshold
from workloads.metrics.classification import roc_auc
from workloads.phantoms.head import HeadPhantom, make_case

nib: Any = nibabel  # half of it is not typed


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "data"
    sizes = ["--train", "10", "--validation", "16", "--test", "4", "--normal-fraction", "0.5"]
    assert main(["phantom", "head-ct-anomaly", "--out", str(folder), "--seed", "3", *sizes]) == 0
    return folder


def cases_of(folder: Path, part: str) -> list[Case]:
    dataset = open_dataset(folder)
    return [load_case(dataset, name) for name in getattr(read_split(folder / "splits.json", dataset), part)]


def blank(name: str, *, lesion: bool = False, value: float = 0.0) -> Case:
    """A case of nothing, with one voxel that is not."""
    image, label = np.zeros((9, 9, 9), dtype=np.float32), np.zeros((9, 9, 9), dtype=np.uint8)
    image[6, 2, 4] = value
    label[6, 2, 4] = lesion
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return Case(
        name=name,
        image=Volume(array=image, affine=affine, path=Path(f"{name}.nii.gz")),
        label=Volume(array=label, affine=affine, path=Path(f"{name}_label.nii.gz")),
    )


def nothing(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(image)


def test_haemorrhages_are_bright_infarcts_dark_and_normal_heads_have_both() -> None:
    found = set()
    for seed in range(12):
        case = make_case(np.random.default_rng(seed), HeadPhantom(), 1)
        mask = case.label > 0
        number = int(case.label.max())
        around = ndimage.binary_dilation(mask, iterations=2) & ~mask & (case.image > 0) & (case.image < 50)
        difference = float(case.image[mask].mean() - case.image[around].mean())
        assert difference > 15 if number == 1 else difference < -8
        found.add(number)
        normal = make_case(np.random.default_rng([1, seed]), HeadPhantom(), 0)
        assert normal.label.max() == 0
        assert normal.image[15:25, 15:33, 10:20].min() < 15
    assert found == {1, 2}


def test_the_same_seed_makes_the_same_head_and_one_without_room_is_refused() -> None:
    one, same, other = (make_case(np.random.default_rng(seed), HeadPhantom(), 1) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.affine, same.affine)
    assert not np.array_equal(one.image, other.image)
    with pytest.raises(ValueError, match="no room for a lesion"):
        make_case(np.random.default_rng(0), HeadPhantom(bleeding=(90.0, 90.0), infarct=(90.0, 90.0)), 1)


def test_phantoms_train_on_normal_heads_alone(heads: Path) -> None:
    assert not any(case.lesion.any() for case in cases_of(heads, "train"))
    assert sum(case.lesion.any() for case in cases_of(heads, "validation")) == 8


def test_a_window_shows_brain_and_cuts_off_the_rest(heads: Path) -> None:
    dataset = open_dataset(heads)
    case = load_case(dataset, "head_0000")
    units = np.asarray(nib.as_closest_canonical(nib.load(case.image.path)).dataobj).astype(float)
    seen = ct_window(case, level=35.0, width=80.0).image.array
    assert (seen.min(), seen.max()) == (-1.0, 1.0)
    inside = (units > -5) & (units < 75)
    assert np.allclose(40.0 * seen[inside] + 35.0, units[inside], atol=0.01)


def test_the_brain_is_what_the_skull_surrounds(heads: Path) -> None:
    for case in cases_of(heads, "validation")[:4]:
        brain = intracranial(case)
        millilitres = brain.sum() * np.prod(case.image.spacing) / 1000.0
        assert 700 < millilitres < 1600
        assert (hounsfield(case)[brain] < 90.0).mean() > 0.99  # calcifications are denser
        assert ndimage.label(brain)[1] == 1
        if case.lesion.any():
            assert brain[case.lesion].mean() > 0.8


def test_a_volume_without_a_brain_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"air\.nii\.gz: holds no piece of soft tissue as large as a brain"):
        intracranial(blank("air", value=1.0))


def test_a_score_is_the_mean_squared_error_of_the_worst_patch_in_mm() -> None:
    item = examine(nothing, [blank("a", value=0.5)], side=3.0, unit=40.0, window=16, multiple=1)[0]
    # 3 x 3 x 1 voxels of 1 x 1 x 2 mm are the nearest to a cube of 3 mm.
    assert item.score == pytest.approx((40.0 * 0.5) ** 2 / 9.0)
    assert item.errors[6, 2, 4] == pytest.approx(item.score)
    assert item.errors[4, 2, 4] == 0.0


def test_a_network_that_diverged_finds_nothing() -> None:
    cases = [blank("a", lesion=True), blank("b")]
    found = examine(lambda image: np.full_like(image, np.nan), cases, side=1.0, unit=1.0, window=16, multiple=1)
    assert [item.score for item in found] == [0.0, 0.0]
    assert summarise(found, youden_threshold(found))["auc"] == 0.5


def test_the_threshold_parts_normal_from_abnormal_as_well_as_a_threshold_can() -> None:
    values = [(0.1, False), (0.2, False), (0.3, True), (0.4, False), (0.6, True), (0.8, True)]
    cases = [blank(str(index), lesion=lesion, value=value) for index, (value, lesion) in enumerate(values)]
    found = examine(nothing, cases, side=1.0, unit=1.0, window=16, multiple=1)
    threshold = youden_threshold(found)
    # From 0.3 all three abnormal and one normal case are called, from 0.6 two and none: both sums are 5/3; the higher counts.
    assert threshold == pytest.approx((0.4**2 + 0.6**2) / 2)
    metrics = summarise(found, threshold)
    assert metrics["auc"] == pytest.approx(8 / 9)
    assert (metrics["sensitivity"], metrics["specificity"]) == pytest.approx((2 / 3, 1.0))
    assert metrics["located"] == 1.0


def test_an_abnormal_case_in_training_is_refused_by_name_before_anything_is_trained(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("workloads.trials.anomaly.import_tensorflow", lambda **_: pytest.fail("TensorFlow is loaded"))
    split = json.loads((heads / "splits.json").read_text())
    abnormal = {case.name for case in cases_of(heads, "validation") if case.lesion.any()}
    bad = min(abnormal)
    normal = [name for name in split["validation"] if name not in abnormal]
    split["train"].append(bad)
    split["validation"].remove(bad)
    (tmp_path / "mixed.json").write_text(json.dumps(split))
    assert main(["head-ct-anomaly", "--data", str(heads), "--split", str(tmp_path / "mixed.json")]) == 2
    assert f"{bad}.nii.gz: case '{bad}' is abnormal, and the split trains on it" in capsys.readouterr().err
    (tmp_path / "normal.json").write_text(json.dumps({"train": split["train"][:2], "validation": normal}))
    assert main(["head-ct-anomaly", "--data", str(heads), "--split", str(tmp_path / "normal.json")]) == 2
    assert 'the split\'s "validation" has no abnormal case' in capsys.readouterr().err


def test_images_without_a_unit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--train", "1", "--validation", "1", "--test", "0"]
    assert main(["phantom", "metastasis", "--out", str(tmp_path / "mr"), *sizes]) == 0
    assert main(["head-ct-anomaly", "--data", str(tmp_path / "mr")]) == 2
    assert "dataset.json: has no channel 'CT', but T1c" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("head") / "trial"
    small = ("--epochs", "8", "--report-every", "8", "--set", "filters=6", "--seed", "1", "--test")
    with pytest.MonkeyPatch.context() as patch:
        return out, trial_here("head-ct-anomaly", out, patch, "--data", str(heads), *small)


@pytest.mark.tensorflow
def test_a_trained_autoencoder_beats_intensities(trained: tuple[Path, Any], heads: Path) -> None:
    cases = cases_of(heads, "validation")
    truth = [bool(case.lesion.any()) for case in cases]
    brains = [hounsfield(case)[intracranial(case)] for case in cases]
    grey = [np.where(intracranial(case), hounsfield(case) - 35.0, 0.0) ** 2 for case in cases]
    measures = {
        "brightest": [float(brain.max()) for brain in brains],
        "darkest": [-float(brain.min()) for brain in brains],
        "largest z-score": [float(np.max(np.abs(brain - brain.mean())) / brain.std()) for brain in brains],
        "worst patch of one grey": [float(ndimage.uniform_filter(error, 3).max()) for error in grey],
    }
    best = max(roc_auc(truth, scores) for scores in measures.values())
    assert trained[1]["metrics"]["auc"] > max(best, 0.7) + 0.03
    assert trained[1]["metrics"]["located"] >= 0.4


@pytest.mark.tensorflow
def test_a_trained_autoencoder_draws_normal_heads_and_not_one_grey(trained: tuple[Path, Any]) -> None:
    assert trained[1]["metrics"]["explained"] > 0.2


@pytest.mark.tensorflow
def test_error_maps_are_written_in_the_geometry_of_the_image_and_the_score_is_their_largest_value(
    trained: tuple[Path, Any], heads: Path
) -> None:
    out = trained[0] / "artifacts"
    with (out / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    for row in rows[:4]:
        image = nib.load(heads / "imagesTr" / f"{row['case']}_0000.nii.gz")
        errors = nib.load(out / "errors" / f"{row['case']}.nii.gz")
        assert errors.shape == image.shape
        assert np.array_equal(errors.affine, image.affine)
        assert float(np.asarray(errors.dataobj).max()) == pytest.approx(float(row["score"]), rel=1e-5)
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.tensorflow
def test_test_cases_are_called_at_the_threshold_that_the_validation_cases_chose(trained: tuple[Path, Any]) -> None:
    out, result = trained
    threshold = result["info"]["threshold"]
    with (out / "artifacts" / "test" / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert all((float(row["score"]) >= threshold) == bool(int(row["called_abnormal"])) for row in rows)
    called = [int(row["called_abnormal"]) for row in rows if int(row["abnormal"])]
    assert result["metrics"]["test_sensitivity"] == pytest.approx(float(np.mean(called)))
    interval = result["info"]["auc_interval"]
    assert interval["low"] <= result["metrics"]["auc"] <= interval["high"]


@pytest.mark.tensorflow
def test_the_same_seed_draws_the_same_heads(heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--data", str(heads), "--epochs", "1", "--patches", "4", "--set", "filters=4", "--no-predictions")
    one, same = (
        trial_here("head-ct-anomaly", tmp_path / name, monkeypatch, *small, "--seed", "4") for name in ("one", "same")
    )
    assert one["info"]["losses"] == same["info"]["losses"]
    assert one["metrics"]["auc"] == same["metrics"]["auc"]
