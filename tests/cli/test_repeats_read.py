"""What a user reads of a study whose trials have several runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from little_study import PROGRAM, run, write_study
from survey_command import Survey, command

# Run 2 of trial 1 fails while run 1 goes on; the loss of a run is x / 10 ^ run.
FAILING = (
    'if [ "$SURVEY_TRIAL" = 1 ] && [ "$SURVEY_RUN" = 2 ]; then echo "no luck" >&2; exit 7; fi; '
    'if [ "$SURVEY_TRIAL" = 1 ]; then sleep 60; fi; '
    'echo "run $SURVEY_RUN of $SURVEY_RUNS"; '
)


def ended(place: Path) -> Path:
    """Three trials of two runs, one of which has failed; the best one keeps its artefacts."""
    write_study(place, trials=3, parallel=2, repeats=2, keep={"best": 1}, command=FAILING + PROGRAM)
    ran = run(place, "run", "study.yaml")
    assert ran.code == 0, ran.err
    told = [line for line in ran.err.splitlines() if line.startswith("trial ") and "/3" in line]
    assert len(told) == 3, ran.err
    assert any(line.startswith("trial 1: failed: the program ended with exit code 7") for line in told), ran.err
    assert "\N{PLUS-MINUS SIGN}" in ran.out
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ended(tmp_path_factory.mktemp("repeated"))


@pytest.fixture
def survey(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Survey:
    monkeypatch.chdir(folder)
    return command(capsys)


def test_the_log_is_that_of_the_run_that_went_wrong_or_of_the_one_that_is_named(survey: Survey) -> None:
    wrong = survey("logs", "1")
    assert "trial 1, run 2, attempt 1 of 1: failed" in wrong.err
    assert "no luck" in wrong.out
    assert "run 2 of 2" in survey("logs", "0", "--run", "2").out
    refused = survey("logs", "0", "--run", "3")
    assert refused.code == 2
    assert "trial 0 has no run 3" in refused.err
    assert "it has: 1, 2" in refused.err


def test_a_lost_trial_is_explained_by_its_runs(survey: Survey) -> None:
    said = survey("explain", "1").out.splitlines()
    assert said[0] == "Trial 1 of toy:"
    assert said[1].startswith("Run 1, attempt 1: ended")
    assert "as cancelled" in said[1]
    assert said[2].startswith("Run 2, attempt 1: ended")
    assert "as failed: the program ended with exit code 7" in said[2]
    assert "It is not run again: `retry: failed` is 0." in said[-1]
    assert "The trial is complete" in survey("explain", "0").out


def test_runs_are_exported_one_a_row_and_trials_with_their_spread(survey: Survey) -> None:
    rows = list(csv.DictReader(io.StringIO(survey("export", "--runs").out)))
    assert [(row["number"], row["run"], row["verdict"]) for row in rows] == [
        ("0", "1", "succeeded"),
        ("0", "2", "succeeded"),
        ("1", "1", "cancelled"),
        ("1", "2", "failed"),
        ("2", "1", "succeeded"),
        ("2", "2", "succeeded"),
    ]
    assert rows[0]["params.x"] == rows[1]["params.x"]
    assert float(rows[0]["metrics.loss"]) == float(rows[0]["params.x"])
    trials = json.loads(survey("export", "--json").out)["trials"]
    assert trials[0]["spread.loss"] == 0.0
    assert json.loads(survey("export", "--runs", "--json").out)["runs"][0]["run"] == 1


def test_the_best_trials_files_are_kept_and_copied_by_run(survey: Survey, tmp_path: Path) -> None:
    assert survey("best", "--export", str(tmp_path / "out")).code == 0
    (place,) = (tmp_path / "out").iterdir()
    assert [sorted(file.name for file in (place / "artifacts" / f"run-{n}").iterdir()) for n in (1, 2)] == [
        ["model.txt"],
        ["model.txt"],
    ]


def test_a_lost_database_is_made_again_and_a_failed_trial_asked_for_again_with_all_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ended(tmp_path))
    survey = command(capsys)
    before = json.loads(survey("export", "--json").out)["trials"]
    assert survey("doctor", "runs/toy").code == 0
    Path("runs/toy/study.db").write_bytes(b"no database")
    assert survey("doctor", "runs/toy", "--rebuild").code == 0
    Path("runs/toy/snapshot.json").unlink()
    assert json.loads(survey("export", "--json").out)["trials"] == before

    assert survey("retry", "1").code == 0
    ran = run(Path.cwd(), "run", "study.yaml")
    assert ran.code == 0, ran.err
    trials = json.loads(survey("export", "--json").out)["trials"]
    assert (trials[3]["state"], trials[3]["retry_of"]) == ("complete", 1)
    assert survey("status").out.startswith("toy on local: done")
