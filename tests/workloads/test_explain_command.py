from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workloads.__main__ import main
from workloads.data.classified_volumes import write_volumes
from workloads.data.nifti import Volume, read_volume, write_volume
from workloads.explain.images import read_image
from workloads.explain.pointing import pointing_game

SIDE = 16
pytestmark = pytest.mark.tensorflow


def picture(rng: np.random.Generator, *, bright: bool) -> tuple[Any, Any]:
    """Noise with a ring, and with a full square where it is of class 1; the mask of that square."""
    image = rng.normal(90.0, 12.0, (SIDE, SIDE, 3))
    row, column, other = rng.integers(1, SIDE - 5, 3)
    image[other : other + 4, [1, 4]] += 60.0
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if bright:
        mask[row : row + 4, column : column + 4] = 255
        image[mask > 0, 0] += 110.0
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with and without a red square, masks of it, and the network that was trained to tell them apart."""
    from tensorflow import keras

    keras.utils.set_random_seed(2)
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(7)
    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.AveragePooling2D(2)(layers.Conv2D(8, 3, padding="same", activation="relu")(inputs))
    x = layers.Activation("relu")(layers.Conv2D(12, 3, padding="same", name="features")(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    classes = np.arange(240) % 2
    training = np.stack([picture(rng, bright=bool(each))[0] for each in classes]) / 127.5 - 1.0
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(training, classes, batch_size=24, epochs=12, verbose=0)
    model.save(root / "model.keras")
    for folder in ("classes/bare", "classes/square", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(16):
        image, mask = picture(rng, bright=number >= 4)
        kind = "square" if number >= 4 else "bare"
        Image.fromarray(image).save(root / "classes" / kind / f"image_{number:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"image_{number:02d}.png")
    return root


def explain(root: Path, method: str, out: Path, *options: str, kind: str = "square") -> int:
    images = [str(path) for path in sorted((root / "classes" / kind).glob("*.png"))]
    model = [] if "--model" in options else ["--model", str(root / "model.keras")]
    return main(["explain", method, *model, "--image", *images, "--out", str(out), *options])


def record(out: Path) -> Any:
    return json.loads((out / "explanation.json").read_text())


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients"])
def test_a_map_points_at_what_the_class_is_known_by_far_more_often_than_chance(
    squares: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(squares, method, tmp_path) == 0
    told = record(tmp_path)
    game = told["pointing_game"]
    assert game["images"] == 12
    assert game["chance"] == pytest.approx(16 / SIDE**2)
    assert game["rate"] > 8 * game["chance"]
    assert f"pointing game: {game['hits']} of 12 hit" in capsys.readouterr().out
    assert all(facts["class"] == 1 for facts in told["images"].values())
    for name in told["images"]:
        with Image.open(tmp_path / f"{name}_{method}.png") as file:
            assert file.size == (SIDE, SIDE)
            low, high = told["limits"][f"{name}_{method}.png"]
            values = low + np.asarray(file) / 65535.0 * (high - low)
        assert values.max() == pytest.approx(high)
    assert (tmp_path / "overview.png").stat().st_size > 10_000
    assert not list(tmp_path.glob(".partial*"))


def test_the_attributions_of_each_picture_add_up_to_its_answer_less_the_baselines(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(squares, "integrated-gradients", tmp_path, "--baseline", "zero", "--class", "0") == 0
    for facts in record(tmp_path)["images"].values():
        assert facts["class"] == 0
        assert facts["sum"] == pytest.approx(facts["answer"] - facts["of_baseline"], rel=0.02)
        assert facts["gap"] < 0.02
    assert "completeness" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_maps(squares: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert explain(squares, "integrated-gradients", tmp_path / name, "--steps", "5", "--seed", "3") == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*_int*.png")} for name in ("one", "two")
    )
    assert len(one) == 12
    assert one == two


def test_what_holds_no_square_has_no_thing_to_point_at(squares: Path, tmp_path: Path) -> None:
    assert explain(squares, "grad-cam", tmp_path, kind="bare") == 0
    assert "pointing_game" not in record(tmp_path)


def test_uncertainty_of_a_classifier_comes_with_its_calibration(squares: Path, tmp_path: Path) -> None:
    assert explain(squares, "uncertainty", tmp_path, "--samples", "30") == 0
    with (tmp_path / "uncertainty.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    for row in rows:
        probabilities = np.array([float(row["probability_0"]), float(row["probability_1"])])
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-4)
        entropy = -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12)))
        assert float(row["entropy"]) == pytest.approx(entropy, abs=1e-3)
        assert 0 < float(row["information"]) <= float(row["entropy"])
    told = record(tmp_path)["calibration"]
    assert told["samples"] == 12
    assert told["error_rate"] < 0.2
    assert (tmp_path / "calibration.png").is_file()


def refused(capsys: pytest.CaptureFixture[str], out: Path, code: int) -> str:
    """What was said; and nothing was written."""
    assert code == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_class_that_does_not_exist_is_refused(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = refused(capsys, out, explain(squares, "integrated-gradients", out, "--class", "2"))
    assert "model.keras: has no class 2\n  it has classes 0 to 1" in said


def test_a_network_without_convolution_is_refused_by_grad_cam(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorflow import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    model = tmp_path / "dense.keras"
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs))).save(model)
    out = tmp_path / "out"
    said = refused(capsys, out, explain(squares, "grad-cam", out, "--model", str(model)))
    assert "has no convolution" in said
    assert "explain it by integrated-gradients" in said
    assert "drops anything" in refused(capsys, out, explain(squares, "uncertainty", out, "--model", str(model)))


def test_a_layer_that_does_not_exist_is_refused(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = refused(capsys, out, explain(squares, "grad-cam", out, "--layer", "feature"))
    assert "no layer 'feature'\n  did you mean 'features'?" in said


def test_a_file_that_is_no_model_is_refused(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, out = tmp_path / "broken.keras", tmp_path / "out"
    broken.write_bytes((squares / "model.keras").read_bytes()[:500])
    said = refused(capsys, out, explain(squares, "grad-cam", out, "--model", str(broken)))
    assert f"{broken}: is no model that Keras can read" in said
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(b"")
    said = refused(capsys, out, explain(squares, "grad-cam", out, "--model", str(weights)))
    assert "holds weights without their network" in said


def test_a_network_of_another_task_and_an_image_of_another_size_are_refused(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorflow import keras

    inputs = keras.Input((8, 8, 8, 1))
    model, out = tmp_path / "volumes.keras", tmp_path / "out"
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling3D()(inputs))).save(model)
    said = refused(capsys, out, explain(squares, "integrated-gradients", out, "--model", str(model)))
    assert "image_04.png: is 16 x 16 x 1, but the network takes 8 x 8 x 8 x 1" in said
    said = refused(capsys, out, explain(squares, "grad-cam", out, "--size", "20", "16"))
    assert "image_04.png: is 20 x 16 x 3, but the network takes 16 x 16 x 3" in said
    models = [str(squares / "model.keras"), str(model)]
    said = refused(capsys, out, explain(squares, "uncertainty", out, "--model", *models))
    assert "the networks differ" in said


def test_a_baseline_of_another_size_is_refused(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "start.png", tmp_path / "out"
    Image.fromarray(np.zeros((SIDE, SIDE + 1, 3), dtype=np.uint8)).save(start)
    said = refused(capsys, out, explain(squares, "integrated-gradients", out, "--baseline", str(start)))
    assert "the baseline is 16 x 17 x 3, but the image is 16 x 16 x 3" in said
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(start)
    assert explain(squares, "integrated-gradients", out, "--baseline", str(start), "--steps", "9") == 0


def test_a_network_whose_weights_diverged_leaves_no_map(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorflow import keras

    model = keras.models.load_model(squares / "model.keras")
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(tmp_path / "diverged.keras")
    out = tmp_path / "out"
    for method in ("integrated-gradients", "grad-cam", "uncertainty"):
        said = refused(capsys, out, explain(squares, method, out, "--model", str(tmp_path / "diverged.keras")))
        assert "is not finite" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "explain by which method?"),
        (["grad-cm"], "did you mean 'grad-cam'?"),
        (["grad-cam", "--model", "none.keras", "--image", "none.png", "--out", "out"], "none.keras: no such file"),
        (
            ["integrated-gradients", "--model", "m", "--image", "i", "--out", "o", "--steps", "0"],
            "--steps must be at least 1",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_volume_is_explained_by_a_3d_classifier_on_the_grid_of_its_file(tmp_path: Path) -> None:
    from tensorflow import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 10, 8, 1))
    x = keras.layers.GlobalAveragePooling3D()(keras.layers.Conv3D(4, 3, activation="relu")(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "model.keras")
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 1.5, -7], [0, 1.0, 0, 4], [0, 0, 0, 1]])
    path = tmp_path / "case.nii.gz"
    write_volume(path, np.random.default_rng(0).normal(size=(12, 8, 10)).astype(np.float32), affine)
    for method in ("integrated-gradients", "grad-cam"):
        out = tmp_path / method
        model = ["--model", str(tmp_path / "model.keras"), "--image", str(path)]
        assert main(["explain", method, *model, "--out", str(out)]) == 0
        found, given = read_volume(out / f"case_{method}.nii.gz"), read_volume(path)
        assert isinstance(found, Volume)
        assert found.array.shape == (12, 10, 8)
        np.testing.assert_allclose(found.affine, given.affine)
        assert found.array.any()


def test_a_volume_with_its_segmentation_has_its_class_and_its_mask_beside_it(tmp_path: Path) -> None:
    from tensorflow import keras

    rng, affine, data = np.random.default_rng(0), np.diag([2.0, 2.0, 3.0, 1.0]), tmp_path / "data"
    label = np.zeros((10, 9, 8), dtype=np.uint8)
    label[2:8, 2:7, 2:6], label[4, 4, 4] = 1, 2
    chests = [(rng.normal(-500, 300, label.shape).astype(np.int16), kind) for kind in ("high", "low")]
    rows = [("train", f"chest_{kind}", kind, image, label, affine) for image, kind in chests]
    write_volumes(data, rows, labels={"background": 0, "lung": 1, "opacity": 2}, marked=2)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10, 9, 8, 2))
    x = keras.layers.GlobalAveragePooling3D()(keras.layers.Conv3D(4, 3, activation="relu")(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(x))).save(tmp_path / "model.keras")
    images = [str(path) for path in sorted((data / "imagesTr").iterdir())]
    options = ["--model", str(tmp_path / "model.keras"), "--image", *images]
    assert main(["explain", "integrated-gradients", *options, "--steps", "10", "--out", str(tmp_path / "maps")]) == 0
    assert record(tmp_path / "maps")["pointing_game"]["chance"] == pytest.approx(1 / 720)
    assert main(["explain", "uncertainty", *options, "--out", str(tmp_path / "sure")]) == 0
    assert record(tmp_path / "sure")["calibration"]["samples"] == 2
    image = read_image(Path(images[1]), channels=2)
    assert (image.name, image.class_number, image.called(1)) == ("chest_low", 1, "low")


def test_a_hit_is_the_maximum_within_the_thing_or_near_enough() -> None:
    values, mask = np.zeros((9, 9)), np.zeros((9, 9), dtype=bool)
    values[2, 2], mask[2, 4:7] = 1.0, True
    assert pointing_game([values], [mask]).rate == 0.0
    near = pointing_game([values, mask.astype(float)], [mask, mask], tolerance=2.0)
    assert near.hits == (True, True)
    alone = pointing_game([mask.astype(float)] * 2, [mask, np.zeros_like(mask)])
    assert alone.hits == (True, None)
    assert alone.rate == 1.0
    assert alone.chance == pytest.approx(3 / 81)
    assert pointing_game([np.ones((9, 9))], [np.ones((9, 9), dtype=bool)]).rate == 0.0
