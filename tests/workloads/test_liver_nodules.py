"""Liver nodules: phantoms that no single phase gives away, phases that are all needed, networks along the phase axis."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import Case, load_case, open_dataset
from workloads.data.splits import read_split
from workloads.metrics.candidates import find_candidates
from workloads.metrics.froc import froc, partial_area
from workloads.metrics.matching import Matching, MatchRule, label_lesions, match
from workloads.models.phase_detector import phase_detector
from workloads.parameters import resolve
from workloads.phantoms.liver import PHASES, LiverPhantom, make_case
from workloads.tasks.liver_nodules import PARAMETERS

Array = NDArray[np.floating]


@pytest.fixture(scope="module")
def livers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("livers") / "data"
    sizes = ["--train", "16", "--validation", "12", "--test", "4", "--noise", "0.06", "--confounders", "1.2"]
    assert main(["phantom", "liver-nodules", "--out", str(folder), "--seed", "3", *sizes]) == 0
    return folder


def area(cases: Sequence[Case], score: Callable[[Array], Array]) -> float:
    """FROC area to 10 of a map that is made of intensities."""
    inside = Matching(rule=MatchRule.INSIDE, length=0.0)
    found = []
    for case in cases:
        spots = find_candidates(score(case.image.array), case.image.spacing, smoothing=1.5)
        found.append(match(case.name, spots, case.lesion, case.image.spacing, inside))
    return partial_area(froc(found), 10.0)


def single(phase: int, sign: float) -> Callable[[Array], Array]:
    return lambda image: sign * image[..., phase]


def best_single(cases: Sequence[Case]) -> float:
    """The best of what is brightest and what is darkest in one of the phases."""
    return max(area(cases, single(phase, sign)) for phase in range(len(PHASES)) for sign in (1.0, -1.0))


def validation(folder: Path) -> list[Case]:
    dataset = open_dataset(folder, channels=PHASES)
    return [load_case(dataset, name) for name in read_split(folder / "splits.json", dataset).validation]


def test_a_nodule_lights_up_washes_out_and_leaves_a_defect() -> None:
    for seed in range(4):
        case = make_case(np.random.default_rng(seed), LiverPhantom(confounders=0.0, noise=0.01), 2)
        assert case.image.shape == (*case.label.shape, len(PHASES))
        mask = case.label > 0
        assert label_lesions(mask)[1] == 2
        around = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask)
        signals = [float(np.mean(case.image[mask, k]) / np.median(case.image[around, k])) for k in range(len(PHASES))]
        assert signals[1] > 1.1
        assert max(signals[2:]) < 1.0
        assert min(signals) == signals[4]


def test_no_single_phase_finds_the_nodules_but_several_together_do(livers: Path) -> None:
    cases = validation(livers)
    together = area(cases, lambda image: 2.0 * image[..., 1] - image[..., 2] - image[..., 3] - image[..., 4])
    assert together > best_single(cases) + 0.3


def test_the_same_seed_makes_the_same_liver_and_a_block_too_small_is_refused() -> None:
    one, same, other = (make_case(np.random.default_rng(seed), LiverPhantom(), 1) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.affine, same.affine)
    assert not np.array_equal(one.image, other.image)
    with pytest.raises(ValueError, match="no room for 1 nodules"):
        make_case(np.random.default_rng(0), LiverPhantom(shape=(4, 4, 4)), 1)


def test_the_phases_seen_to_each_side_exist_only_where_phases_are_an_axis() -> None:
    assert resolve(PARAMETERS, {})["reach"] == 1
    assert "reach" not in resolve(PARAMETERS, {"phases": "channels", "reach": 2})


def test_a_missing_and_a_misaligned_phase_are_refused_before_anything_is_trained(
    livers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("workloads.trials.detection.import_tensorflow", lambda **_: pytest.fail("TensorFlow is loaded"))
    own = Path(shutil.copytree(livers, tmp_path / "own"))
    arterial, late = (own / "imagesTr" / f"liver_0002_000{phase}.nii.gz" for phase in (1, 4))
    late.write_bytes((own / "imagesTr" / "liver_0003_0004.nii.gz").read_bytes())
    assert main(["liver-nodules", "--data", str(own)]) == 2
    assert "liver_0002_0004.nii.gz: its affine is not that of" in capsys.readouterr().err
    arterial.unlink()
    assert main(["liver-nodules", "--data", str(own)]) == 2
    assert "liver_0002_0001.nii.gz: no such file: case 'liver_0002' lacks its channel 'arterial'" in (
        capsys.readouterr().err
    )
    description = json.loads((own / "dataset.json").read_text())
    del description["channel_names"]["4"]
    (own / "dataset.json").write_text(json.dumps(description))
    assert main(["liver-nodules", "--data", str(own)]) == 2
    assert "has no channel 'hepatobiliary'" in capsys.readouterr().err


@pytest.mark.tensorflow
@pytest.mark.parametrize(("arrangement", "reach", "seen"), [("axis", 1, 3), ("axis", 0, 1), ("channels", 0, 5)])
def test_one_kernel_goes_along_the_phases(arrangement: str, reach: int, seen: int, tmp_path: Path) -> None:
    from tensorflow import keras

    model = phase_detector(phases=5, arrangement=arrangement, reach=reach, width=4, layers=2)
    kernels = [tuple(layer.kernel.shape) for layer in model.layers if isinstance(layer, keras.layers.Conv3D)]
    assert kernels[0] == (3, 3, 3, seen, 4)
    # As many convolutions as layers, however many phases there are.
    assert len([kernel for kernel in kernels if kernel[0] == 3]) == 3
    image = np.random.default_rng(0).normal(size=(1, 6, 4, 4, 5)).astype(np.float32)
    answer = np.asarray(model(image))
    assert answer.shape == (1, 6, 4, 4, 1)
    model.save(tmp_path / "model.keras")
    assert np.allclose(np.asarray(keras.models.load_model(tmp_path / "model.keras")(image)), answer, atol=1e-5)


@pytest.mark.tensorflow
def test_a_convolution_along_the_phases_is_one_in_four_dimensions() -> None:
    from tensorflow import keras

    model = phase_detector(phases=5, arrangement="axis", reach=1, width=1, layers=1)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv3D))
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 6, 5)).astype(np.float32)
    joined = next(layer for layer in model.layers if isinstance(layer, keras.layers.AveragePooling3D))
    features = np.asarray(keras.Model(model.input, joined.input)(image))[
        0, ..., 0
    ]  # of the first phase, after its relu
    weights = np.asarray(first.kernel)[..., 0]
    expected = sum(
        ndimage.correlate(image[0, ..., max(phase, 0)], weights[..., index], mode="constant")
        for index, phase in enumerate((-1, 0, 1))
    )
    assert np.allclose(features, np.maximum(np.asarray(expected), 0.0), atol=1e-4)


@pytest.fixture(scope="module")
def trained(livers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("liver") / "trial"
    with pytest.MonkeyPatch.context() as patch:
        settings = ("--set", "width=3", "--set", "layers=1", "--report-every", "5", "--epochs", "5", "--seed", "1")
        return out, trial_here("liver-nodules", out, patch, "--data", str(livers), *settings)


@pytest.mark.tensorflow
def test_a_trained_detector_beats_the_best_single_phase(trained: tuple[Path, Any], livers: Path) -> None:
    metrics = trained[1]["metrics"]
    assert metrics["pauc_10"] > best_single(validation(livers)) + 0.2
    assert 0.0 <= metrics["fps_at_half"] < 5.0
    assert metrics["sensitivity_8fp"] >= 0.5


@pytest.mark.tensorflow
def test_what_was_found_is_drawn_and_kept(trained: tuple[Path, Any]) -> None:
    out, result = trained
    assert (out / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "artifacts" / "predictions").iterdir())) == 12
    interval = result["info"]["pauc_10_interval"]
    assert interval["low"] <= result["metrics"]["pauc_10"] <= interval["high"]


@pytest.mark.tensorflow
def test_the_same_seed_gives_the_same_detector(livers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--data", str(livers), "--epochs", "1", "--patches", "8", "--set", "phases=channels", "--no-predictions")
    one, same = (
        trial_here("liver-nodules", tmp_path / name, monkeypatch, *small, "--seed", "4") for name in ("one", "same")
    )
    assert one["info"]["losses"] == same["info"]["losses"]
    assert one["metrics"]["pauc_10"] == same["metrics"]["pauc_10"]
