from __future__ import annotations

import json
from pathlib import Path

import pytest
from survey_command import Survey, command

from orchestrator.config.study import Study


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "my study (1)"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def test_init_writes_a_study_that_loads_and_its_schema(survey: Survey, folder: Path) -> None:
    ran = survey("init")
    assert (ran.code, ran.out) == (0, "")
    assert "survey check study.yaml" in ran.err
    assert Study.load(folder / "study.yaml").name == "my-study-1"
    schema = json.loads((folder / "study.schema.json").read_text(encoding="utf-8"))
    assert "space" in schema["properties"]


def test_init_writes_into_a_folder_that_it_makes(survey: Survey) -> None:
    assert survey("init", "new/digits", "--example", "digits").code == 0
    assert Study.load(Path("new/digits/study.yaml")).name == "digits"


def test_init_overwrites_nothing_unless_told(survey: Survey) -> None:
    Path("study.yaml").write_text("mine", encoding="utf-8")
    ran = survey("init")
    assert ran.code == 2
    assert "study.yaml exists already" in ran.err
    assert Path("study.yaml").read_text(encoding="utf-8") == "mine"
    assert survey("init", "--force", "--name", "other").code == 0
    assert Study.load(Path("study.yaml")).name == "other"


@pytest.mark.parametrize("words", [["--name", "../x"], ["--example", "digts"]])
def test_init_writes_nothing_when_it_cannot_go_through(survey: Survey, folder: Path, words: list[str]) -> None:
    assert survey("init", *words).code == 2
    assert list(folder.iterdir()) == []


def test_init_says_why_it_cannot_write(survey: Survey) -> None:
    Path("taken").write_text("", encoding="utf-8")
    ran = survey("init", "taken/study.yaml")
    assert ran.code == 2
    assert "taken/study.yaml cannot be written: " in ran.err


def test_schema_prints_what_init_writes(survey: Survey) -> None:
    survey("init")
    ran = survey("schema")
    assert json.loads(ran.out) == json.loads(Path("study.schema.json").read_text(encoding="utf-8"))
