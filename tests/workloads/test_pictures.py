"""Pictures: read as a network sees them, refused where they cannot be used, varied, and classified."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.labelled import load_samples
from workloads.data.picture_augmentation import Augmentation, augment_pictures
from workloads.data.pictures import open_pictures, read_picture, write_picture
from workloads.data.splits import read_split
from workloads.errors import WorkloadError
from workloads.metrics.classification import balanced_accuracy, confusion
from workloads.models.classifier import HEADS, classifier
from workloads.phantoms import bacteria, laparoscopy
from workloads.trials.classification import class_weights, epoch_order

RNG = np.random.default_rng(5)
TASKS = ("gram-stain", "laparoscopy")


def make(folder: Path, task: str, *options: str) -> Path:
    assert main(["phantom", task, "--out", str(folder), "--seed", "2", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small smears with classes of 3 to 1; tests must not change them."""
    sizes = ["--train", "60", "--imbalance", "3", "--validation", "12", "--test", "4", "--size", "48"]
    return make(tmp_path_factory.mktemp("smears") / "data", "gram-stain", *sizes, "--confounders", "0.3")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small frames; tests must not change them."""
    sizes = ["--train", "50", "--validation", "16", "--test", "2", "--size", "48", "--confounders", "0.2"]
    return make(tmp_path_factory.mktemp("frames") / "data", "laparoscopy", *sizes)


def few(folder: Path) -> Path:
    """A data set of two classes with two pictures each."""
    for number, name in enumerate(("a", "b", "c", "d")):
        write_picture(folder / "classes" / ["ab", "cd"][number // 2] / f"{name}.png", np.full((4, 6, 3), 60, np.uint8))
    (folder / "splits.json").write_text('{"train": ["a", "c"], "validation": ["b", "d"]}')
    return folder


def test_a_picture_is_seen_from_minus_1_to_1_in_the_size_asked_for(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    picture[:, :, 0], picture[:, 3:, 2] = 255, 255
    write_picture(tmp_path / "a.png", picture)
    seen = read_picture(tmp_path / "a.png")
    assert seen.shape == (4, 6, 3)
    assert seen.dtype == np.float32
    assert np.array_equal(seen[0, 0], [1.0, -1.0, -1.0])
    assert np.array_equal(seen[0, 5], [1.0, -1.0, 1.0])
    small = read_picture(tmp_path / "a.png", size=(2, 2))
    assert small.shape == (2, 2, 3)
    assert small[..., 0] == pytest.approx(1.0)
    assert small[0, 0, 2] < -0.5 < 0.5 < small[0, 1, 2]


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    picture = np.zeros((4, 8, 3), dtype=np.uint8)
    image = Image.fromarray(picture)
    marks = image.getexif()
    marks[0x0112] = 6  # taken with the camera on its side
    image.save(tmp_path / "a.jpg", exif=marks)
    assert read_picture(tmp_path / "a.jpg").shape == (8, 4, 3)


def test_grey_and_transparent_pictures_have_three_channels_too(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((3, 3, 4), 255, np.uint8)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "grey.png") == pytest.approx(np.ones((3, 3, 3)))
    assert read_picture(tmp_path / "clear.png") == pytest.approx(np.ones((3, 3, 3)))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    return text


def spoil_kind(data: Path) -> str:
    (data / "classes" / "cd" / "c.png").write_text("no picture")
    return "c.png: is no picture that can be read"


def spoil_damage(data: Path) -> str:
    path = data / "classes" / "ab" / "a.png"
    write_picture(path, RNG.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:900])
    return "a.png: is no picture that can be read"


def spoil_size(data: Path) -> str:
    write_picture(data / "classes" / "cd" / "d.png", np.zeros((4, 5, 3), np.uint8))
    return f"{data / 'classes' / 'cd' / 'd.png'}: is 4 x 5, but {data / 'classes' / 'ab' / 'a.png'} is 4 x 6"


def spoil_depth(data: Path) -> str:
    Image.fromarray(np.full((4, 6), 999, np.uint16)).save(data / "classes" / "ab" / "a.png")
    return "a.png: has more than 8 bits a channel"


def spoil_class(data: Path) -> str:
    (data / "classes" / "empty").mkdir()
    (data / "classes" / "empty" / "notes.txt").write_text("soon")
    return "empty: holds no picture"


def spoil_part(data: Path) -> str:
    (data / "splits.json").write_text('{"train": ["a", "b"], "validation": ["c", "d"]}')
    return 'no case of the split\'s "train" is of class "cd"'


def spoil_name(data: Path) -> str:
    (data / "splits.json").write_text('{"train": ["a", "cc"], "validation": ["b", "d"]}')
    return "\"train\" names 'cc'"


def spoil_twins(data: Path) -> str:
    write_picture(data / "classes" / "cd" / "a.png", np.zeros((4, 6, 3), np.uint8))
    return "has the same name"


def spoil_patient(data: Path) -> str:
    (data / "patients.json").write_text('{"a": "p1", "b": "p1"}')
    return 'patient \'p1\' is in "train" (a) and in "validation" (b)'


def spoil_layout(data: Path) -> str:
    (data / "classes").rename(data / "pictures")
    return "has no folder classes/"


SPOILT = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda each: each.__name__)
def test_what_cannot_be_used_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, spoil: Any
) -> None:
    data = few(tmp_path)
    message = spoil(data)
    assert message in refused(capsys, "gram-stain", "--data", str(data))
    assert not list(tmp_path.rglob("model.keras"))


def test_pictures_of_several_sizes_are_brought_to_one(tmp_path: Path) -> None:
    spoil_size(few(tmp_path))
    data = open_pictures(tmp_path, size=(8, 8))
    assert load_samples(data, ("a", "d")).images.shape == (2, 8, 8, 3)
    with pytest.raises(WorkloadError, match="bring all to it with --size"):
        load_samples(open_pictures(tmp_path), ("a", "d"))


def test_bad_pictures_are_refused_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    message = spoil_size(few(tmp_path))
    code = (
        "import sys; from workloads.__main__ import main; "
        "code = main(sys.argv[1:]); assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "laparoscopy", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_folds_keep_the_pictures_of_a_patient_together(tmp_path: Path) -> None:
    data = few(tmp_path)
    (data / "patients.json").write_text('{"a": "p1", "c": "p1", "b": "p2", "d": "p2"}')
    assert main(["folds", "--data", str(data), "--folds", "2"]) == 0
    split = read_split(data / "folds.json", open_pictures(data).dataset, fold=1)
    assert {frozenset(split.train), frozenset(split.validation)} == {frozenset("ac"), frozenset("bd")}


def test_no_augmentation_changes_nothing_and_each_kind_does_what_it_says() -> None:
    pictures = RNG.uniform(-0.5, 0.5, (6, 9, 12, 3)).astype(np.float32)
    rng = np.random.default_rng
    assert np.array_equal(augment_pictures(rng(0), pictures, Augmentation()), pictures)
    flipped = augment_pictures(rng(0), pictures, Augmentation(flip=1.0))
    assert flipped == pytest.approx(pictures[:, ::-1, ::-1])
    brighter = augment_pictures(rng(0), pictures, Augmentation(brightness=0.1))
    slopes = [np.polyfit(one.ravel(), other.ravel(), 1) for one, other in zip(pictures, brighter, strict=True)]
    assert np.std([slope for slope, _ in slopes]) > 0.03
    assert all(
        other.ravel() == pytest.approx(slope * one.ravel() + added, abs=1e-4)
        for one, other, (slope, added) in zip(pictures, brighter, slopes, strict=True)
    )


def test_a_shift_moves_a_picture_and_a_scale_enlarges_it() -> None:
    spot = np.full((40, 41, 41, 1), -1.0, dtype=np.float32)
    spot[:, 18:23, 18:23] = 1.0

    def weights(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(pictures[..., 0] + 1.0)

    def places(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.arange(41)[:, None]
        return np.asarray((weights(pictures) * rows).sum((1, 2)) / weights(pictures).sum((1, 2)))

    shifted = augment_pictures(np.random.default_rng(1), spot, Augmentation(shift=0.2))
    assert 6.0 < np.abs(places(shifted) - 20.0).max() <= 0.2 * 41 + 0.01
    assert weights(shifted).sum((1, 2)) == pytest.approx(weights(spot).sum((1, 2)), rel=0.01)
    scaled = augment_pictures(np.random.default_rng(1), spot, Augmentation(scale=0.3))
    assert places(scaled) == pytest.approx(20.0, abs=1e-4)
    areas = weights(scaled).sum((1, 2)) / weights(spot).sum((1, 2))
    assert areas.min() < 0.7
    assert areas.max() > 1.4


def test_oversampling_repeats_the_rare_and_undersampling_leaves_out_the_common() -> None:
    classes = np.array([0] * 10 + [1] * 3 + [2])
    rng = np.random.default_rng(0)
    over = epoch_order(rng, classes, "oversampling")
    assert Counter(classes[over].tolist()) == {0: 10, 1: 10, 2: 10}
    assert sorted(Counter(over.tolist())[index] for index in (10, 11, 12)) == [3, 3, 4]
    under = [epoch_order(rng, classes, "undersampling") for _ in range(40)]
    assert all(Counter(classes[each].tolist()) == {0: 1, 1: 1, 2: 1} for each in under)
    assert set(np.concatenate(under).tolist()) == set(range(14))  # others in each epoch
    for balance in ("none", "weights"):
        assert sorted(epoch_order(rng, classes, balance).tolist()) == list(range(14))


def test_weights_make_classes_equal_and_their_mean_1() -> None:
    classes = np.array([0, 0, 0, 1])
    weights = class_weights(classes, 2)
    assert weights[0] * 3 == pytest.approx(weights[1])
    assert weights[classes].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("module", [bacteria, laparoscopy])
def test_a_picture_of_a_seed_is_always_the_same_and_its_mask_lies_in_it(module: Any) -> None:
    for kind in module.KINDS:
        one, same, other = (
            module.make_picture(np.random.default_rng(seed), kind, size=48, confounders=1.0) for seed in (1, 1, 2)
        )
        assert np.array_equal(one[0], same[0])
        assert not np.array_equal(one[0], other[0])
        assert one[0].shape == (48, 48, 3)
        assert one[1].shape == (48, 48)
        assert one[1].mean() < 0.4
    marked = [
        module.make_picture(
            np.random.default_rng(seed),
            module.KINDS[-1] if module is laparoscopy else "bacillus",
            size=48,
            confounders=1.0,
        )[1].any()
        for seed in range(5)
    ]
    assert all(marked)


def test_phantoms_are_as_unequal_as_asked_for_in_training_alone(smears: Path) -> None:
    data = open_pictures(smears)
    split = read_split(smears / "splits.json", data.dataset)
    counts = [
        Counter(data.classes[data.class_of[name]] for name in part)
        for part in (split.train, split.validation, split.test)
    ]
    assert counts[0] == {"escherichia": 60, "staphylococcus": 42, "streptococcus": 29, "bacillus": 20}
    assert set(counts[1].values()) == {12}
    masks = {path.stem for path in (smears / "masks").iterdir()}
    assert masks == set(data.class_of)


def colours(data: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mean and spread of each channel over a picture: what is known of it without seeing shapes."""
    labelled = open_pictures(data)
    samples = load_samples(labelled, getattr(read_split(data / "splits.json", labelled.dataset), part))
    return np.concatenate([samples.images.mean((1, 2)), samples.images.std((1, 2))], axis=1), samples.classes


def baseline(data: Path) -> float:
    """Balanced accuracy of a logistic regression on colours, its classes weighted."""
    model = LogisticRegression(class_weight="balanced", C=10.0, max_iter=5000).fit(*colours(data, "train"))
    features, truth = colours(data, "validation")
    return balanced_accuracy(confusion(truth, model.predict(features), int(truth.max()) + 1))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.tensorflow
def test_smears_are_told_apart_better_than_by_their_colours(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(smears), "--seed", "1", "--epochs", "20", "--test"]
    result = trial_here("gram-stain", tmp_path, monkeypatch, *arguments)
    metrics, info = result["metrics"], result["info"]
    assert metrics["balanced_accuracy"] > baseline(smears)
    assert metrics["balanced_accuracy"] > 0.25 + 0.2  # a guess
    assert info["cases"]["train"]["bacillus"] == 20
    interval = info["balanced_accuracy_interval"]
    assert interval["low"] < metrics["balanced_accuracy"] < interval["high"]
    names = ["bacillus", "escherichia", "staphylococcus", "streptococcus"]
    assert info["classes"] == names
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean([metrics[f"accuracy_{name}"] for name in names]))
    artifacts = tmp_path / "artifacts"
    said = rows(artifacts / "predictions.csv")
    assert len(said) == 48
    right = [row["truth"] == row["answer"] for row in said]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    odds = [[float(row[f"probability_{name}"]) for name in names] for row in said]
    assert np.sum(odds, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert [names[int(index)] for index in np.argmax(odds, axis=1)] == [row["answer"] for row in said]
    matrix = [[int(row[name]) for name in names] for row in rows(artifacts / "confusion.csv")]
    assert np.trace(matrix) == sum(right)
    for name in ("overview.png", "confusion.png", "test/predictions.csv", "model.keras"):
        assert (artifacts / name).stat().st_size > 500
    assert "test_balanced_accuracy" in metrics


@pytest.mark.tensorflow
def test_the_same_seed_gives_the_same_classifier_and_an_interrupted_one_goes_on_alike(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(smears), "--set", "filters=4", "--set", "depth=2", "--epochs", "3", "--seed", "4"]
    arguments += ["--set", "balance=undersampling", "--report-every", "1"]
    whole = trial_here("gram-stain", tmp_path / "a", monkeypatch, *arguments)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "stop").write_text("walltime\n")
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            trial_here("gram-stain", tmp_path / "b", monkeypatch, *arguments)
        assert ended.value.code == 85
    again = trial_here("gram-stain", tmp_path / "b", monkeypatch, *arguments)
    assert again["info"]["losses"] == whole["info"]["losses"]
    del again["metrics"]["train_seconds"], whole["metrics"]["train_seconds"]
    assert again["metrics"] == whole["metrics"]
    reported = [json.loads(line) for line in (tmp_path / "b" / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in reported] == [1, 2, 3]


@pytest.mark.tensorflow
def test_instruments_are_told_apart_better_than_by_colours(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["filters=4", "depth=3", "normalisation=group", "learning_rate=0.01"]
    arguments = ["--data", str(frames), "--seed", "1", *(word for each in small for word in ("--set", each))]
    result = trial_here("laparoscopy", tmp_path, monkeypatch, *arguments)
    assert result["metrics"]["balanced_accuracy"] > max(baseline(frames), 1.0 / 3.0) + 0.05


@pytest.mark.tensorflow
def test_a_training_that_diverges_knows_no_more_than_a_guess(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workloads.trials import classification

    monkeypatch.setattr(classification, "_cross_entropy", lambda targets, logits: (targets * logits)[0, 0] / 0.0)
    result = trial_here("gram-stain", tmp_path, monkeypatch, "--data", str(smears), "--epochs", "2")
    assert result["info"]["diverged"]
    assert result["metrics"]["balanced_accuracy"] == pytest.approx(0.25)


@pytest.mark.tensorflow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", [(9, 14, 3), (9, 7, 5, 2)])
def test_a_classifier_has_convolutions_and_ends_in_logits(shape: tuple[int, ...], head: str) -> None:
    model = classifier(shape=shape, classes=3, filters=4, depth=3, dilations=2, head=head)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, 3))
    last = model.layers[-1]
    assert (last.name, type(last).__name__) == ("logits", "Dense")
    assert last.get_config()["activation"] == "linear"
    convolutions = [layer for layer in model.layers if type(layer).__name__ == f"Conv{len(shape) - 1}D"]
    assert len(convolutions) == 5 + 2
    assert convolutions[-1].dilation_rate == (4,) * (len(shape) - 1)
