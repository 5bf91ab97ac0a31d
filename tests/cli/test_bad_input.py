"""What a user gets wrong is told on one screen: what, where, what to do; and nothing is lost by it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from little_study import content, run, write_study
from survey_command import Ran, Survey, command

from orchestrator.samplers import registry
from orchestrator.store import atomic


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two trials that has run."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder)
    assert run(folder, "run", "study.yaml").code == 0
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the test is."""
    copy = tmp_path / "place"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "empty"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def record(folder: Path) -> dict[str, bytes]:
    """What may not be lost: all files but the lease, which says who looked last."""
    return {
        name: data
        for name, data in content(folder).items()
        if "/lease/" not in name and not name.endswith("driver.json")
    }


def refused(ran: Ran, code: int, *told: str) -> None:
    """Check that an error is short, in words, and names what is asked of it."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert "this is a bug" not in ran.err
    assert "Traceback" not in ran.err
    assert 1 <= len(ran.err.splitlines()) <= 20
    for words in told:
        assert words in ran.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sampler": "rnadom"}, ["there is no sampler 'rnadom'", "did you mean 'random'?"]),
        ({"sampler": {"name": "tpe", "options": {"multivariat": True}}}, ["did you mean 'multivariate'?"]),
        ({"sampler": {"name": "random", "options": {"popsize": 3}}}, ["sampler random has no option 'popsize'"]),
        ({"sampler": "grid"}, ["parameter x is a real number without a step", "Give it a step"]),
        (
            {"space": {"x": {"type": "float", "low": 2, "high": 1}}},
            ["study.yaml:", "space.x.low: low (2.0) is above high (1.0)"],
        ),
        ({"trails": 3}, ["study.yaml:", 'trails: unknown key; did you mean "trials"?']),
        ({"trials": None}, ['missing key "trials"']),
        ({"trials": "many"}, ["study.yaml:", "trials: ", '"many"']),
        ({"name": "../up"}, ["study.yaml:", "name: "]),
    ],
)
def test_a_study_that_cannot_run_is_refused_before_anything_is_written(
    survey: Survey, empty: Path, changes: dict[str, Any], told: list[str]
) -> None:
    write_study(empty, **changes)
    before = content(empty)
    for verb in ("check", "run"):
        refused(survey(verb, "study.yaml"), 2, *told)
    assert content(empty) == before


def test_a_study_that_was_refused_can_be_mended_and_run(survey: Survey, empty: Path) -> None:
    write_study(empty, sampler="rnadom")
    assert survey("run", "study.yaml").code == 2
    write_study(empty, trials=1)
    assert survey("run", "study.yaml").code == 0


def test_a_sampler_without_its_package_names_the_extra(
    survey: Survey, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.NEEDS, "skopt", ("a_package_that_is_not_there", "skopt"))
    write_study(empty, sampler="skopt")
    refused(survey("run", "study.yaml"), 2, "sampler skopt needs", "pip install 'survey-orchestrator[skopt]'")


def test_a_file_that_is_no_study_is_named_with_the_place_of_the_trouble(survey: Survey, empty: Path) -> None:
    (empty / "binary.yaml").write_bytes(b"\x7fELF\x02\x00\xff\xfe")
    (empty / "folder.yaml").mkdir()
    (empty / "broken.yaml").write_text("name: x\n\tspace: {}\n", encoding="utf-8")
    (empty / "list.yaml").write_text("- a\n", encoding="utf-8")
    (empty / "empty.yaml").write_text("", encoding="utf-8")
    twice = write_study(empty, "twice.yaml")
    twice.write_text(twice.read_text(encoding="utf-8") + "trials: 9\n", encoding="utf-8")
    before = content(empty)
    refused(survey("run", "binary.yaml"), 2, "binary.yaml:1:", "is not UTF-8 text")
    refused(survey("run", "folder.yaml"), 2, "folder.yaml: a folder, not a study file")
    refused(survey("run", "broken.yaml"), 2, "broken.yaml:2:1: a tab")
    refused(survey("run", "list.yaml"), 2, "list.yaml:1: expected a mapping")
    refused(survey("run", "empty.yaml"), 2, "empty.yaml: empty")
    refused(survey("run", "twice.yaml"), 2, 'duplicate key "trials": it is already on line')
    refused(survey("run", "twise.yaml"), 2, "twise.yaml: no such study file", 'Did you mean "twice.yaml"?')
    assert content(empty) == before


def test_a_study_that_may_not_be_read_says_so(survey: Survey, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_study(empty)
    path.chmod(0)
    if os.geteuid() == 0:  # whom permissions do not stop

        def denied(_: Path) -> bytes:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "read_bytes", denied)
    refused(survey("run", "study.yaml"), 2, "study.yaml: cannot be read: Permission denied")


def test_an_unknown_site_is_answered_with_the_near_one(survey: Survey, empty: Path) -> None:
    write_study(empty)
    for verb in ("check", "run"):
        refused(survey(verb, "study.yaml", "--site", "locla"), 2, "locla", 'did you mean "local"?')
    assert not (empty / "runs").exists()


def test_a_metric_that_the_result_lacks_fails_the_trial_and_names_those_it_has(survey: Survey, empty: Path) -> None:
    write_study(empty, trials=1, objective={"metric": "lost", "direction": "minimize"})
    ran = survey("run", "study.yaml")
    assert ran.code == 3
    assert "the result has no metric 'lost' (it has: loss, side)" in ran.err
    assert "survey logs 0" in ran.err
    assert ran.out.startswith("toy: done, 1 failed, 1 planned\n")


def test_a_command_that_does_not_exist_is_named(survey: Survey, empty: Path) -> None:
    write_study(empty, trials=1, command=["no-such-program", "--fast"])
    ran = survey("run", "study.yaml")
    assert ran.code == 3
    assert "cannot start 'no-such-program'" in ran.err


def test_a_line_for_the_shell_may_have_words_that_are_no_file_names(survey: Survey, empty: Path) -> None:
    write_study(empty, trials=1, command=f'true {"x" * 300} ; echo \'{{"metrics": {{"loss": 1}}}}\' > $SURVEY_RESULT')
    ran = survey("run", "study.yaml")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("root", ["afile", "afile/below"])
def test_a_root_that_cannot_be_written_is_named(survey: Survey, empty: Path, root: str) -> None:
    write_study(empty)
    (empty / "afile").write_text("mine", encoding="utf-8")
    before = content(empty)
    refused(survey("run", "study.yaml", "--root", root), 2, f"cannot write {empty}/{root}", "choose a root folder")
    assert content(empty) == before


def test_a_read_only_file_system_is_told_in_words(survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(place, trials=3)
    before = record(place)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic, "_write_synced", read_only)
    refused(survey("run", "study.yaml"), 2, f"cannot write {place}/runs/toy", "Read-only file system", "permissions")
    monkeypatch.undo()
    assert record(place) == before


def test_a_full_disk_pauses_the_study_and_it_goes_on_when_there_is_room(
    survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(place, trials=4)
    before = record(place)
    whole = atomic._write_synced

    def full(path: Path, data: bytes) -> None:
        if "attempt-" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, data)

    monkeypatch.setattr(atomic, "_write_synced", full)
    ran = survey("run", "study.yaml")
    assert ran.code == 4
    assert f"cannot write {place}/runs/toy/ledger/0000" in ran.err
    assert "No space left on device" in ran.err
    assert "free space or quota there" in ran.err
    assert ran.out.startswith("toy: paused")
    monkeypatch.setattr(atomic, "_write_synced", whole)
    assert {name: data for name, data in record(place).items() if "/ledger/" in name} == {
        name: data for name, data in before.items() if "/ledger/" in name
    }
    ran = survey("resume")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("toy: done, 4 complete, 4 planned")


def test_a_disk_that_fills_up_under_the_log_of_events_is_no_bug(
    survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(place, trials=3)
    events = place / "runs/toy/events.jsonl"
    events.unlink()
    events.symlink_to("/dev/full")
    ran = survey("run", "study.yaml")
    assert ran.code == 4
    assert "No space left on device" in ran.err
    assert "this is a bug" not in ran.err


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trials": 1}, "trials: 2 -> 1 (trials may only grow)"),
        ({"space": {"x": {"type": "float", "low": 0.25, "high": 2.0}}}, "space.x.high: 1.0 -> 2.0"),
        ({"command": "true"}, 'command: "'),
    ],
)
def test_another_study_of_the_same_name_is_refused_with_the_differences(
    survey: Survey, place: Path, changes: dict[str, Any], line: str
) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    write_study(elsewhere, **changes)
    before = content(place)
    refused(survey("run", "elsewhere/study.yaml"), 6, f"{place}/runs/toy", line, "give the new study another name")
    assert content(place) == before


def test_a_database_of_another_study_is_refused(survey: Survey, place: Path) -> None:
    write_study(place, name="other")
    assert survey("run", "study.yaml").code == 0
    shutil.copy(place / "runs/other/study.db", place / "runs/toy/study.db")
    write_study(place, trials=3)
    before = record(place)
    refused(survey("run", "study.yaml"), 6, "runs/toy/study.db holds the study 'other', not 'toy'")
    after = record(place)
    assert {name for name in before if before[name] != after[name]} <= {
        "runs/toy/study.yaml",
        "runs/toy/site.yaml",
        "runs/toy/provenance.json",
        "runs/toy/events.jsonl",
    }


def test_a_corrupt_database_pauses_the_study_and_can_still_be_read_about(survey: Survey, place: Path) -> None:
    (place / "runs/toy/study.db").write_bytes(b"no database at all" * 400)
    refused(survey("run", "study.yaml"), 4, "runs/toy/study.db cannot be used: file is not a database")
    ran = survey("status")
    assert ran.code == 0
    assert "2 complete" in ran.out


@pytest.mark.parametrize("damage", [b'{"snapshot_version": 1, "na', b"[1, 2]", b"\xff\xfe", b""])
def test_a_corrupt_snapshot_is_made_good_from_the_database(survey: Survey, place: Path, damage: bytes) -> None:
    best = survey("best").out
    (place / "runs/toy/snapshot.json").write_bytes(damage)
    assert survey("status").out.startswith("toy on local: done\n2 complete")
    assert survey("best").out == best


def test_without_snapshot_and_database_there_is_nothing_to_read(survey: Survey, place: Path) -> None:
    (place / "runs/toy/snapshot.json").unlink()
    (place / "runs/toy/study.db").unlink()
    for verb in ("status", "best", "export", "report"):
        refused(survey(verb), 1, "runs/toy/study.db")


def test_a_torn_ledger_file_is_named_and_left_as_it_is(survey: Survey, place: Path) -> None:
    torn = place / "runs/toy/ledger/00001/attempt-1.json"
    torn.write_bytes(torn.read_bytes()[:-30])
    before = record(place)
    refused(survey("logs", "1"), 1, str(torn), "restore it from a backup")
    assert survey("logs", "0").out == "trial 0\ncareful\n"
    assert record(place) == before


def test_a_study_goes_on_when_its_study_file_is_gone(survey: Survey, place: Path) -> None:
    (place / "study.yaml").unlink()
    refused(survey("run", "study.yaml"), 2, "study.yaml: no such study file", "survey resume toy")
    for name in ("toy", "runs/toy", "./runs/toy/"):
        ran = survey("resume", name)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("toy: done, 2 complete")


def test_a_study_that_was_never_run_is_told_from_one_that_is_not_there(survey: Survey, place: Path) -> None:
    write_study(place, "two.yaml", name="two")
    refused(
        survey("status", "two.yaml"), 2, "study 'two' of two.yaml has not been run below runs", "survey run two.yaml"
    )
    refused(survey("status", "tyo"), 2, "no study 'tyo' below runs", "did you mean 'toy'?")
    refused(survey("status", "--root", "nowhere"), 2, "no study below nowhere", "--root")


def test_the_folder_of_a_study_file_is_not_taken_for_its_record(survey: Survey, empty: Path) -> None:
    home = empty / "toy"
    home.mkdir()
    text = write_study(home, trials=1).read_bytes()
    before = content(empty)
    refused(survey("status", "toy"), 2, "has not been run")
    refused(survey("run", "toy/study.yaml", "--root", "."), 2, "would lie among its own files", "--root")
    assert content(empty) == before
    assert survey("run", "toy").code == 0
    assert (empty / "runs/toy/snapshot.json").is_file()
    assert (home / "study.yaml").read_bytes() == text


def test_jobs_in_flight_are_not_left_behind_by_changing_the_site(survey: Survey, place: Path) -> None:
    flying = place / "runs/toy/ledger/00001/attempt-1.json"
    attempt = json.loads(flying.read_text(encoding="utf-8"))
    flying.write_text(json.dumps({**attempt, "outcome": None}), encoding="utf-8")
    before = content(place)
    refused(survey("run", "study.yaml", "--site", "slurm"), 6, "in flight on site 'local'", "00001", "--site local")
    assert content(place) == before
