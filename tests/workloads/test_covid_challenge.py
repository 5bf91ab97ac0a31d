"""An ensemble of two networks: their mean on one grid, each beside it, and a training cut short in the second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.nifti import Volume
from workloads.data.splits import read_split
from workloads.evaluation.segmentation import Segmented, dice_interval, judge
from workloads.metrics.overlap import mean_dice_of_lesion_cases
from workloads.trials.ensemble import coarse_spacing, onto

LABELS = {"background": 0, "lesion": 1}


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small chests whose lesions alone are labelled; tests must not change them."""
    folder = tmp_path_factory.mktemp("challenge") / "data"
    sizes = ["--train", "8", "--validation", "4", "--test", "0", "--shape", "32", "32", "16", "--noise", "30"]
    assert main(["phantom", "covid-challenge", "--out", str(folder), "--seed", "3", *sizes]) == 0
    return folder


def block(shape: tuple[int, int, int], spacing: tuple[float, float, float], corner: float = 0.0) -> Case:
    """A case of zeros whose outer edge lies at ``corner`` mm along each axis."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = corner + np.asarray(spacing) / 2.0
    zeros = Volume(array=np.zeros(shape, dtype=np.float32), affine=affine, path=Path("x.nii.gz"))
    return Case(name="x", image=zeros, label=Volume(array=zeros.array.astype(np.uint8), affine=affine, path=zeros.path))


def test_thick_slices_stay_until_the_pixels_are_as_wide() -> None:
    cases = [block((4, 4, 4), (2.0, 2.0, 5.0)), block((4, 4, 4), (2.0, 2.0, 5.0)), block((4, 4, 4), (1.0, 1.0, 1.0))]
    assert coarse_spacing(cases, 1.5) == (3.0, 3.0, 5.0)
    assert coarse_spacing(cases, 3.0) == (6.0, 6.0, 6.0)


def test_what_a_coarse_grid_says_comes_back_to_the_same_place() -> None:
    fine, coarse = block((12, 12, 8), (2.0, 2.0, 3.0), -5.0), block((6, 8, 4), (4.0, 3.0, 6.0), -5.0)

    def slope(case: Case) -> Any:
        """A field that rises evenly, in mm; linear interpolation gives it exactly."""
        indices = np.stack([*np.indices(case.image.array.shape), np.ones(case.image.array.shape)], axis=-1)
        return (indices @ case.image.affine.T)[..., :3] @ np.array([1.0, 2.0, 3.0])

    field = np.stack([slope(coarse), -slope(coarse)], axis=-1).astype(np.float32)
    moved = onto(field, coarse, fine)
    within = np.s_[1:-1, 1:-1, 1:-1]
    assert moved.shape == (12, 12, 8, 2)
    assert np.allclose(moved[..., 0][within], slope(fine)[within], atol=1e-4)
    assert np.allclose(moved[..., 1][within], -slope(fine)[within], atol=1e-4)


def test_the_gain_is_paired_case_by_case() -> None:
    """One network misses the same share of every lesion: its own Dice varies, the difference to it does not."""
    true = block((8, 4, 4), (1.0, 1.0, 1.0))
    items: list[Segmented] = []
    others: list[Segmented] = []
    for size in (2, 4):
        truth = np.zeros_like(true.label.array)
        truth[:size, :2, :] = 1
        case = Case(name="x", image=true.image, label=Volume(array=truth, affine=np.eye(4), path=Path()))
        half = truth.copy()
        half[:, 1] = 0
        for found, answer in ((items, truth), (others, half)):
            found.append(judge(case, np.eye(2)[answer], LABELS))
    gain = dice_interval(items, LABELS, other=others)
    assert (gain.low, gain.high) == pytest.approx((1.0 / 3.0, 1.0 / 3.0))


def train(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    sets = [f"{name}={value}" for name, value in {"depth_2d": 1, "depth_3d": 1, "filters_2d": 4}.items()]
    options = ["--data", str(data), "--seed", "1", *(word for each in sets for word in ("--set", each))]
    return trial_here("covid-challenge", out, monkeypatch, *options, *arguments)


FAST = {"learning_rate_2d": 0.02, "learning_rate_3d": 0.02, "batch_size_2d": 2}
LONG = ["--epochs", "5", "--patches", "80", "--report-every", "9"]
LONG += [word for name, value in FAST.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.tensorflow
def test_the_ensemble_beats_the_best_range_of_hounsfield_units(
    lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(lesions, tmp_path, monkeypatch, *LONG)
    metrics, info = result["metrics"], result["info"]
    dataset = open_dataset(lesions)
    cases = [load_case(dataset, name) for name in read_split(lesions / "splits.json", dataset).validation]
    best = max(
        mean_dice_of_lesion_cases(
            [((case.image.array > low) & (case.image.array < high), case.lesion) for case in cases]
        )
        for low in np.arange(-0.6, 1.0, 0.2)
        for high in np.arange(low + 0.2, 1.5, 0.2)
    )
    assert metrics["dice"] > best + 0.05
    assert metrics["gain_over_2d"] == pytest.approx(metrics["dice"] - metrics["dice_2d"])
    assert metrics["gain_over_3d"] == pytest.approx(metrics["dice"] - metrics["dice_3d"])
    for name in ("2d", "3d"):
        interval = info[f"gain_over_{name}_interval"]
        assert interval["low"] <= metrics[f"gain_over_{name}"] <= interval["high"]
        assert (tmp_path / "artifacts" / name / "cases.csv").exists()
        assert (tmp_path / "artifacts" / f"model-{name}.keras").exists()
        assert len(info["losses"][name]) == 5
    assert (tmp_path / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "artifacts" / "predictions").iterdir())) == 4


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_training_cut_short_in_the_second_network_goes_on_there_and_ends_as_if_it_had_not_been(
    lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["--epochs", "2", "--patches", "8", "--report-every", "1", "--no-predictions", "--set", "filters_3d=4"]
    whole = train(lesions, tmp_path / "whole", monkeypatch, *short)
    cut = tmp_path / "cut"
    reported: list[int] = []

    def report(step: int, _value: float) -> None:
        reported.append(step)
        if step == 3:
            (cut / "stop").write_text("walltime\n")

    monkeypatch.setattr("orchestrator.trial.report", report)
    with pytest.raises(SystemExit) as ended:
        train(lesions, cut, monkeypatch, *short)
    assert ended.value.code == 85
    (cut / "stop").unlink()
    resumed = train(lesions, cut, monkeypatch, *short)
    assert reported == [1, 3, 4]  # of each network the first epoch, and the end; none twice
    for result in (whole, resumed):
        del result["metrics"]["train_seconds"]
    assert json.dumps(resumed["metrics"]) == json.dumps(whole["metrics"])
    assert resumed["info"]["losses"] == whole["info"]["losses"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch-3d", "16", "16", "12", "--set", "depth_3d=3"], "must be multiples of 8, not (16, 16, 12)"),
        (["--patch-3d", "32", "32", "16"], "a patch of (32, 32, 16) voxels is larger than the volume"),
        (["--set", "learning_rate=0.1"], "did you mean 'learning_rate_"),
        (["--tolerance", "-1"], "--tolerance must not be negative"),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused(
    lesions: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["covid-challenge", "--data", str(lesions), *arguments]) == 2
    assert message in capsys.readouterr().err
