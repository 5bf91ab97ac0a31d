"""Metastases: the phantoms, a space of which parts come and go, networks of any searched shape, one training."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial

from workloads.data.dataset import load_case, open_dataset
from workloads.data.splits import read_split
from workloads.metrics.matching import label_lesions
from workloads.parameters import resolve
from workloads.phantoms.brain import BrainPhantom, make_case
from workloads.phantoms.datasets import lesion_counts
from workloads.tasks.metastasis import PARAMETERS


@pytest.mark.parametrize("lesions", [0, 1, 4])
def test_a_brain_has_the_metastases_it_was_asked_for_and_they_enhance(lesions: int) -> None:
    for seed in range(6):
        case = make_case(np.random.default_rng(seed), BrainPhantom(), lesions)
        mask = case.label > 0
        assert label_lesions(mask)[1] == lesions
        if lesions:
            assert case.image[mask].mean() > 1.3 * case.image[~mask].mean()


def test_what_is_brightest_in_a_normal_case_is_as_bright_as_a_metastasis() -> None:
    """Else a threshold would do."""
    normal = [make_case(np.random.default_rng([1, seed]), BrainPhantom(), 0) for seed in range(20)]
    lesions = [make_case(np.random.default_rng([2, seed]), BrainPhantom(), 1) for seed in range(20)]
    peaks = [float(np.percentile(case.image, 99.9) / np.median(case.image)) for case in normal]
    signals = [float(case.image[case.label > 0].mean() / np.median(case.image)) for case in lesions]
    assert np.median(peaks) > np.median(signals)


def test_the_same_seed_makes_the_same_brain() -> None:
    one, same, other = (make_case(np.random.default_rng(seed), BrainPhantom(), 2) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.label, same.label)
    assert not np.array_equal(one.image, other.image)


def test_a_block_too_small_for_metastases_is_refused() -> None:
    with pytest.raises(ValueError, match="no room for 2 metastases"):
        make_case(np.random.default_rng(0), BrainPhantom(shape=(6, 6, 4)), 2)


def test_patients_have_one_to_four_metastases_and_a_fixed_share_has_none() -> None:
    counts = lesion_counts(4000, 0.25, np.random.default_rng(0), further=0.5, most=4)
    assert counts.count(0) == 1000
    shares = [counts.count(lesions) / 3000 for lesions in (1, 2, 3, 4)]
    assert shares == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 8], abs=0.03)


def test_phantoms_on_disk_have_more_lesions_than_cases_with_one(brains: Path) -> None:
    dataset = open_dataset(brains)
    split = read_split(brains / "splits.json", dataset)
    counts = [label_lesions(load_case(dataset, name).lesion)[1] for name in split.train]
    assert counts.count(0) == 4
    assert sum(counts) > 12
    assert dataset.labels == {"background": 0, "metastasis": 1}


def test_there_are_seventeen_hyperparameters_and_those_of_absent_layers_do_not_exist() -> None:
    assert len(PARAMETERS) == 17
    assert len(resolve(PARAMETERS, {"layers": 4, "optimizer": "sgd"})) == 17
    small = resolve(PARAMETERS, {"layers": 2, "width_4": 3, "momentum": 0.5})
    assert {"width_3", "width_4", "momentum"}.isdisjoint(small)
    assert len(small) == 14


@pytest.fixture(scope="module")
def trained(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("trained") / "trial"
    shape = ["layers=2", "width_1=6", "width_2=5", "reach=2", "scale=full", "normalisation=group", "width_4=9"]
    settings = [part for setting in shape for part in ("--set", setting)]
    arguments = ("--epochs", "6", "--patches", "96", "--report-every", "6", "--seed", "1", "--test", *settings)
    return out, trial("metastasis", out, "--data", str(brains), *arguments)


@pytest.mark.tensorflow
def test_a_trained_detector_beats_one_that_points_anywhere(trained: tuple[Path, Any], brains: Path) -> None:
    metrics = trained[1]["metrics"]
    dataset = open_dataset(brains)
    filled = [load_case(dataset, name).lesion.mean() for name in dataset.files]
    # A point anywhere is in a lesion with that probability; ten points per case hit at most ten times as often.
    assert metrics["pauc_10"] > 0.3 > 10 * float(np.mean(filled))
    assert metrics["sensitivity_1fp"] <= metrics["sensitivity_4fp"] <= metrics["sensitivity_8fp"]


@pytest.mark.tensorflow
def test_the_objective_goes_to_ten_false_positives_and_the_test_cases_are_measured_apart(
    trained: tuple[Path, Any],
) -> None:
    out, result = trained
    interval = result["info"]["pauc_10_interval"]
    assert interval["low"] <= result["metrics"]["pauc_10"] <= interval["high"]
    assert {"test_pauc_10", "test_sensitivity_8fp"} <= set(result["metrics"])
    assert json.loads((out / "progress.jsonl").read_text())["value"] == result["metrics"]["pauc_10"]
    cases = [(out / "artifacts" / part / "cases.csv").read_text().splitlines()[1:] for part in (".", "test")]
    assert [len(rows) for rows in cases] == [12, 4]
    assert not {row.split(",")[0] for row in cases[0]} & {row.split(",")[0] for row in cases[1]}


@pytest.mark.tensorflow
def test_the_network_has_the_layers_that_were_asked_for_and_the_record_no_others(trained: tuple[Path, Any]) -> None:
    out, result = trained
    with zipfile.ZipFile(out / "artifacts" / "model.keras") as model:
        layers = json.loads(model.read("config.json"))["config"]["layers"]
    convolutions = [layer["config"] for layer in layers if layer["class_name"] == "Conv3D"]
    assert [(each["filters"], each["kernel_size"][0]) for each in convolutions] == [(6, 5), (5, 3), (1, 1)]
    groups = [layer["config"]["groups"] for layer in layers if layer["class_name"] == "GroupNormalization"]
    assert groups == [2, 1]  # what divides both the width and four
    assert "width_4" not in result["info"]["params"]
