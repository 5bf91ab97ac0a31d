"""Lung regions in CT: units that mean something, probabilities kept, folds as runs of a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.nifti import read_volume, write_volume
from workloads.evaluation.segmentation import dice_interval, segment, write_artifacts
from workloads.metrics.overlap import dice
from workloads.phantoms.lung import LungPhantom, make_case

nib: Any = nibabel  # half of it is not typed
EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = {"background": 0, "normal": 1, "abnormal": 2}


def dataset(folder: Path, image: NDArray[np.int16], *, channel: str, affine: NDArray[np.float64] | None = None) -> Path:
    """A data set of one case, which has no label but background."""
    place = np.eye(4) if affine is None else affine
    write_volume(folder / "imagesTr" / "a_0000.nii.gz", image, place)
    write_volume(folder / "labelsTr" / "a.nii.gz", np.zeros(image.shape, dtype=np.uint8), place)
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": channel}, "labels": LABELS}))
    return folder


def test_hounsfield_units_mean_the_same_whatever_else_is_in_the_image(tmp_path: Path) -> None:
    image = np.full((4, 4, 4), -1000, dtype=np.int16)
    image[0, 0] = [-2048, -500, 0, 3000]
    found = []
    for name, filled in (("little", 1), ("much", 4)):
        image[1:filled] = 40
        root = dataset(tmp_path / name, image, channel="CT")
        found.append(load_case(open_dataset(root), "a").image.array[0, 0])
    assert found[0] == pytest.approx([-1.0, 0.0, 1.0, 1.8])
    assert found[1] == pytest.approx(found[0])


def test_other_images_have_no_unit(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 400, (6, 6, 6)).astype(np.int16)
    one, twice = (
        load_case(open_dataset(dataset(tmp_path / name, factor * image, channel="MR")), "a").image.array
        for name, factor in (("one", np.int16(1)), ("twice", np.int16(2)))
    )
    assert np.allclose(one, twice, atol=1e-5)


def test_no_threshold_finds_abnormal_lung() -> None:
    """Not even one that is chosen by the truth: vessels, walls and dependent lung have the same density."""
    cases = [make_case(np.random.default_rng([5, seed]), LungPhantom(), 1 + seed % 4) for seed in range(8)]
    best = max(
        float(np.mean([dice((case.image > low) & (case.image < high), case.label == 2) for case in cases]))
        for low in range(-800, 0, 100)
        for high in range(low + 100, 201, 100)
    )
    assert best < 0.45


def test_the_same_seed_makes_the_same_chest_and_spacing_is_anisotropic() -> None:
    one, same, other = (make_case(np.random.default_rng(seed), LungPhantom(), 2) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.label, same.label)
    assert not np.array_equal(one.image, other.image)
    assert np.linalg.norm(one.affine[:3, :3], axis=0) == pytest.approx([7.0, 7.0, 12.0])


def case(tmp_path: Path, affine: NDArray[np.float64]) -> Case:
    image = np.zeros((6, 4, 2), dtype=np.int16)
    return load_case(open_dataset(dataset(tmp_path, image, channel="CT", affine=affine)), "a")


def test_probabilities_are_kept_in_percent_in_the_geometry_of_the_image(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])  # x and y point the other way in the file
    own = case(tmp_path / "data", affine)
    odds = np.ones((1, 6, 4, 2, 3), dtype=np.float32)
    odds[0, 5, 3, 1] = [1.0, 3.0, 6.0]
    odds[0, 0, 0, 0] = np.nan
    item = segment(lambda _image: np.log(odds), [own], LABELS, window=(9, 9, 9), multiple=(1, 1, 1))[0]
    assert item.percent["normal"][5, 3, 1] == 30
    assert item.percent["abnormal"][5, 3, 1] == 60
    assert item.prediction[5, 3, 1] == 2
    write_artifacts(tmp_path / "out", [item], LABELS, tolerance=1.0, predictions=True)
    paths = sorted((tmp_path / "out" / "probabilities").iterdir())
    assert [path.name for path in paths] == ["a_abnormal.nii.gz", "a_normal.nii.gz"]
    written = nib.load(paths[0])
    assert np.array_equal(written.affine, affine)
    values = np.asarray(written.dataobj)
    assert values.dtype == np.uint8
    # The first voxel of the file is the last one along both flipped axes.
    assert (values[0, 0, 1], values[3, 2, 0]) == (60, 33)
    assert np.array_equal(read_volume(paths[0]).array, item.percent["abnormal"])


def told(logits: NDArray[np.float32], _image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a network says that has made up its mind."""
    return logits


def test_each_region_has_an_interval_of_its_own(tmp_path: Path) -> None:
    own = case(tmp_path, np.eye(4))
    items = []
    for marked in (2, 4):
        own.label.array[:] = 0
        truth = own.label.array.copy()
        truth[0, :, 0], truth[1, :, 0] = 1, 2
        answer = np.zeros_like(truth)
        answer[0, :, 0], answer[1, :marked, 0] = 1, 2
        image = Case(
            name=str(marked), image=own.image, label=type(own.label)(array=truth, affine=np.eye(4), path=Path())
        )
        logits = np.eye(3, dtype=np.float32)[answer][None]
        items += segment(partial(told, logits), [image], LABELS, window=(9,) * 3, multiple=(1,) * 3)
    normal = dice_interval(items, LABELS, region="normal")
    abnormal = dice_interval(items, LABELS, region="abnormal")
    assert (normal.low, normal.high) == (1.0, 1.0)
    assert (abnormal.low, abnormal.high) == pytest.approx((2 * 2 / 6, 1.0))
    assert dice_interval(items, LABELS).low == pytest.approx((1.0 + 2 * 2 / 6) / 2)


@pytest.fixture(scope="module")
def folds(lungs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folds") / "folds.json"
    assert main(["folds", "--data", str(lungs), "--folds", "2", "--out", str(path)]) == 0
    return path


SMALL = ["--epochs", "1", "--patches", "8", "--set", "filters=4", "--set", "depth=1", "--no-predictions"]


@pytest.mark.tensorflow
def test_a_cross_validation_is_one_trial_whose_runs_are_the_folds(lungs: Path, folds: Path, tmp_path: Path) -> None:
    example = yaml.safe_load((EXAMPLES / "covid-3d" / "study.yaml").read_text())
    assert (example["repeats"], example["command"][-2:]) == (5, ["--split", "phantoms/folds.json"])
    trainings = [sys.executable, "-m", "workloads", "covid-2d", "--data", str(lungs), "--split", str(folds), *SMALL]
    study = {
        **{key: example[key] for key in ("schema_version", "name", "objective", "metrics")},
        "space": {"learning_rate": example["space"]["learning_rate"]},
        "sampler": {"name": "random", "seed": 1},
        "trials": 1,
        "repeats": 2,
        "parallel": 2,
        "command": trainings,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    survey = [sys.executable, "-m", "orchestrator.cli.app", "run", "study.yaml"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(survey, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/trials/00000/run-*/*/result.json"))]
    assert [run["info"]["fold"] for run in runs] == [1, 2]
    validated = [
        {line.split(",")[0] for line in path.read_text().splitlines()[1:]}
        for path in sorted(tmp_path.glob("runs/*/trials/00000/run-*/*/artifacts/cases.csv"))
    ]
    assert validated[0] | validated[1] == set(open_dataset(lungs).files)
    assert not validated[0] & validated[1]
    mean = float(np.mean([run["metrics"]["dice"] for run in runs]))
    assert f"{mean:.4g}"[:5] in done.stdout


@pytest.mark.tensorflow
def test_the_command_line_chooses_a_fold_by_itself(
    lungs: Path, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trial_here(
        "covid-3d", tmp_path / "t", monkeypatch, "--data", str(lungs), "--split", str(folds), "--fold", "2", *SMALL
    )
    assert result["info"]["fold"] == 2
    regions = {"dice_interval", "dice_normal_interval", "dice_abnormal_interval"}
    assert regions <= set(result["info"])
