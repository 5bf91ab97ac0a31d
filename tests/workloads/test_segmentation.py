"""Segmentation measured by hand, the shapes of its networks, its phantoms, and a training in 2D and in 3D."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from trial_process import trial

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.nifti import Volume, write_volume
from workloads.data.splits import read_split
from workloads.evaluation.segmentation import dice_interval, draw, segment, summarise, write_artifacts
from workloads.metrics.overlap import dice
from workloads.models.segmenter import DENSE, NETWORKS_2D, NETWORKS_3D, segmenter
from workloads.phantoms.lung import LungPhantom, make_case

nib: Any = nibabel  # half of it is not typed
LABELS = {"background": 0, "normal": 1, "abnormal": 2}
SPACING = (1.0, 1.0, 5.0)
Logits = NDArray[np.float32]


def case(name: str, labels: NDArray[np.uint8]) -> Case:
    """A case whose image is its label map."""
    affine = np.diag([*SPACING, 1.0])
    image = Volume(array=labels.astype(np.float32), affine=affine, path=Path(f"{name}.nii.gz"))
    return Case(name=name, image=image, label=Volume(array=labels, affine=affine, path=image.path))


def told(answers: NDArray[np.uint8]) -> Any:
    """A network that gives one answer whatever it sees."""
    return lambda _array: np.eye(3, dtype=np.float32)[answers][None]


def found(truth: NDArray[np.uint8], answers: NDArray[np.uint8], name: str = "a") -> Any:
    return segment(told(answers), [case(name, truth)], LABELS, window=(99, 99, 99), multiple=(1, 1, 1))[0]


def lung(*, abnormal: int) -> NDArray[np.uint8]:
    """A row of eight voxels of lung, of which the last ones are abnormal."""
    labels = np.zeros((12, 3, 2), dtype=np.uint8)
    labels[2:10, 1, 0] = 1
    labels[10 - abnormal : 10, 1, 0] = 2
    return labels


def test_each_region_is_measured_over_the_cases_that_have_it() -> None:
    truth, answer = lung(abnormal=4), lung(abnormal=2)
    items = [found(truth, answer), found(lung(abnormal=0), lung(abnormal=3), "b")]
    metrics = summarise(items, LABELS, tolerance=1.0)
    # Normal: 4 of 4 + 6 and 5 of 8 + 5 voxels; abnormal: 2 of 4 + 2, in the one case that has it.
    assert metrics["dice_normal"] == pytest.approx((2 * 4 / 10 + 2 * 5 / 13) / 2)
    assert metrics["dice_abnormal"] == pytest.approx(2 * 2 / 6)
    assert metrics["dice"] == pytest.approx((metrics["dice_normal"] + metrics["dice_abnormal"]) / 2)
    assert metrics["false_volume_abnormal"] == pytest.approx(3 * 5.0 / 1000)  # ml, of the case without
    assert metrics["outside_abnormal"] == pytest.approx(3 * 5.0 / 1000 / 2)  # of both cases
    assert metrics["surface_dice_abnormal"] == pytest.approx(5 / 6)  # all but the truth's voxel 2 mm away
    assert "false_volume_normal" not in metrics


def test_an_all_empty_prediction_scores_nothing_and_is_infinitely_far() -> None:
    nothing = np.zeros_like(lung(abnormal=0))
    metrics = summarise([found(lung(abnormal=2), nothing), found(lung(abnormal=0), nothing)], LABELS, tolerance=1.0)
    assert metrics["dice"] == metrics["dice_normal"] == metrics["surface_dice_abnormal"] == 0.0
    assert metrics["false_volume_abnormal"] == 0.0
    assert "hd95_abnormal" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_region_of_one_voxel_is_found_or_not() -> None:
    one = lung(abnormal=1)
    assert summarise([found(one, one)], LABELS, tolerance=0.0)["dice_abnormal"] == 1.0
    moved = one.copy()
    moved[9, 1] = (1, 2)  # the same place one slice higher: 5 mm
    metrics = summarise([found(one, moved)], LABELS, tolerance=4.9)
    assert metrics["dice_abnormal"] == metrics["surface_dice_abnormal"] == 0.0
    assert metrics["hd95_abnormal"] == pytest.approx(5.0)


def test_the_interval_leaves_out_resamples_without_a_region() -> None:
    items = [found(lung(abnormal=2), lung(abnormal=2)), found(lung(abnormal=0), lung(abnormal=1), "b")]
    interval = dice_interval(items, LABELS)
    assert interval.used < interval.asked
    # Twice the first case: 1. One of each: what both score together. Twice the second: no abnormal region, no Dice.
    assert interval.low == pytest.approx(summarise(items, LABELS, tolerance=1.0)["dice"])
    assert interval.high == 1.0


def test_a_prediction_that_is_not_a_number_is_background() -> None:
    broken = np.full((1, 12, 3, 2, 3), np.nan, dtype=np.float32)
    item = segment(lambda _a: broken, [case("a", lung(abnormal=1))], LABELS, window=(99,) * 3, multiple=(1,) * 3)[0]
    assert not item.prediction.any()


def test_the_table_of_cases_leaves_out_what_does_not_exist(tmp_path: Path) -> None:
    items = [found(lung(abnormal=0), lung(abnormal=0)), found(lung(abnormal=2), lung(abnormal=0), "b")]
    write_artifacts(tmp_path, items, LABELS, tolerance=1.0, predictions=False)
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [(row["case"], row["label"]) for row in rows][1::2] == [("a", "abnormal"), ("b", "abnormal")]
    assert (rows[1]["dice"], rows[1]["hd95_mm"], rows[1]["volume_ml"]) == ("", "", "0")
    assert (rows[3]["dice"], rows[3]["hd95_mm"], float(rows[3]["volume_ml"])) == ("0", "inf", 0.01)


def test_the_picture_shows_the_worst_the_median_and_the_best_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []
    monkeypatch.setattr(
        "workloads.evaluation.segmentation.write_overview", lambda path, shown, title: rows.extend([path, *shown])
    )
    truth = lung(abnormal=4)
    draw(tmp_path, [found(truth, lung(abnormal=n), str(n)) for n in (3, 0, 2, 4, 1)], LABELS)
    assert rows[0] == tmp_path / "overview.png"
    assert [[row[0].title, row[2].title[:16]] for row in rows[1:]] == [
        ["0", "prediction, Dice"],
        ["2", "prediction, Dice"],
        ["4", "prediction, Dice"],
    ]
    assert [sorted(np.unique(panel.labels)) for panel in rows[3][1:]] == [[0, 1, 2], [0, 1, 2]]
    rows.clear()
    empty = np.zeros_like(truth)
    draw(tmp_path, [found(empty, truth, "false"), found(truth, truth, "true")], LABELS)
    assert [row[0].title for row in rows[1:]] == ["false", "true"]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("network", "dimensions"), [(n, 2) for n in NETWORKS_2D] + [(n, 3) for n in NETWORKS_3D])
def test_a_network_answers_in_the_size_of_its_input(network: str, dimensions: int) -> None:
    for depth, dilations in ((1, 0), (3, 3)):
        model = segmenter(network, dimensions=dimensions, classes=3, filters=4, depth=depth, dilations=dilations)
        shape = (16, 8, 8)[:dimensions]
        answer = np.asarray(model(np.zeros((2, *shape, 1), dtype=np.float32)))
        answers = depth + 1 if network == "multiscale" else 1
        assert answer.shape == (2, *shape, 3 * answers)
        rates = [layer.dilation_rate[0] for layer in model.layers if hasattr(layer, "dilation_rate")]
        assert max(rates) == (2**dilations if network in DENSE else 1)
        assert not [layer for layer in model.layers if "MaxPool" in type(layer).__name__]


@pytest.mark.tensorflow
def test_dense_pooling_hands_every_level_on_to_all_below_it_and_multiscale_the_image_too() -> None:
    def pools(network: str) -> list[int]:
        model = segmenter(network, dimensions=3, classes=2, filters=4, depth=3)
        return sorted(layer.pool_size[0] for layer in model.layers if "Pooling" in type(layer).__name__)

    assert pools("unet") == [2, 2, 2]
    assert pools("dense") == [2, 2, 2, 4, 4, 8]
    assert pools("multiscale") == [2, 2, 2, 2, 2, 2, 4, 4, 8]


@pytest.mark.parametrize("regions", [0, 1, 6])
def test_a_chest_has_two_lungs_and_abnormal_regions_within_them(regions: int) -> None:
    for seed in range(4):
        made = make_case(np.random.default_rng(seed), LungPhantom(), regions)
        normal, abnormal = made.label == 1, made.label == 2
        assert normal.mean() > 0.05
        assert abnormal.any() == (regions > 0)
        assert made.image[normal].mean() < -600 < made.image[made.label == 0].mean()
        if regions:
            assert made.image[abnormal].mean() > made.image[normal].mean() + 100


@pytest.fixture(scope="module")
def trained(lungs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A small training of each kind."""
    common = ["--data", str(lungs), "--seed", "1", "--report-every", "9"]
    arguments = {
        "covid-2d": ["--epochs", "6", "--patches", "64", "--set", "dilations=1"],
        "covid-3d": ["--epochs", "5", "--patches", "48", "--test", "--set", "batch_size=2", "--set", "filters=4"],
    }
    found = {}
    for task, own in arguments.items():
        out = tmp_path_factory.mktemp(task) / "trial"
        found[task] = (out, trial(task, out, *common, *own))
    return found


@pytest.mark.tensorflow
@pytest.mark.parametrize("task", ["covid-2d", "covid-3d"])
def test_a_trained_network_beats_calling_everything_normal_lung(
    trained: dict[str, tuple[Path, Any]], lungs: Path, task: str
) -> None:
    metrics = trained[task][1]["metrics"]
    dataset = open_dataset(lungs)
    truths = [load_case(dataset, name).label.array for name in read_split(lungs / "splits.json", dataset).validation]
    # Every voxel of lung, and no other, called normal; nothing abnormal.
    trivial = float(np.mean([dice(truth > 0, truth == 1) for truth in truths])) / 2
    assert metrics["dice_normal"] > 0.7
    assert metrics["dice"] > 0.52 > trivial
    assert {"dice_abnormal", "surface_dice_abnormal", "train_seconds"} <= set(metrics)


@pytest.mark.tensorflow
def test_a_result_of_segmentation_says_what_it_stands_on(trained: dict[str, tuple[Path, Any]]) -> None:
    out, result = trained["covid-3d"]
    info = result["info"]
    assert info["dice_interval"]["low"] <= result["metrics"]["dice"] <= info["dice_interval"]["high"]
    assert info["tolerance_mm"] == 10.0
    assert info["params"]["network"] == "multiscale"
    assert info["peak_memory_mib"] < 1500
    assert "test_dice" in result["metrics"]
    assert (out / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "progress.jsonl").read_text())["value"] == result["metrics"]["dice"]
    with zipfile.ZipFile(out / "artifacts" / "model.keras") as model:
        assert model.testzip() is None


@pytest.mark.tensorflow
def test_masks_lie_in_the_geometry_of_their_images(trained: dict[str, tuple[Path, Any]], lungs: Path) -> None:
    for task, folder in (("covid-2d", "predictions"), ("covid-3d", "test/predictions")):
        paths = sorted((trained[task][0] / "artifacts" / folder).iterdir())
        assert paths
        for path in paths:
            prediction = nib.load(path)
            image = nib.load(lungs / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
            assert prediction.shape == image.shape
            assert np.array_equal(prediction.affine, image.affine)
            assert set(np.unique(np.asarray(prediction.dataobj))) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "depth=3", "--patch", "16", "16", "12"], "must be multiples of 8, not (16, 16, 12)"),
        (["--patch", "64", "64", "64"], "a patch of (64, 64, 64) voxels is larger than the volume"),
        (["--tolerance", "-1"], "--tolerance must not be negative"),
        (["--set", "network=vnet"], "'vnet' is not a choice"),
        (["--set", "overlap=dise"], "did you mean 'dice'?"),
        (["--fold", "2"], "holds one split and no folds"),
    ],
)
def test_what_cannot_be_segmented_is_refused(
    lungs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["covid-3d", "--data", str(lungs), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_region_that_no_training_case_has_is_named(
    lungs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset(lungs)
    without = [name for name in dataset.files if not (load_case(dataset, name).label.array == 2).any()]
    others = [name for name in dataset.files if name not in without]
    (tmp_path / "s.json").write_text(json.dumps({"train": without, "validation": others}))
    assert main(["covid-2d", "--data", str(lungs), "--split", str(tmp_path / "s.json")]) == 2
    assert 'no case of the split\'s "train" has label "abnormal"' in capsys.readouterr().err


def test_labels_with_a_gap_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((16, 16, 16), dtype=np.uint8)
    for name in ("a", "b"):
        write_volume(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", labels.astype(np.int16), np.eye(4))
        write_volume(tmp_path / "labelsTr" / f"{name}.nii.gz", labels, np.eye(4))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lung": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    assert main(["covid-3d", "--data", str(tmp_path)]) == 2
    assert "labels are numbered [0, 3]" in capsys.readouterr().err


def test_test_cases_that_the_split_does_not_have_are_missed_before_training(
    lungs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(open_dataset(lungs).files)
    (tmp_path / "s.json").write_text(json.dumps({"train": names[:8], "validation": names[8:]}))
    assert main(["covid-3d", "--data", str(lungs), "--split", str(tmp_path / "s.json"), "--test"]) == 2
    assert "the split has no test cases" in capsys.readouterr().err
