from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.nifti import read_volume
from workloads.errors import WorkloadError
from workloads.explain.calibration import error_detection, reliability, risk_coverage
from workloads.explain.uncertainty import answers_of, dropout_network, statistics
from workloads.metrics.classification import calibration_error


def test_calibration_of_a_bin_is_the_distance_of_confidence_and_share_of_right_answers() -> None:
    probabilities = np.array([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.2, 0.8], [0.45, 0.55]])
    found = reliability(probabilities, np.array([0, 1, 0, 0, 1]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 4, 0]
    assert found.accuracy[8] == pytest.approx(0.75)
    assert found.error == pytest.approx((4 * 0.05 + 1 * 0.45) / 5)


def test_calibration_of_one_sure_class_is_that_of_two_classes() -> None:
    rng = np.random.default_rng(0)
    high = rng.uniform(0.5, 1.0, 500)
    truth = (rng.random(500) < high).astype(int)
    found = reliability(np.stack([1 - high, high], axis=1), truth)
    assert found.error == pytest.approx(calibration_error(truth, high))
    assert found.error < 0.08


def test_risk_falls_as_uncertain_samples_are_left_out() -> None:
    wrong = np.array([True, False, False, False])
    coverage, risk, area = risk_coverage(np.array([0.9, 0.1, 0.2, 0.3]), wrong)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == [0.0, 0.0, 0.0, 0.25]
    assert area == pytest.approx(0.0625)
    assert error_detection(np.array([0.9, 0.1, 0.2, 0.3]), wrong) == 1.0


def test_uncertainty_that_says_nothing_has_the_risk_of_all_samples_at_every_coverage() -> None:
    wrong = np.array([True, False, False, True, False])
    _, risk, area = risk_coverage(np.zeros(5), wrong)
    np.testing.assert_allclose(risk, 0.4)
    assert area == pytest.approx(0.4)
    assert error_detection(np.zeros(5), wrong) == 0.5


def test_disagreement_of_sure_answers_is_all_information_and_an_unsure_answer_none() -> None:
    # The mean of p, the mean entropy of p, the variance of p: two sure answers that differ; two equal unsure ones.
    found = answers_of(np.array([[0.5, 0.5, 0.0, 0.5], [0.5, 0.5, np.log(2), 0.0]], dtype=np.float32))
    np.testing.assert_allclose(found.entropy, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.information, [np.log(2), 0.0], atol=1e-6)
    np.testing.assert_allclose(found.variance, [0.5, 0.0])


@pytest.fixture
def keras() -> Any:
    from tensorflow import keras

    keras.utils.set_random_seed(0)
    return keras


def small(keras: Any, rate: float) -> Any:
    """A network whose normalisation knows other statistics than those of any batch here."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(4, 3, activation="relu")(inputs))
    x = layers.SpatialDropout2D(rate)(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Dropout(rate)(layers.Flatten()(x))))
    model.layers[2].set_weights([np.full(4, value, dtype=np.float32) for value in (2.0, 1.0, 3.0, 50.0)])
    return model


def test_only_dropout_is_switched_on_and_normalisation_stays_as_in_inference(keras: Any) -> None:
    model, images = small(keras, 1e-7), np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    found = answers_of(statistics([dropout_network(model)], samples=5)(images))
    logits = np.asarray(model(images, training=False), dtype=np.float64)
    exact = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, exact, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(model.layers[2].moving_mean), 3.0)
    assert found.variance.max() < 1e-6


def test_more_dropout_is_more_variance_and_the_seed_decides_it(keras: Any) -> None:
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    weights = small(keras, 0.1).get_weights()
    found = []
    for rate, seed in ((0.1, 0), (0.6, 0), (0.6, 0), (0.6, 1)):
        model = small(keras, rate)
        model.set_weights(weights)
        found.append(answers_of(statistics([dropout_network(model, seed=seed)], samples=40)(images)))
    assert found[0].variance.mean() < found[1].variance.mean()
    np.testing.assert_array_equal(found[1].variance, found[2].variance)
    assert not np.array_equal(found[1].variance, found[3].variance)


def test_an_ensemble_is_the_mean_of_its_networks_and_needs_no_dropout(keras: Any) -> None:
    from scipy import special

    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    models = [small(keras, 0.0) for _ in range(3)]
    found = answers_of(statistics(models)(images))
    each = np.stack([special.softmax(np.asarray(model(images)), axis=-1) for model in models])
    np.testing.assert_allclose(found.probabilities, each.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.variance, each.var(axis=0).sum(axis=-1), rtol=1e-3, atol=1e-6)
    with pytest.raises(WorkloadError, match="has no dropout"):
        dropout_network(models[0])


def test_networks_that_differ_are_no_ensemble(keras: Any) -> None:
    inputs = keras.Input((8, 8, 1))
    other = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(WorkloadError, match="the networks differ"):
        statistics([small(keras, 0.0), other])


@pytest.fixture(scope="module")
def segmenter(lungs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of slices of the phantoms, trained for a moment, with dropout."""
    out = tmp_path_factory.mktemp("segmenter")
    settings = [
        f"--set={each}"
        for each in ("dropout=0.3", "filters=4", "depth=1", "learning_rate=0.02", "overlap=dice", "dilations=1")
    ]
    options = ["--data", str(lungs), "--epochs", "8", "--patches", "96", "--report-every", "8", "--no-predictions"]
    with pytest.MonkeyPatch.context() as patch:
        trial_here("covid-2d", out, patch, *options, "--seed", "1", *settings)
    return out / "artifacts" / "model.keras"


def validation(lungs: Path) -> list[str]:
    names = json.loads((lungs / "splits.json").read_text())["validation"]
    return [str(lungs / "imagesTr" / f"{name}_0000.nii.gz") for name in names]


@pytest.mark.tensorflow
def test_a_segmenters_uncertainty_finds_its_errors_and_lies_on_the_grid_of_the_image(
    segmenter: Path, lungs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = validation(lungs)
    options = ["--model", str(segmenter), "--image", *images, "--samples", "8", "--out", str(tmp_path)]
    assert main(["explain", "uncertainty", *options]) == 0
    told = json.loads((tmp_path / "explanation.json").read_text())["calibration"]
    assert 0 < told["error_rate"] < 0.3
    assert told["error_auc"] > 0.7
    # Left out at random, as many errors stay among what is kept as there are in all.
    assert told["risk_coverage_area"] < 0.5 * told["error_rate"]
    assert told["ece"] < 0.2
    assert (tmp_path / "calibration.png").is_file()
    assert "uncertainty finds errors" in capsys.readouterr().out
    for image in images:
        given, name = read_volume(Path(image)), Path(image).name.removesuffix("_0000.nii.gz")
        for measure in ("entropy", "information", "variance"):
            found = read_volume(tmp_path / f"{name}_{measure}.nii.gz")
            assert found.array.shape == given.array.shape
            np.testing.assert_allclose(found.affine, given.affine, atol=1e-4)
            assert found.array.min() >= 0


@pytest.mark.tensorflow
def test_what_a_segmenter_marks_is_explained_by_attributions_that_add_up(
    segmenter: Path, lungs: Path, tmp_path: Path
) -> None:
    image = validation(lungs)[0]
    options = ["--model", str(segmenter), "--image", image, "--out", str(tmp_path), "--steps", "20", "--class", "1"]
    assert main(["explain", "integrated-gradients", *options, "--baseline", "blurred"]) == 0
    (facts,) = json.loads((tmp_path / "explanation.json").read_text())["images"].values()
    assert facts["voxels"] > 100
    assert facts["gap"] < 0.1
    (path,) = tmp_path.glob("*_integrated-gradients.nii.gz")
    found, given = read_volume(path), read_volume(Path(image))
    np.testing.assert_allclose(found.affine, given.affine, atol=1e-4)
    # The sides are multiples of what the network halves: nothing was filled up, and nothing is lost in the map.
    assert found.array.sum(dtype=np.float64) == pytest.approx(facts["sum"], rel=1e-3)


@pytest.mark.tensorflow
def test_a_segmenter_is_refused_by_grad_cam_and_an_empty_region_by_integrated_gradients(
    segmenter: Path, lungs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(segmenter), "--image", validation(lungs)[0], "--out", str(tmp_path / "out")]
    assert main(["explain", "grad-cam", *options]) == 2
    assert "Grad-CAM is of classes of whole images" in capsys.readouterr().err
    region = tmp_path / "region.nii.gz"
    image = read_volume(Path(validation(lungs)[0]))
    from workloads.data.nifti import write_volume

    write_volume(region, np.zeros(image.array.shape, dtype=np.uint8), image.affine)
    assert main(["explain", "integrated-gradients", *options, "--region", str(region)]) == 2
    assert "region.nii.gz: is empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
