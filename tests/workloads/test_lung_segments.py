"""Segments of the lungs from points: files of points, places in the patient, a loss at points alone, and a training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.nifti import Volume, write_volume
from workloads.data.points import Points, read_points
from workloads.data.splits import read_split
from workloads.errors import WorkloadError
from workloads.evaluation.segments import Partitioned, accuracy_interval, summarise
from workloads.phantoms.segments import LABELS, SegmentsPhantom, make_case
from workloads.trials.sparse_points import lung_grid, point_loss

SEGMENTS = {name: number for name, number in LABELS.items() if number}


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lungs with points in their segments; tests must not change them."""
    folder = tmp_path_factory.mktemp("segments") / "data"
    sizes = ["--train", "16", "--validation", "8", "--test", "0", "--points", "60"]
    assert main(["phantom", "lung-segments", "--out", str(folder), "--seed", "1", *sizes]) == 0
    return folder


@pytest.fixture
def copy(chests: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(chests, tmp_path / "data"))


def test_points_lie_in_the_segments_that_they_name(chests: Path) -> None:
    dataset = open_dataset(chests)
    for name in list(dataset.files)[:6]:
        case = load_case(dataset, name)
        points = read_points(chests, case, SEGMENTS)
        voxels = np.rint(points.voxels).astype(int)
        assert np.array_equal(case.label.array[tuple(voxels.T)], points.segments)


def test_the_right_lung_has_ten_segments_and_lies_on_the_patients_right() -> None:
    flips = set()
    for seed in range(4):
        case = make_case(np.random.default_rng(seed), SegmentsPhantom())
        place = np.argwhere(case.label > 0) @ case.affine[:3, :3].T
        of = case.label[case.label > 0]
        assert place[of <= 10, 0].min() > place[of > 10, 0].max()
        # The apex above the base, the posterior segment behind the anterior one.
        assert place[of == 1, 2].mean() > place[of == 10, 2].mean() + 50
        assert place[of == 2, 1].mean() < place[of == 3, 1].mean() - 30
        flips.add(bool(case.affine[0, 0] > 0))
    assert flips == {True, False}


def test_the_same_places_are_read_from_json_in_ras_and_lps_and_from_csv(copy: Path) -> None:
    dataset = open_dataset(copy)
    case = load_case(dataset, next(iter(dataset.files)))
    path = copy / "pointsTr" / f"{case.name}.json"
    first = read_points(copy, case, SEGMENTS)
    content = json.loads(path.read_text())
    for point in content["points"]:
        x, y, z = point["position"]
        point["position"] = [-x, -y, z]
        point["segment"] = next(name for name, number in SEGMENTS.items() if number == point["segment"])
    path.write_text(json.dumps({**content, "coordinates": "LPS"}))
    turned = read_points(copy, case, SEGMENTS)
    path.unlink()
    with path.with_suffix(".csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["segment", "x_mm", "y_mm", "z_mm"])
        rows.writerows([number, *place] for number, place in zip(first.segments, first.positions, strict=True))
    listed = read_points(copy, case, SEGMENTS)
    for other in (turned, listed):
        assert np.array_equal(other.segments, first.segments)
        assert np.allclose(other.voxels, first.voxels)


FAR = {"segment": 1, "position": [9999.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"points": [FAR]}, "point 1 at (9999.0, 0.0, 0.0) mm lies outside of the volume"),
        ({"points": [{**FAR, "segment": 19}]}, "point 1: dataset.json has no segment 19"),
        ({"points": [{**FAR, "segment": "right_S11"}]}, "no segment 'right_S11'"),
        ({"points": [{"segment": 1, "position": [1, 2]}]}, "point 1 has no position of three numbers"),
        ({"points": [{"segment": 1}]}, "point 1 has no position of three numbers"),
        ({"points": [{**FAR, "position": [float("nan"), 0, 0]}]}, "is not finite"),
        ({"points": []}, "holds no point"),
        ({"points": {}}, '"points" is no list of points'),
        ({"points": [FAR], "coordinates": "RPI"}, "\"coordinates\" is 'RPI'"),
    ],
)
def test_points_that_cannot_be_used_are_named_before_tensorflow_is_loaded(
    copy: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], message: str
) -> None:
    (copy / "pointsTr" / "segments_0003.json").write_text(json.dumps(content))
    assert main(["lung-segments", "--data", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "pointsTr/segments_0003.json" in said
    assert message in said


def test_a_case_needs_points(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "pointsTr" / "segments_0001.json").unlink()
    assert main(["lung-segments", "--data", str(copy)]) == 2
    assert "pointsTr/segments_0001.json: no such file, nor as .csv" in capsys.readouterr().err


def test_a_point_beside_the_lungs_and_a_case_without_lung_are_refused(chests: Path) -> None:
    dataset = open_dataset(chests)
    case = load_case(dataset, next(iter(dataset.files)))
    zero = Points(segments=np.array([1]), positions=np.zeros((1, 3)), voxels=np.zeros((1, 3)), path=Path("x.json"))
    with pytest.raises(WorkloadError, match=r"x.json: point 1 at \(0.0, 0.0, 0.0\) mm lies outside of the lungs"):
        lung_grid(case, zero, (8, 8, 8))
    case.label.array[:] = 0
    with pytest.raises(WorkloadError, match="marks no lung"):
        lung_grid(case, zero, (8, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "16"], "--window has no meaning here"),
        (["--patch", "24", "16", "18"], "must be multiples of 4, not (24, 16, 18)"),
        (["--set", "coordinates=world"], "'world' is not a choice"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    chests: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["lung-segments", "--data", str(chests), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_grid_of_the_lungs_keeps_places(chests: Path) -> None:
    """What shows the place itself, brought to the grid, shows at each of its voxels the place that it stands for."""
    dataset = open_dataset(chests)
    case = load_case(dataset, next(iter(dataset.files)))
    points = read_points(chests, case, SEGMENTS)
    case.image.array[:] = np.arange(case.image.array.shape[2])
    grid = lung_grid(case, points, (12, 12, 12))
    expected = np.arange(12) * grid.scale[2] + grid.offset[2]
    assert np.allclose(grid.image[5, 5, 1:-1], expected[1:-1], atol=1e-3)
    back = grid.points * grid.scale + grid.offset
    assert (np.abs(back - points.voxels) <= grid.scale / 2 + 1e-9).all()


@pytest.mark.tensorflow
def test_the_loss_is_of_the_points_alone() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 3, 3, 4)).astype(np.float32)
    targets = np.zeros((2, 2, 5), dtype=np.float32)
    targets[0, 0] = [1, 2, 0, 3, 1]
    targets[1] = [[0, 0, 1, 2, 1], [2, 2, 2, 0, 0]]  # the last one has no weight
    chosen = np.stack([logits[0, 1, 2, 0], logits[1, 0, 0, 1]]).astype(float)
    right = chosen[[0, 1], [3, 2]]
    expected = float(np.mean(np.log(np.exp(chosen).sum(axis=1)) - right))
    loss = point_loss()
    assert float(loss(targets, logits)) == pytest.approx(expected, rel=1e-5)
    logits[0, 0, 0, 0] = 50.0
    assert float(loss(targets, logits)) == pytest.approx(expected, rel=1e-5)


def partitioned(at_points: list[int], truth: list[int], *, dense: bool, prediction: NDArray[np.uint8]) -> Partitioned:
    label = np.array([[[1, 1, 2, 2]]], dtype=np.uint8)
    volume = Volume(array=label, affine=np.eye(4), path=Path("x.nii.gz"))
    places = np.zeros((len(truth), 3))
    points = Points(segments=np.array(truth), positions=places, voxels=places, path=Path())
    case = Case(name="x", image=volume, label=volume)
    return Partitioned(case=case, points=points, prediction=prediction, at_points=np.array(at_points), dense=dense)


def test_accuracy_is_over_all_points_and_dice_over_cases_with_dense_truth() -> None:
    answer = np.array([[[1, 2, 2, 2]]], dtype=np.uint8)
    items = [
        partitioned([1, 1, 2], [1, 1, 1], dense=True, prediction=answer),
        partitioned([2], [2], dense=False, prediction=answer),
    ]
    metrics = summarise(items, {"a": 1, "b": 2})
    assert metrics["accuracy"] == pytest.approx(3 / 4)
    assert metrics["accuracy_worst"] == pytest.approx(2 / 3)
    assert metrics["dice"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert "dice" not in summarise(items[1:], {"a": 1, "b": 2})
    interval = accuracy_interval(items)
    assert (interval.low, interval.high) == pytest.approx((2 / 3, 1.0))


def train(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    return trial_here("lung-segments", out, monkeypatch, "--data", str(data), "--seed", "1", *arguments)


def relative(root: Path, names: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Places of all points in the boxes of their lungs, and their segments."""
    dataset, places, segments = open_dataset(root), [], []
    for name in names:
        case = load_case(dataset, name)
        points = read_points(root, case, SEGMENTS)
        occupied = np.argwhere(case.lesion)
        low, high = occupied.min(axis=0), occupied.max(axis=0)
        places.append((points.voxels - low) / (high - low))
        segments.append(points.segments)
    return np.concatenate(places), np.concatenate(segments)


@pytest.mark.tensorflow
def test_the_trained_network_beats_the_nearest_labelled_point_and_the_commonest_segment(
    chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--epochs", "10", "--patches", "32", "--report-every", "99", "--patch", "16", "12", "16"]
    result = train(chests, tmp_path, monkeypatch, *small)
    split = read_split(chests / "splits.json", open_dataset(chests))
    known, known_segments = relative(chests, split.train)
    asked, true = relative(chests, split.validation)
    nearest = float(np.mean(known_segments[cKDTree(known).query(asked)[1]] == true))
    commonest = float(np.mean(true == np.bincount(known_segments).argmax()))
    assert result["metrics"]["accuracy"] > nearest + 0.02 > commonest
    assert result["metrics"]["dice"] > 0.4
    assert result["info"]["points"] == {"train": 960, "validation": 480, "test": 0}
    artifacts = tmp_path / "artifacts"
    assert (artifacts / "overview.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((artifacts / "points.csv").read_text().splitlines()))
    right = sum(row["segment"] == row["found"] for row in rows)
    assert right / len(rows) == pytest.approx(result["metrics"]["accuracy"])
    assert len(list((artifacts / "predictions").iterdir())) == 8


@pytest.mark.tensorflow
def test_a_mask_of_the_lungs_is_enough(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no segment is annotated but at points, the label map says no more than lung; there is no Dice."""
    dataset = open_dataset(copy)
    for *_, label in dataset.files.values():
        volume = load_case(dataset, label.name.removesuffix(".nii.gz")).label
        write_volume(label, np.where(volume.array > 0, 19, 0).astype(np.uint8), volume.affine)
    content = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**content, "labels": {**content["labels"], "ignore": 19}}))
    metrics = train(copy, tmp_path / "t", monkeypatch, "--epochs", "1", "--patches", "2", "--set", "filters=4")[
        "metrics"
    ]
    assert "accuracy" in metrics
    assert "dice" not in metrics
