"""The scaling studies' trainings: they learn, and on several devices and processes they learn the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.parallel_text import Vocabulary, read_text
from workloads.data.picture_set import FILE, read_pictures, write_pictures
from workloads.metrics.translation import bleu
from workloads.phantoms.languages import make_languages, make_pairs
from workloads.phantoms.pictures import CLASSES, make_picture, make_pictures
from workloads.training.loop import Trained

ROOT = Path(__file__).parents[2]
SMALL = {
    "scaling-image": ["--train", "600", "--validation", "160", "--size", "24", "--noise", "0.02"],
    "scaling-seq2seq": ["--train", "500", "--validation", "60"],
}
# A few epochs in which nothing is random but the order of the samples.
FEW = {
    "scaling-image": ["--epochs", "2", "--set", "batch_size=96", "--set", "filters=4"],
    "scaling-seq2seq": ["--epochs", "2", "--set", "batch_size=128", "--set", "dropout=0", "--set", "units=8"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small data set of each task; tests must not change them."""
    folder = tmp_path_factory.mktemp("scaling")
    for task, sizes in SMALL.items():
        assert main(["phantom", task, "--out", str(folder / task), "--seed", "1", *sizes]) == 0
    return {task: folder / task for task in SMALL}


@pytest.fixture(scope="module")
def alone(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A classifier's training in one process, on one device, not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        out = tmp_path_factory.mktemp("alone")
        arguments = ("--data", str(data["scaling-image"]), "--seed", "4", *FEW["scaling-image"])
        return trial_here("scaling-image", out, patch, *arguments)


def program(task: str, out: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    out.mkdir()
    places = {"SURVEY_RESULT": str(out / "result.json"), "SURVEY_ARTIFACTS": str(out / "artifacts")}
    return subprocess.Popen(
        [sys.executable, "-m", "workloads", task, *arguments],
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", **places, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*processes: subprocess.Popen[str]) -> None:
    try:
        for process in processes:
            err = process.communicate(timeout=240)[1]
            assert process.returncode == 0, err
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def result(out: Path) -> Any:
    return json.loads((out / "result.json").read_text())


@pytest.mark.tensorflow
def test_a_classifier_of_pictures_beats_the_nearest_mean_picture(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("--epochs", "10", "--set", "filters=8", "--set", "learning_rate=0.01")
    found = trial_here("scaling-image", tmp_path, monkeypatch, "--data", str(data["scaling-image"]), *settings)
    pictures = read_pictures(data["scaling-image"])
    means = np.stack([pictures.training[pictures.training_classes == number].mean(axis=0) for number in range(8)])
    far = ((pictures.validation[:, None] - means[None]) ** 2).sum(axis=(2, 3, 4))
    nearest = float(np.mean(far.argmin(axis=1) == pictures.validation_classes))
    assert found["metrics"]["accuracy"] > nearest + 0.1
    assert 0 < found["metrics"]["epoch_seconds"] < found["metrics"]["train_seconds"]
    per_class = found["info"]["accuracy_per_class"]
    assert np.mean(list(per_class.values())) == pytest.approx(found["metrics"]["accuracy"], abs=1e-3)
    lines = (tmp_path / "artifacts" / "answers.csv").read_text().splitlines()
    right = np.mean([line.split(",")[1] == line.split(",")[2] for line in lines[1:]])
    assert right == pytest.approx(found["metrics"]["accuracy"])
    assert (tmp_path / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.tensorflow
def test_a_translator_beats_a_dictionary(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trial_here("scaling-seq2seq", tmp_path, monkeypatch, "--data", str(data["scaling-seq2seq"]))
    text = read_text(data["scaling-seq2seq"])
    references = [target for _, target in text.validation]
    by_dictionary = bleu(_word_by_word(text.training, [source for source, _ in text.validation]), references).score
    assert found["metrics"]["bleu"] > by_dictionary + 20
    written = (tmp_path / "artifacts" / "translations.txt").read_text().splitlines()
    assert bleu(written, references).score == pytest.approx(found["metrics"]["bleu"])
    same = np.mean([one == other for one, other in zip(written, references, strict=True)])
    assert same == pytest.approx(found["metrics"]["right"])
    assert "tok:none" in found["info"]["bleu_signature"]
    assert (tmp_path / "artifacts" / "overview.png").read_bytes().startswith(b"\x89PNG")


def _word_by_word(pairs: tuple[tuple[str, str], ...], sentences: list[str]) -> list[str]:
    """Each word by that of the other language which it is most often seen with, in proportion (Dice)."""
    ours, theirs, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for source, target in pairs:
        ours.update(set(source.split()))
        theirs.update(set(target.split()))
        both.update((one, other) for one in set(source.split()) for other in set(target.split()))
    best: dict[str, tuple[float, str]] = {}
    for (one, other), count in both.items():
        best[one] = max(best.get(one, (0.0, "")), (2 * count / (ours[one] + theirs[other]), other))
    return [" ".join(best[word][1] for word in sentence.split() if word in best) for sentence in sentences]


@pytest.mark.tensorflow
@pytest.mark.parametrize("task", ["scaling-image", pytest.param("scaling-seq2seq", marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one_and_one_result(
    task: str, alone: Any, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--data", str(data[task]), "--seed", "4", *FEW[task])
    (tmp_path / "nodes").write_text("127.0.0.1\n127.0.0.1\n")
    common = {"PBS_NODEFILE": str(tmp_path / "nodes"), "PMI_SIZE": "2", "SURVEY_TAG": f"{tmp_path.parent.name}{task}"}
    both = [program(task, tmp_path / str(rank), *arguments, **common, PMI_RANK=str(rank)) for rank in (0, 1)]
    one = alone if task == "scaling-image" else trial_here(task, tmp_path / "alone", monkeypatch, *arguments)
    ended(*both)
    first = result(tmp_path / "0")
    assert (first["info"]["devices"], one["info"]["devices"]) == (2, 1)
    assert first["info"]["busy_devices"] == 2
    assert first["info"]["losses"] == pytest.approx(one["info"]["losses"], abs=1e-5)
    # The last batch of an epoch is short: 600 are 6 x 96 + 24, and 500 are 3 x 128 + 116.
    assert len(first["info"]["losses"]) == 2
    assert not (tmp_path / "1" / "result.json").exists()
    assert not (tmp_path / "1" / "artifacts").exists()


@pytest.mark.slow
@pytest.mark.tensorflow
def test_with_a_batch_for_each_device_batch_and_rate_grow_with_the_devices(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--data", str(data["scaling-image"]), "--seed", "4", "--epochs", "1", "--set", "filters=4")
    ours = ("--per-device", "--set", "batch_size=48", "--set", "learning_rate=0.002")
    process = program("scaling-image", tmp_path / "two", *common, *ours, CPU_DEVICES="2")
    alone = ("--set", "batch_size=96", "--set", "learning_rate=0.004")
    one = trial_here("scaling-image", tmp_path / "one", monkeypatch, *common, *alone)
    ended(process)
    two = result(tmp_path / "two")
    assert (two["info"]["devices"], two["info"]["batch"]) == (2, 96)
    assert two["info"]["losses"] == pytest.approx(one["info"]["losses"], abs=1e-5)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_training_cut_by_its_walltime_comes_to_what_the_uninterrupted_one_does(
    alone: Any, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--data", str(data["scaling-image"]), "--seed", "4", *FEW["scaling-image"])
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "stop").write_text("walltime")
    with pytest.raises(SystemExit) as again:
        trial_here("scaling-image", cut, monkeypatch, *arguments)
    assert again.value.code == 85
    assert not (cut / "result.json").exists()
    (cut / "stop").unlink()
    resumed = trial_here("scaling-image", cut, monkeypatch, *arguments)
    assert resumed["info"]["losses"] == alone["info"]["losses"]
    assert resumed["metrics"]["accuracy"] == alone["metrics"]["accuracy"]


@pytest.mark.tensorflow
def test_a_training_that_diverged_is_worth_nothing(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = Trained(losses=(2.0, float("nan")), diverged=True, seconds=1.0)
    monkeypatch.setattr("workloads.trials.data_parallel.train", lambda *_arguments, **_options: diverged)
    found = trial_here("scaling-image", tmp_path, monkeypatch, "--data", str(data["scaling-image"]))
    assert found["metrics"]["accuracy"] == 0.0
    assert found["info"]["diverged"]
    assert found["info"]["losses"] == [2.0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train_classes": None}, "pictures.npz has no array train_classes"),
        ({"train_pictures": np.zeros((8, 4, 4), np.uint8)}, "train_pictures is uint8 of shape (8, 4, 4)"),
        ({"validation_pictures": np.zeros((8, 6, 6, 3), np.uint8)}, "pictures of different sizes"),
        ({"train_classes": np.zeros(8, np.int64)}, 'train_pictures has no picture of class "b"'),
        ({"train_classes": np.full(8, 2)}, "train_classes do not go from 0 to 1"),
        ({"train_classes": np.zeros(7, np.int64)}, "train_classes is int64 of shape (7,) for 8 pictures"),
    ],
)
def test_pictures_that_do_not_fit_together_are_refused_with_the_files_name(
    changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays: dict[str, Any] = {f"{part}_pictures": np.zeros((8, 4, 4, 3), np.uint8) for part in ("train", "validation")}
    arrays |= {f"{part}_classes": np.arange(8) % 2 for part in ("train", "validation")}
    whole = {**arrays, "classes": np.array(["a", "b"]), **changes}
    np.savez(tmp_path / FILE, **{name: array for name, array in whole.items() if array is not None})
    said = refused(capsys, "scaling-image", "--data", str(tmp_path))
    assert str(tmp_path / FILE) in said
    assert told in said
    assert said.count("\n") == 2  # what is wrong, and what to do


def test_a_file_that_is_no_set_of_pictures_and_one_that_is_not_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "phantom scaling-image --out" in refused(capsys, "scaling-image", "--data", str(tmp_path))
    (tmp_path / FILE).write_text("no")
    assert "pictures.npz cannot be read" in refused(capsys, "scaling-image", "--data", str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("train.target", None, "train.target: no such file"),
        ("train.target", b"x y\n", "train.source has 2 lines and train.target 1"),
        ("validation.source", b"a b\n\n", "validation.source: line 2 has no word"),
        ("validation.source", b"", "validation.source: line 1 has no word"),
        ("train.source", b"\xff\xfe\n", "train.source cannot be read"),
    ],
)
def test_texts_that_do_not_fit_together_are_refused_with_the_files_name(
    file: str, content: bytes | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "validation"):
        (tmp_path / f"{part}.source").write_text("a b\nb a\n")
        (tmp_path / f"{part}.target").write_text("x y\ny x\n")
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    assert told in refused(capsys, "scaling-seq2seq", "--data", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--report-every", "0"], "--report-every must be at least 1"),
        (["--devices", "0"], "--devices must be a whole number of at least 1, not '0'"),
        (["--set", "stages=9"], "parameter 'stages': 9 is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: list[str], told: str, data: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, "scaling-image", "--data", str(data["scaling-image"]), *words)


def test_a_number_of_devices_that_the_environment_says_and_that_is_none_is_refused(
    data: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPU_DEVICES", "two")
    assert "CPU_DEVICES must be" in refused(capsys, "scaling-image", "--data", str(data["scaling-image"]))


def test_a_data_set_is_never_written_over(data: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for task, folder in data.items():
        assert "already holds a data set" in refused(capsys, "phantom", task, "--out", str(folder))


def test_the_same_seed_makes_the_same_pictures_and_the_same_text() -> None:
    one, same, other = (make_pictures(np.random.default_rng(seed), 16)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    texts = [make_pairs(np.random.default_rng(2), make_languages(np.random.default_rng(seed)), 9) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_each_class_has_as_many_pictures_and_an_unknown_one_has_none() -> None:
    numbers = make_pictures(np.random.default_rng(0), 80)[1]
    assert np.bincount(numbers).tolist() == [10] * len(CLASSES)
    with pytest.raises(ValueError, match="no picture is called 'star'"):
        make_picture(np.random.default_rng(0), "star")


def test_pictures_are_read_as_they_were_written(tmp_path: Path) -> None:
    pictures, numbers = make_pictures(np.random.default_rng(0), 16)
    write_pictures(tmp_path, CLASSES, pictures, numbers, pictures[::-1], numbers[::-1])
    found = read_pictures(tmp_path)
    assert np.array_equal(found.training, pictures)
    assert np.array_equal(found.validation_classes, numbers[::-1])
    assert (found.classes, found.size) == (CLASSES, (32, 32, 3))


def test_words_become_numbers_and_sentences_again() -> None:
    words = Vocabulary.of(["b a b", "b c"], most=2)
    assert words.words[4:] == ("b", "a")
    table = words.numbers(["b a", "a c b b b"], 4)
    assert table.tolist() == [[4, 5, 0, 0], [5, 3, 4, 4]]
    assert words.sentence([4, 5, 2, 4]) == "b a"


def test_the_verb_of_the_second_language_comes_last_and_agrees_with_its_subject() -> None:
    for _, target in make_pairs(np.random.default_rng(3), make_languages(np.random.default_rng(3)), 50):
        words = target.split()
        assert words[-1][-2:] == words[0][-2:]  # article and verb end as the subject's gender does


def test_bleu_is_100_for_the_reference_itself_and_falls_with_what_is_wrong() -> None:
    references = ["a b c d e", "f g h i j"]
    assert bleu(references, references).score == pytest.approx(100)
    half = bleu(["a b c d e", "x x x x x"], references).score
    # n-gram precisions 5/10, 4/8, 3/6, 2/4 without a brevity penalty (Papineni et al. 2002).
    assert half == pytest.approx(50)
    assert bleu(["a b c d", "f g h i"], references).brevity == pytest.approx(np.exp(1 - 10 / 8))
    with pytest.raises(ValueError, match="1 translations for 2 references"):
        bleu(["a"], references)
