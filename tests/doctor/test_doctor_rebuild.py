"""``survey doctor STUDY --rebuild``: a database that is lost comes back from the attempt files, and the study goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from little_study import PROGRAM, content, end, run, start, until, write_study
from survey_command import Survey, command

DATABASES: dict[str, dict[str, Any]] = {"study.db": {}, "study.log": {"storage": "journal:study.log"}}
COUNTED = 'echo "$SURVEY_TRIAL" >> "$COUNT"; [ "$SURVEY_TRIAL" = 1 ] && exit 3; ' + PROGRAM


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@pytest.fixture(scope="module", params=DATABASES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has run: two trials complete, one failed."""
    folder = tmp_path_factory.mktemp("finished")
    changes = {"environment": {"COUNT": str(folder / "count")}, **DATABASES[request.param]}
    write_study(folder, trials=3, failures={"most": 1.0}, command=COUNTED, **changes)
    ran = run(folder, "run", "study.yaml")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of its record, to be spoilt."""
    return shutil.copytree(finished / "runs", tmp_path / "runs") / "toy"


def database(study: Path) -> Path:
    return next(study / name for name in DATABASES if (study / name).exists())


def trials(survey: Survey, study: Path) -> Any:
    ran = survey("export", str(study), "--format", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)["trials"]


def test_a_damaged_database_is_made_again_and_reads_as_before(study: Path, survey: Survey) -> None:
    path, before = database(study), trials(survey, study)
    path.write_bytes(b"rubbish\n" * 1000)
    assert "--rebuild" in survey("doctor", str(study)).out
    ran = survey("doctor", str(study), "--rebuild")
    assert ran.code == 0, ran.out + ran.err
    assert "was made again: 2 complete, 1 failed" in ran.err
    kept = Path(ran.err.partition("the old one is kept: ")[2].splitlines()[0])
    assert kept.read_bytes() == b"rubbish\n" * 1000
    (study / "snapshot.json").unlink()  # the database itself is to be read
    assert trials(survey, study) == before
    again = survey("run", str(study))
    assert again.code == 0, again.err
    assert trials(survey, study) == before


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_database_that_is_gone_comes_back_and_nothing_is_run_again(
    study: Path, finished: Path, survey: Survey, snapshot: bool
) -> None:
    before, count = trials(survey, study), (finished / "count").read_text()
    database(study).unlink()
    if not snapshot:
        (study / "snapshot.json").unlink()
    ran = survey("doctor", str(study), "--rebuild")
    assert ran.code == 0, ran.out + ran.err
    # Whether a failure that no reader has seen is final is the next driver's to decide.
    assert "2 complete" in ran.err
    assert ("1 failed" if snapshot else "1 running") in ran.err
    again = survey("run", str(study))
    assert again.code == 0, again.err
    told = trials(survey, study)
    for trial in (*told, *before):
        for name in set() if snapshot else {"created", "ask_seconds"}:
            del trial[name]
    assert told == before
    assert (finished / "count").read_text() == count


def test_a_database_that_is_well_is_left_alone(study: Path, survey: Survey) -> None:
    before = content(study)
    ran = survey("doctor", str(study), "--rebuild")
    assert ran.code == 0
    assert "nothing to rebuild" in ran.err
    assert content(study) == before


def test_an_older_copy_is_replaced_by_what_the_attempt_files_know(tmp_path: Path, survey: Survey) -> None:
    write_study(tmp_path, trials=2)
    assert survey("run", "study.yaml").code == 0
    study = tmp_path / "runs" / "toy"
    old = (study / "study.db").read_bytes()
    write_study(tmp_path, trials=4)
    assert survey("run", "study.yaml").code == 0
    before = trials(survey, study)
    (study / "study.db").write_bytes(old)
    refused = survey("run", "study.yaml")
    assert refused.code == 4
    assert "lacks the trials 2, 3" in refused.err
    ran = survey("doctor", str(study), "--rebuild")
    assert ran.code == 0, ran.out + ran.err
    assert survey("run", "study.yaml").code == 0
    assert trials(survey, study) == before


def test_a_study_whose_driver_and_database_died_goes_on_with_its_exact_budget(tmp_path: Path, survey: Survey) -> None:
    environment = {"COUNT": str(tmp_path / "count"), "GATE": str(tmp_path / "gate")}
    write_study(
        tmp_path, trials=4, parallel=2, command=f'echo "$SURVEY_TRIAL" >> "$COUNT"; {PROGRAM}', environment=environment
    )
    driver = start(tmp_path, "run", "study.yaml")
    study, count = tmp_path / "runs" / "toy", tmp_path / "count"
    until(lambda: count.exists() and len(count.read_text().split()) == 2, "two trials")
    busy = survey("doctor", "toy", "--rebuild")
    assert busy.code == 5
    assert f"process {driver.pid} " in busy.err
    driver.kill()
    end(driver)
    (study / "study.db").write_bytes(b"")
    ran = survey("doctor", "toy", "--rebuild")
    assert ran.code == 0, ran.out + ran.err
    assert "2 running" in ran.err
    (tmp_path / "gate").touch()
    again = run(tmp_path, "run", "study.yaml")
    assert again.code == 0, again.err
    assert [trial["state"] for trial in trials(survey, study)] == ["complete"] * 4
    assert Counter(count.read_text().split()) == {str(number): 1 for number in range(4)}


def test_an_attempt_file_that_cannot_be_read_is_named_and_nothing_is_changed(study: Path, survey: Survey) -> None:
    database(study).write_bytes(b"rubbish\n" * 1000)
    broken = study / "ledger" / "00001" / "attempt-1.json"
    broken.write_bytes(b"{")
    before = content(study)
    ran = survey("doctor", str(study), "--rebuild")
    assert ran.code == 1
    assert str(broken) in ran.err
    after = content(study)
    kept = {name for name in before if not name.startswith(("lease/", "driver.json"))}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_rebuild_without_a_study_is_refused(survey: Survey) -> None:
    ran = survey("doctor", "--rebuild")
    assert ran.code == 2
    assert "survey doctor STUDY --rebuild" in ran.err
