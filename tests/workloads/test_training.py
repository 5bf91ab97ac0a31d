from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from trial_process import program, trial

from workloads.metrics.froc import CaseDetections, froc, partial_area

pytestmark = pytest.mark.tensorflow
nib: Any = nibabel  # half of it is not typed
SETTINGS = ("--epochs", "6", "--patches", "96", "--seed", "1", "--test")


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("trained") / "trial"
    return out, trial("aneurysm", out, "--data", str(phantoms), *SETTINGS)


def test_a_trained_detector_beats_one_that_points_anywhere(trained: tuple[Path, Any], phantoms: Path) -> None:
    _, result = trained
    lesions = np.mean([(np.asarray(nib.load(path).dataobj) > 0).mean() for path in (phantoms / "labelsTr").iterdir()])
    # A point anywhere is in a lesion with that probability; ten points per case hit at most ten times as often.
    assert result["metrics"]["pauc"] > 0.25 > 10 * lesions
    assert result["metrics"]["pauc_10"] > result["metrics"]["pauc"]
    assert 0 < result["metrics"]["dice_lesion"] < 1
    assert set(result["metrics"]) >= {
        "test_pauc",
        "sensitivity_8fp",
        "sensitivity_1fp",
        "fps_at_half",
        "false_volume_normal",
        "train_seconds",
    }


def test_the_result_says_how_it_was_measured(trained: tuple[Path, Any]) -> None:
    info = trained[1]["info"]
    assert "inside the lesion's mask" in info["matching"]
    assert "divided by k" in info["normalisation"]
    assert info["pauc_interval"]["low"] <= trained[1]["metrics"]["pauc"] <= info["pauc_interval"]["high"]
    assert info["cases"] == {"train": 16, "validation": 12, "test": 4}
    assert len(info["data"]) == 64
    assert info["versions"]["tensorflow"] != "unknown"
    assert info["peak_memory_mib"] > 100
    assert (info["diverged"], info["seed"]) == (False, 1)


def test_the_validation_area_is_reported_on_the_way(trained: tuple[Path, Any]) -> None:
    out, result = trained
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert lines[-1]["value"] == result["metrics"]["pauc"]


def test_the_metrics_can_be_computed_again_from_the_candidate_list(trained: tuple[Path, Any]) -> None:
    out, result = trained
    with (out / "artifacts" / "candidates.csv").open() as stream:
        candidates = list(csv.DictReader(stream))
    with (out / "artifacts" / "cases.csv").open() as stream:
        cases = list(csv.DictReader(stream))
    detections = []
    for case in cases:
        own = [row for row in candidates if row["case"] == case["case"]]
        scores = np.array([float(row["score"]) for row in own])
        lesions = np.array([int(row["lesion"]) for row in own], dtype=np.int64)
        found = CaseDetections(case=case["case"], scores=scores, lesions=lesions, n_lesions=int(case["lesions"]))
        detections.append(found)
    for limit, name in [(3.0, "pauc"), (10.0, "pauc_10")]:
        assert partial_area(froc(detections), limit) == result["metrics"][name]


def test_predictions_lie_in_the_geometry_of_their_images(trained: tuple[Path, Any], phantoms: Path) -> None:
    predictions = sorted((trained[0] / "artifacts" / "predictions").iterdir())
    assert len(predictions) == 12
    for path in predictions:
        prediction = nib.load(path)
        image = nib.load(phantoms / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
        assert prediction.shape == image.shape
        assert np.array_equal(prediction.affine, image.affine)
        values = np.asarray(prediction.dataobj)
        assert values.dtype == np.uint8
        assert values.max() <= 100


def test_the_model_is_kept_whole(trained: tuple[Path, Any]) -> None:
    with zipfile.ZipFile(trained[0] / "artifacts" / "model.keras") as model:
        assert model.testzip() is None
        kinds = [layer["class_name"] for layer in json.loads(model.read("config.json"))["config"]["layers"]]
    assert kinds.count("Conv3D") == 5
    assert not [kind for kind in kinds if "MaxPool" in kind or "BatchNorm" in kind or "Lambda" in kind]


def test_a_training_that_meets_its_walltime_gives_the_same_result_in_another_process(
    phantoms: Path, tmp_path: Path, trained: tuple[Path, Any]
) -> None:
    out = tmp_path / "cut"
    out.mkdir()
    (out / "stop").write_text("walltime\n")
    cut = program("aneurysm", out, "--data", str(phantoms), *SETTINGS)
    assert cut.returncode == 85, cut.stderr
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["step-0000000001.1"]
    assert not (out / "result.json").exists()
    (out / "stop").unlink()
    again, first = trial("aneurysm", out, "--data", str(phantoms), *SETTINGS, "--no-predictions"), trained[1]
    assert again["info"]["losses"] == first["info"]["losses"]
    assert {**again["metrics"], "train_seconds": 0} == {**first["metrics"], "train_seconds": 0}
    assert not (out / "artifacts" / "predictions").exists()


def test_a_training_that_diverges_is_a_measured_zero_and_says_so(phantoms: Path, tmp_path: Path) -> None:
    settings = ("learning_rate=1.0", "weight_decay=100", "optimizer=sgd")  # each step multiplies weights by about -99
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = trial("aneurysm", tmp_path / "a", "--data", str(phantoms), "--epochs", "8", "--patches", "32", *arguments)
    assert result["info"]["diverged"] is True
    assert len(result["info"]["losses"]) < 8
    assert result["metrics"]["pauc"] == 0.0
