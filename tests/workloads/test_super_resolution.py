"""Thin slices from thick ones: geometry that follows the slices, networks that beat interpolation, exact resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.nifti import Volume, read_volume, write_volume
from workloads.data.slabs import cubic_weights, load_thick, open_images, thicken
from workloads.metrics.image_quality import psnr
from workloads.models.super_resolver import discriminator, generator
from workloads.training.adversarial import adversarial_loss, with_adversary

PROGRAM = Path(__file__).with_name("trial_on_devices.py")
SMALL = ["--patch", "12", "--patches", "32", "--set", "filters=8"]


def test_a_thick_slice_is_the_mean_of_thin_ones_and_lies_in_their_middle() -> None:
    array = np.random.default_rng(0).normal(size=(3, 2, 9)).astype(np.float32)
    affine = np.array([[-2.0, 0, 0, 5], [0, 2.0, 0, 6], [0, 0.5, 3.0, 7], [0, 0, 0, 1]])
    thin = Volume(array=array, affine=affine, path=Path("a"))
    thick = thicken(thin, 4)
    assert thick.array.shape == (3, 2, 2)  # the ninth slice is of no whole one
    assert thick.array[..., 1] == pytest.approx(array[..., 4:8].mean(axis=2))
    middle = (np.array(thin.position((1, 1, 4))) + np.array(thin.position((1, 1, 7)))) / 2.0
    assert thick.position((1, 1, 1)) == pytest.approx(middle)
    assert thick.spacing == pytest.approx((*thin.spacing[:2], 12.0))


def test_cubic_interpolation_keeps_a_constant_and_a_ramp_and_passes_through_the_slices() -> None:
    weights = cubic_weights(6, 4).astype(float)
    assert weights.sum(axis=1) == pytest.approx(np.ones(24))
    place = (np.arange(24) + 0.5) / 4 - 0.5
    assert (weights @ np.arange(6))[6:18] == pytest.approx(place[6:18])
    # At an odd factor each slice lies on a thin one.
    assert cubic_weights(5, 3)[1::3] == pytest.approx(np.eye(5))


def test_cubic_interpolation_is_nearer_to_a_smooth_image_than_the_thick_slices_repeated() -> None:
    smooth = np.sin(np.arange(48) / 6.0)
    thick = smooth.reshape(12, 4).mean(axis=1)
    truth = smooth[8:40]
    cubic, repeated = (cubic_weights(12, 4) @ thick)[8:40], np.repeat(thick, 4)[8:40]
    assert psnr(truth, cubic, data_range=2.0) > psnr(truth, repeated, data_range=2.0) + 6.0


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chests") / "data"
    sizes = ["--train", "4", "--validation", "2", "--test", "1", "--shape", "28", "24", "32"]
    assert main(["phantom", "super-resolution", "--out", str(folder), "--seed", "2", *sizes]) == 0
    return folder


@pytest.mark.tensorflow
def test_srcnn_beats_bicubic_interpolation(chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--data", str(chests), "--epochs", "10", "--patches", "64", "--patch", "16", "--test"]
    result = trial_here("super-resolution", tmp_path / "t", monkeypatch, *arguments)
    metrics, artifacts = result["metrics"], tmp_path / "t" / "artifacts"
    dataset = open_images(chests)
    names = json.loads((chests / "splits.json").read_text())["validation"]
    cases = [load_thick(dataset, name, factor=4, values=(-1000.0, 400.0)) for name in names]
    bicubic = float(np.mean([psnr(case.thin.array, case.cubic, data_range=2.0) for case in cases]))
    assert metrics["psnr_bicubic"] == pytest.approx(bicubic)
    assert metrics["psnr"] == metrics["psnr_srcnn"] > bicubic + 0.5
    assert metrics["ssim"] > metrics["ssim_bicubic"]
    assert metrics["test_psnr"] > metrics["test_psnr_bicubic"]
    assert result["info"]["gain_interval"]["low"] > 0
    assert result["info"]["data_range"] == 1400.0
    assert (artifacts / "overview.png").is_file()
    truth = read_volume(chests / "imagesTr" / f"{names[0]}_0000.nii.gz")
    made, thick = (read_volume(artifacts / kind / f"{names[0]}.nii.gz") for kind in ("predictions", "thick"))
    assert np.allclose(made.affine, truth.affine, atol=1e-4)
    assert made.array.shape == truth.array.shape
    assert thick.spacing == pytest.approx((*truth.spacing[:2], 4 * truth.spacing[2]))
    clipped = np.clip(truth.array, -1000, 400)
    assert psnr(clipped, made.array, data_range=1400.0) == pytest.approx(
        float((artifacts / "cases.csv").read_text().splitlines()[3].split(",")[2]), abs=0.01
    )


@pytest.mark.tensorflow
def test_an_adversarial_training_that_meets_its_walltime_goes_on_as_if_it_had_not(
    chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(chests), "--epochs", "3", *SMALL, "--no-predictions"]
    arguments += ["--set", "method=pix2pix", "--set", "dropout=0.3", "--set", "adversarial_weight=0.1"]
    whole = trial_here("super-resolution", tmp_path / "whole", monkeypatch, *arguments)
    cut = tmp_path / "cut"
    cut.mkdir()
    for _ in range(2):
        (cut / "stop").write_text("walltime\n")
        with pytest.raises(SystemExit) as ended:
            trial_here("super-resolution", cut, monkeypatch, *arguments)
        assert ended.value.code == 85
        assert not (cut / "result.json").exists()
    (cut / "stop").unlink()
    result = trial_here("super-resolution", cut, monkeypatch, *arguments)
    assert result["info"]["losses"] == whole["info"]["losses"]
    assert len(whole["info"]["losses"]) == 3
    assert result["metrics"]["psnr"] == whole["metrics"]["psnr"]


@pytest.mark.tensorflow
def test_each_of_the_two_losses_reaches_its_own_network_alone() -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    maker, adversary = generator("pix2pix", filters=4), discriminator(2, filters=4)
    for variable in (*maker.trainable_variables, *adversary.trainable_variables):
        variable.assign_add(tf.random.normal(variable.shape, stddev=0.1))
    inputs, targets = tf.random.normal((2, 3, 8, 8, 1))
    both = with_adversary(maker, adversary)
    loss = adversarial_loss(adversary, content=tf.abs, weight=0.5)
    with tf.GradientTape() as tape:
        value = loss(targets, both(inputs, training=True))
    variables = both.trainable_variables
    found = {variable.path: each for variable, each in zip(variables, tape.gradient(value, variables), strict=True)}
    with tf.GradientTape(persistent=True) as tape:
        made = maker(inputs, training=True)
        false, true = (adversary(tf.concat([inputs, each], axis=-1), training=True) for each in (made, targets))
        content = tf.reduce_mean(tf.abs(targets - made))
        makers = content + 0.5 * tf.reduce_mean((false - 1.0) ** 2)
        adversarys = (tf.reduce_mean(false**2) + tf.reduce_mean((true - 1.0) ** 2)) / 2.0
    assert float(value) == pytest.approx(float(content))
    for network, of_network in ((maker, makers), (adversary, adversarys)):
        for variable in network.trainable_variables:
            expected = tape.gradient(of_network, variable).numpy()
            assert found[variable.path].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6), variable.path


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("method", ["srcnn", "pix2pix", "gan3d"])
def test_losses_on_three_devices_are_those_on_one(
    chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # Of two patches, or of the one block, there is none for the third device.
    arguments = ["super-resolution", "--data", str(chests), "--epochs", "4", "--patches", "2", "--patch", "8"]
    arguments += ["--no-predictions", "--set", f"method={method}", "--set", "filters=4"]
    arguments += [] if method == "srcnn" else ["--set", "adversarial_weight=0.5"]
    places = {"RESULT": "result.json", "ARTIFACTS": "artifacts"}
    environment = {f"SURVEY_{name}": str(tmp_path / place) for name, place in places.items()}
    environment |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROGRAM.parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(PROGRAM), "3", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    three = json.loads((tmp_path / "result.json").read_text())
    alone = trial_here(arguments[0], tmp_path / "alone", monkeypatch, *arguments[1:])
    assert (alone["info"]["devices"], three["info"]["devices"]) == (1, 3)
    assert len(three["info"]["losses"]) == 4
    assert three["info"]["losses"] == pytest.approx(alone["info"]["losses"], abs=1e-5)
    assert three["metrics"]["psnr"] == pytest.approx(alone["metrics"]["psnr"], abs=1e-3)


@pytest.mark.tensorflow
def test_all_methods_are_trained_side_by_side_when_asked_for(
    chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(chests), "--epochs", "1", *SMALL, "--all", "--set", "method=gan3d"]
    result = trial_here("super-resolution", tmp_path / "t", monkeypatch, *arguments)
    methods = {"bicubic", "srcnn", "pix2pix", "gan3d"}
    assert {name for name in result["metrics"] if name.startswith("psnr_")} == {f"psnr_{each}" for each in methods}
    assert result["metrics"]["psnr"] == result["metrics"]["psnr_gan3d"]
    rows = (tmp_path / "t" / "artifacts" / "cases.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == methods
    assert len({row.split(",")[2] for row in rows}) == len(rows)


def test_what_cannot_be_made_thin_is_refused_by_the_name_of_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "imagesTr").mkdir(parents=True)

    def refusal(*arguments: str) -> str:
        assert main(["super-resolution", "--data", str(data), "--out", str(tmp_path / "o"), *arguments]) == 2
        return capsys.readouterr().err

    assert f"{data / 'dataset.json'}: no such file" in refusal()
    (data / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT", "1": "PET"}}))
    assert '"channel_names" must name one channel' in refusal()
    (data / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}}))
    assert "holds no image that ends in _0000.nii.gz" in refusal()
    for name, slices in (("a", 16), ("b", 10)):
        write_volume(data / "imagesTr" / f"{name}_0000.nii.gz", np.zeros((12, 12, slices), np.int16), np.eye(4))
    (data / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    assert f"{data / 'imagesTr' / 'b_0000.nii.gz'}: has 10 slices along z, 11 are needed" in refusal()
    (data / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["a"]}))
    assert 'in "train" and in "validation"' in refusal()
    write_volume(data / "imagesTr" / "b_0000.nii.gz", np.zeros((12, 12, 16), np.int16), np.eye(4))
    (data / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    text = refusal()
    assert f"{data / 'imagesTr' / 'a_0000.nii.gz'}: a patch of 16 voxels a side is larger than the volume" in text
    assert "--factor must be at least 2" in refusal("--factor", "1")
    assert "--patch must be a multiple of 4" in refusal("--patch", "10")
    assert "the lower one first" in refusal("--values", "400", "-1000")
    assert not (tmp_path / "o").exists()
