"""``survey simulate``: its answer as a table, as JSON and as a figure, and what it says of bad input."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from little_study import content, write_study
from survey_command import Survey, command

SEEDS = range(24)


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study and a table of it."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, trials=6)
    rows: list[dict[str, Any]] = [
        {"x": 0.25 + 0.75 * number / 23, "loss": abs(math.sin(number)), "seconds": 600 + 60 * number}
        for number in SEEDS
    ]
    lines = ["x,loss,seconds", *(f"{row['x']},{row['loss']},{row['seconds']}" for row in rows)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def words(*more: str) -> tuple[str, ...]:
    short = ("--parallel", "1,4", "--repeats", "1", "--queue-wait", "uniform:5m:20m")
    return ("simulate", "study.yaml", "--table", "table.csv", *short, *more)


def test_the_answer_is_a_table_a_figure_and_a_sentence(survey: Survey, place: Path) -> None:
    ran = survey(*words())
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].split()[:2] == ["way", "N"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["asynchronous", "1"],
        ["asynchronous", "4"],
        ["batches", "4"],
        ["packed", "4"],
    ]
    assert "trial-hours" in lines[0]
    assert any(line.startswith("N = ") and "reaches loss" in line for line in lines)
    assert "table.csv: 24 trainings" in ran.err
    folder = place / "runs" / "simulated-toy"
    assert {path.name for path in folder.iterdir()} == {"simulate.md", "simulate.png", "simulate.svg"}
    assert "<svg" in (folder / "simulate.svg").read_text()
    assert (folder / "simulate.png").read_bytes().startswith(b"\x89PNG")


def test_the_answer_is_one_json_document_too(survey: Survey, place: Path) -> None:
    ran = survey(*words("--json", "--target", "0.2", "--out", "answer"))
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["schema_version"] == 1
    assert document["answer"]["target"] == 0.2
    assert [(line["way"], line["parallel"]) for line in document["answer"]["lines"]] == [
        ("asynchronous", 1),
        ("asynchronous", 4),
        ("batches", 4),
        ("packed", 4),
    ]
    assert document["files"] == ["answer/simulate.png", "answer/simulate.svg", "answer/simulate.md"]
    assert not (place / "runs").exists()


def test_the_study_and_its_table_stay_as_they_are(survey: Survey, place: Path) -> None:
    before = content(place)
    assert survey(*words("--out", "answer", "--ways", "batches", "--sampler", "bo", "--trials", "4")).code == 0
    after = content(place)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"answer"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--parallel", "1,two"), "--parallel '1,two'"),
        (("--parallel", "0"), "--parallel '0'"),
        (("--ways", "batch"), 'did you mean "batches"'),
        (("--ways", "batches", "--parallel", "1"), "has no batches"),
        (("--queue-wait", "lognormal:30m"), "write lognormal:MEDIAN:SIGMA"),
        (("--run-time", "table:fast"), "the factor must be a number above 0"),
        (("--run-time", "table:-1"), "the factor must be a number above 0"),
        (("--seconds", "minutes"), "not every row says how long it took"),
        (("--table", "none.csv"), "none.csv: no such table"),
        (("--sampler", "bogus"), "bogus"),
        (("--failures", "2"), "write a number from 0 to 1"),
        (("--failures", "recorded:."), "holds no study"),
        (("--failures", "1"), "no trial of any simulated study has succeeded"),
    ],
)
def test_bad_input_ends_with_what_is_wrong(survey: Survey, place: Path, more: tuple[str, ...], said: str) -> None:
    ran = survey(*words(*more))
    assert ran.code == 2
    assert said in ran.err
    assert "bug" not in ran.err
    assert not (place / "runs").exists()


def test_run_times_that_a_table_lacks_may_be_given(survey: Survey, place: Path) -> None:
    assert survey(*words("--seconds", "minutes", "--run-time", "lognormal:20m:0.3")).code == 0


def test_the_page_names_the_options_that_there_are(survey: Survey) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate-study.md").read_text(encoding="utf-8")
    there = set(re.findall(r"--[a-z][a-z-]+", survey("simulate", "--help").out))
    assert set(re.findall(r"--[a-z][a-z-]+", page)) <= there
    assert there - set(re.findall(r"--[a-z][a-z-]+", page)) <= {"--help", "--root", "--ways", "--trials", "--sampler"}
