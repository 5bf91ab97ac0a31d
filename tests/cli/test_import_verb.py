"""`survey import`, and what `survey check` and `survey run` say of a warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from little_study import write_study
from survey_command import Survey, command


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@pytest.fixture
def old(tmp_path: Path) -> str:
    """An Optuna study of four trials, one of them outside the little study's range."""
    url = f"sqlite:///{tmp_path}/old.db"
    study = optuna.create_study(storage=url, study_name="old")
    for x in (0.5, 0.125, 0.75, 0.25):
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": x}, distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)}, value=x
            )
        )
    return url


def best(survey: Survey) -> Any:
    return json.loads(survey("best", "--json").out)["best"][0]


def test_an_imported_study_is_shown_at_once_and_run_goes_on(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path, trials=4)
    ran = survey("import", old, "--study", "study.yaml")
    assert (ran.code, ran.err) == (0, "left out, parameter x cannot be 0.125: trial 1\n")
    assert ran.out.splitlines() == [
        f"toy: 3 trials imported from study 'old' in {tmp_path}/old.db (3 complete)",
        "1 of 4 trials are left: survey run study.yaml",
    ]
    assert best(survey)["info"]["imported_from"]["number"] == 3
    assert "3 complete" in survey("status").out
    assert survey("resume", "toy").code == 0
    assert [trial["state"] for trial in trials(survey)] == ["complete"] * 4
    assert survey("report").code == 0


def test_every_verb_bears_a_study_that_no_driver_has_worked_on(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path, trials=6)
    optuna.load_study(storage=old, study_name="old").add_trial(
        optuna.trial.create_trial(
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
            state=optuna.trial.TrialState.FAIL,
        )
    )
    assert survey("import", old, "--study", "study.yaml").code == 0
    verbs = ["status", "explain", "clean toy", "export toy", "report toy", "check study.yaml", "stop toy", "doctor toy"]
    again = ["retry 3", "status", "explain"]
    assert {verb: survey(*verb.split()).code for verb in [*verbs, *again]} == dict.fromkeys([*verbs, *again], 0)
    assert survey("logs", "0").code == 2
    assert survey("run", "study.yaml").code == 0
    assert [trial["state"] for trial in trials(survey)].count("complete") == 6
    assert survey("doctor", "toy").code == 0


def trials(survey: Survey) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(survey("status", "--json").out)["study"]["trials"]
    return found


def test_an_import_that_fills_the_budget_says_so(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path)
    assert "its budget of 2 trials is spent: raise `trials`" in survey("import", old, "--study", "study.yaml").out


def test_what_cannot_be_imported_ends_with_2_and_words(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path)
    missing = survey("import", "sqlite:///none.db", "--study", "study.yaml")
    assert (missing.code, f"there is no database {tmp_path}/none.db" in missing.err) == (2, True)
    unnamed = survey("import", old, "--study", "study.yaml", "--name", "odl")
    assert (unnamed.code, "holds no study 'odl'" in unnamed.err) == (2, True)
    strange = survey("import", "http://somewhere/", "--study", "study.yaml")
    assert (strange.code, "is of no known kind" in strange.err) == (2, True)
    assert survey("import", old, "--study", "study.yaml", "--json").code == 0
    again = survey("import", old, "--study", "study.yaml")
    assert (again.code, "was begun already" in again.err) == (2, True)


def test_check_says_what_of_the_source_does_not_match(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path, warm_start=old)
    checked = survey("check", "study.yaml")
    assert checked.code == 0
    assert "warm start: 3 trials of study 'old'" in checked.err
    assert "warm start: x: 0 .. 1 there, 0.25 .. 1 here" in checked.err
    assert "warm start: x: outside 0.25 .. 1: 1 of 4 trials are left out" in checked.err
    assert not (tmp_path / "runs").exists()


def test_run_says_it_too_and_the_best_of_the_source_runs_first(survey: Survey, old: str, tmp_path: Path) -> None:
    write_study(tmp_path, warm_start=old)
    ran = survey("run", "study.yaml")
    assert ran.code == 0
    assert "warm-start: x: outside 0.25 .. 1: 1 of 4 trials are left out" in ran.err
    assert [trial["params"]["x"] for trial in trials(survey)] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.csv", "no such table"),
        ("empty.jsonl", "the table is empty"),
        ("text.csv", "no row has a number as 'loss'"),
        ("strange.csv", "has no parameter in common with study 'toy'"),
        ("runs/none", "there is no study in"),
    ],
)
def test_a_source_that_cannot_be_used_ends_check_and_run_with_2(
    survey: Survey, tmp_path: Path, source: str, words: str
) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "text.csv").write_text("x,loss\n0.5,low\n", encoding="utf-8")
    (tmp_path / "strange.csv").write_text("y,loss\n0.5,1\n0.6,2\n", encoding="utf-8")
    write_study(tmp_path, warm_start=source)
    for verb in ("check", "run"):
        ran = survey(verb, "study.yaml")
        assert (ran.code, words in ran.err) == (2, True), ran.err
    assert not (tmp_path / "runs").exists()
