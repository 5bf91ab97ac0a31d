"""Failed trials that are asked for again: new trials in the same places of the budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from little_study import PROGRAM, content, run, write_study
from survey_command import Survey, command

from orchestrator.clock import SystemClock
from orchestrator.store.lease import Lease

# Odd trials fail for as long as the file `broken` is there.
FAILING = f'if [ -e "$BROKEN" ] && [ $((SURVEY_TRIAL % 2)) = 1 ]; then exit 3; fi; {PROGRAM}'


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@pytest.fixture
def failed(tmp_path: Path, survey: Survey) -> Path:
    """The folder of a study of four trials, of which 1 and 3 have failed."""
    broken = tmp_path / "broken"
    broken.touch()
    write_study(tmp_path, trials=4, command=FAILING, environment={"BROKEN": str(broken)})
    assert survey("run", "study.yaml").code == 0
    broken.unlink()
    return tmp_path


def trials(survey: Survey) -> dict[int, dict[str, Any]]:
    return {trial["number"]: trial for trial in json.loads(survey("status", "--json").out)["study"]["trials"]}


def test_a_failed_trial_is_run_again_in_its_place_and_the_study_does_not_grow(survey: Survey, failed: Path) -> None:
    asked = survey("retry", "3", "1", "3")
    assert asked.code == 0, asked.err
    assert asked.out == (
        "trial 3 is asked for again, as trial 4\ntrial 1 is asked for again, as trial 5\n`survey run toy` runs them\n"
    )
    state = json.loads(survey("status", "--json").out)["study"]["state"]
    assert state == "interrupted"
    ran = survey("run", "study.yaml")
    assert ran.code == 0, ran.err
    assert "study: 4 trials, 2 done and 0 in flight before" in ran.err
    assert ran.out.startswith("toy: done, 4 complete, 4 planned")
    after = trials(survey)
    assert [(number, trial["state"], trial["retry_of"]) for number, trial in after.items()] == [
        (0, "complete", None),
        (1, "failed", None),
        (2, "complete", None),
        (3, "failed", None),
        (4, "complete", 3),
        (5, "complete", 1),
    ]
    assert after[4]["params"] == after[3]["params"]
    assert after[5]["params"] == after[1]["params"]
    # The budget is spent: another run finds nothing to do.
    assert survey("run", "study.yaml").out.startswith("toy: done, 4 complete, 4 planned")
    assert len(trials(survey)) == 6


def test_all_that_failed_can_be_asked_for_at_once_and_once_only(survey: Survey, failed: Path) -> None:
    asked = survey("retry", "--all", "--json")
    assert json.loads(asked.out)["retries"] == [{"trial": 4, "retry_of": 1}, {"trial": 5, "retry_of": 3}]
    again = survey("retry", "--all")
    assert (again.code, again.out) == (0, "no trial has failed\n")


def test_a_study_that_failed_too_often_is_well_again_once_its_retries_are(survey: Survey, failed: Path) -> None:
    (failed / "broken").touch()
    write_study(
        failed, trials=4, command=FAILING, environment={"BROKEN": str(failed / "broken")}, failures={"most": 0.4}
    )
    assert survey("run", "study.yaml").code == 3
    (failed / "broken").unlink()
    assert survey("retry", "1").code == 0
    assert survey("run", "study.yaml").code == 0


def test_a_retry_that_fails_too_can_be_asked_for_in_its_turn(survey: Survey, failed: Path) -> None:
    (failed / "broken").touch()
    survey("retry", "1")  # as trial 4, which is even
    survey("retry", "3")  # as trial 5, which fails
    assert survey("run", "study.yaml").code == 0
    assert trials(survey)[5]["state"] == "failed"
    (failed / "broken").unlink()
    assert survey("retry", "3").code == 2
    assert survey("retry", "5").out.startswith("trial 5 is asked for again, as trial 6")
    assert survey("run", "study.yaml").out.startswith("toy: done, 4 complete, 4 planned")


def test_what_cannot_be_run_again_is_told_and_nothing_is_asked_for(survey: Survey, failed: Path) -> None:
    refused = [
        (("1", "9"), "the study has no trial 9", "its trials are 0 to 3"),
        (("1", "0"), "trial 0 is complete", "only a failed trial is asked for again"),
        ((), "name the trials that are to run again, or say --all", "survey status"),
        (("1", "--all"), "name the trials that are to run again, or say --all", "survey status"),
    ]
    for words, complaint, hint in refused:
        asked = survey("retry", *words)
        assert asked.code == 2
        assert complaint in asked.err
        assert hint in asked.err
    assert len(trials(survey)) == 4
    survey("retry", "1")
    assert "It was asked for again, and trial 4 has its place." in survey("explain", "1").out
    twice = survey("retry", "3", "1")
    assert twice.code == 2
    assert "trial 1 was asked for again already, as trial 4" in twice.err
    assert len(trials(survey)) == 5


def test_while_a_driver_runs_nothing_is_asked_for(survey: Survey, failed: Path) -> None:
    folder = failed / "runs/toy"
    with Lease.acquire(folder, SystemClock()):
        before = (folder / "study.db").read_bytes()
        asked = run(failed, "retry", "1")
        assert asked.code == 5
        assert (folder / "study.db").read_bytes() == before
    assert content(folder)["study.db"] == before


def test_a_study_whose_programs_all_die_at_once_pauses_and_once_mended_loses_nothing_of_its_budget(
    survey: Survey, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    program = f'if [ -e "$BROKEN" ]; then echo no such module >&2; exit 3; fi; {PROGRAM}'
    settings: dict[str, Any] = {
        "parallel": 1,
        "environment": {"BROKEN": str(broken)},
        "failures": {"instant_deaths": 3},
    }
    write_study(tmp_path, trials=6, command=program, **settings)
    ran = survey("run", "study.yaml")
    assert ran.code == 4
    assert "3 attempts in a row died within 10 s of their start; the last one: 00002" in ran.err
    assert "the program ended with exit code 3" in ran.err
    assert "mend the cause, then `survey run` goes on" in ran.err
    assert [trial["state"] for trial in trials(survey).values()] == ["failed", "failed", "failed", "running"]
    assert json.loads(survey("status", "--json").out)["study"]["state"] == "paused"
    broken.unlink()
    assert survey("retry", "--all").code == 0
    again = survey("run", "study.yaml")
    assert again.code == 0, again.err
    assert again.out.startswith("toy: done, 6 complete, 6 planned")
