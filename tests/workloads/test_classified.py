"""What is done with a classifier's answers: metrics, intervals over patients, what is kept and shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from workloads.__main__ import main
from workloads.evaluation.classification import Classified, Shown, _chosen, intervals, summarise, write_artifacts


def found(truth: list[int], odds: list[list[float]], patients: list[str] | None = None) -> Classified:
    names = tuple(f"case {index}" for index in range(len(truth)))
    classes = ("cat", "dog", "eel")[: len(odds[0])]
    probabilities = np.array(odds)
    return Classified(
        names=names,
        classes=classes,
        truth=np.array(truth),
        probabilities=probabilities,
        patients=tuple(patients) if patients else names,
    )


def test_the_metrics_are_worked_out_by_hand() -> None:
    # Cats: 3 of 4 right; the only dog wrong.
    two = found([0, 0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
    expected = {"accuracy": 0.6, "balanced_accuracy": 0.375, "accuracy_cat": 0.75, "accuracy_dog": 0.0, "auc": 0.75}
    assert summarise(two) == pytest.approx(expected)


def test_three_classes_have_no_roc_curve() -> None:
    three = found([0, 1, 2], np.eye(3).tolist())
    metrics = summarise(three)
    assert "auc" not in metrics
    assert metrics["balanced_accuracy"] == 1.0
    assert set(intervals(three)) == {"accuracy", "balanced_accuracy"}


def test_pictures_of_one_patient_are_drawn_together() -> None:
    truth, odds = [0] * 20 + [1] * 20, ([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10) * 2
    alone = intervals(found(truth, odds))["accuracy"]
    together = intervals(found(truth, odds, [str(index // 10) for index in range(40)]))["accuracy"]
    assert alone.high - alone.low < 0.4
    assert together.high - together.low > 0.9  # four patients, two wholly right


def test_wrong_cases_are_shown_first_and_then_each_class_in_turn() -> None:
    odds = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]]
    order = _chosen(found([0, 0, 0, 1, 1, 1], odds))
    assert order[:2] == [2, 4]  # the truth at 0.2, then at 0.3
    assert order[2:] == [1, 3, 0, 5]


def test_no_more_is_shown_than_there_is_room_for() -> None:
    assert len(_chosen(found([0] * 30, [[0.9, 0.1]] * 30))) == 12
    assert len(_chosen(found([0] * 30, [[0.1, 0.9]] * 30))) == 8


def test_answers_and_confusion_are_kept_as_tables(tmp_path: Path) -> None:
    two = found([0, 1, 1], [[0.9, 0.1], [0.75, 0.25], [0.5, 0.5]])
    write_artifacts(tmp_path, two, lambda index: Shown(image=np.full((4, 4), index)))
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["case", "truth", "answer", "probability_cat", "probability_dog"]
    assert rows[2] == ["case 1", "dog", "cat", "0.75", "0.25"]
    assert (tmp_path / "confusion.csv").read_text().splitlines() == ["truth,cat,dog", "cat,1,0", "dog,2,0"]
    for name in ("overview.png", "confusion.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".partial-*"))


def test_digits_measures_and_keeps_what_other_classifiers_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURVEY_RESULT", str(tmp_path / "result.json"))
    monkeypatch.setenv("SURVEY_PROGRESS", str(tmp_path / "progress.jsonl"))
    assert main(["digits", "--epochs", "3", "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    metrics = result["metrics"]
    reported = [json.loads(line)["value"] for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert metrics["accuracy"] == reported[-1]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean([metrics[f"accuracy_{digit}"] for digit in range(10)]))
    assert result["info"]["accuracy_interval"]["low"] < metrics["accuracy"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([row["truth"] == row["answer"] for row in rows]) == pytest.approx(metrics["accuracy"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"predictions.csv", "confusion.csv", "confusion.png", "overview.png"}
