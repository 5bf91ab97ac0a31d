"""``survey clean``: what can go is told first, goes on demand, and nothing else is ever touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from little_study import PROGRAM, content, end, run, start, until, write_study
from survey_command import Survey, command

# Trial 3 fails; every trial leaves a checkpoint of 1000 bytes.
LEAVING = f'head -c 1000 /dev/zero > "$SURVEY_CHECKPOINT/state"; [ "$SURVEY_TRIAL" = 3 ] && exit 3; {PROGRAM}'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four trials, one of which failed, and which keeps the best one's files."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, trials=4, parallel=1, keep={"best": 1}, failures={"most": 1.0}, command=LEAVING)
    ran = run(folder, "run", "study.yaml")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which complete trials that are not the best have left something, too."""
    monkeypatch.chdir(tmp_path)
    copied = shutil.copytree(finished / "runs", tmp_path / "runs") / "toy"
    for number in range(3):
        trial = copied / "trials" / f"{number:05d}"
        for folder in (trial / "checkpoint", trial / "attempt-1" / "artifacts"):
            folder.mkdir(exist_ok=True)
            (folder / "state").write_bytes(b"x" * 1000)
            (folder / "deeper").mkdir()
            (folder / "deeper" / "model").write_bytes(b"x" * 500)
    return copied


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def best(survey: Survey) -> int:
    number: int = json.loads(survey("best", "--json").out)["best"][0]["number"]
    return number


def items(survey: Survey, *words: str) -> dict[str, Any]:
    ran = survey("clean", "toy", "--json", *words)
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["bytes"] == sum(item["size"] for item in told["items"])
    return {str(Path(item["path"]).relative_to(told["root"])): item for item in told["items"]}


def test_without_yes_it_is_told_and_nothing_is_removed(study: Path, survey: Survey) -> None:
    before = content(study)
    ran = survey("clean", "toy")
    assert ran.code == 0
    assert ran.out.splitlines() == ["local: checkpoints of 3 trials, 4.0 kB", "local: artefacts of 2 trials, 3.0 kB"]
    assert "7.0 kB can go; nothing was removed" in ran.err
    assert "--yes" in ran.err
    assert content(study) == before


def test_what_is_not_of_the_best_goes_and_the_rest_stays_as_it_is(study: Path, survey: Survey) -> None:
    kept, before = best(survey), content(study)
    spare = items(survey)
    others = [number for number in range(4) if number != kept]
    assert {item["trial"] for item in spare.values()} == set(others)
    assert {item["kind"] for item in spare.values()} == {"checkpoints", "artefacts"}
    assert spare[f"trials/{others[0]:05d}/checkpoint"]["size"] == 1500
    ran = survey("clean", "toy", "--yes")
    assert ran.code == 0, ran.err
    assert "removed 7.0 kB" in ran.err
    after = content(study)
    gone = {name for name in set(before) - set(after) if not name.startswith("lease/")}
    assert gone == {name for name in before if any(name.startswith(f"{path}/") for path in spare)}
    lease = {"driver.json", *(name for name in (*before, *after) if name.startswith("lease/"))}
    assert {name: after[name] for name in set(after) - lease} == {
        name: before[name] for name in set(before) - gone - lease
    }
    again = survey("clean", "toy", "--yes")
    assert "there is nothing" in again.err
    assert survey("run", "toy").code == 0
    assert survey("doctor", "toy").code == 0


def test_what_complete_trials_printed_goes_only_when_asked_for(study: Path, survey: Survey) -> None:
    assert "output" not in {item["kind"] for item in items(survey).values()}
    printed = {path: item for path, item in items(survey, "--logs").items() if item["kind"] == "output"}
    assert set(printed) == {
        f"trials/{number:05d}/attempt-1/{name}" for number in range(3) for name in ("stdout", "stderr")
    }
    assert survey("clean", "toy", "--logs", "--yes").code == 0
    assert not any((study / path).exists() for path in printed)
    assert (study / "trials" / "00003" / "attempt-1" / "stdout").exists()


def test_old_libraries_go_once_nothing_is_in_flight(study: Path, survey: Survey) -> None:
    (current,) = (study / "lib").iterdir()
    shutil.copytree(current, study / "lib" / "0123456789ab")
    assert [path for path, item in items(survey).items() if item["kind"] == "libraries"] == ["lib/0123456789ab"]
    attempt = study / "ledger" / "00002" / "attempt-1.json"
    attempt.write_text(json.dumps({**json.loads(attempt.read_text()), "outcome": None}))
    spare = items(survey)
    assert not [path for path in spare if path.startswith(("lib/", "trials/00002"))]


def test_no_link_is_followed_and_nothing_outside_is_named(study: Path, survey: Survey, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 5000)
    number = next(number for number in range(3) if number != best(survey))
    trial = study / "trials" / f"{number:05d}"
    shutil.rmtree(trial / "checkpoint")
    (trial / "checkpoint").symlink_to(outside)
    (trial / "attempt-1" / "artifacts" / "data").symlink_to(outside)
    (study / "lib" / "old").symlink_to(outside)
    spare = items(survey, "--yes")
    assert f"trials/{number:05d}/checkpoint" not in spare
    assert spare[f"trials/{number:05d}/attempt-1/artifacts"]["size"] == 1500
    assert "lib/old" not in spare
    assert (outside / "precious").stat().st_size == 5000
    assert (trial / "checkpoint").is_symlink()


def test_what_cannot_be_removed_is_named(study: Path, survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_named: None)
    ran = survey("clean", "toy", "--yes")
    assert ran.code == 1
    assert "5 of 5 could not be removed, the first one: " in ran.err


def test_a_driver_at_work_is_not_disturbed_and_unfinished_trials_keep_everything(
    tmp_path: Path, survey: Survey
) -> None:
    gate = {"GATE": str(tmp_path / "gate")}
    write_study(tmp_path, trials=2, parallel=2, keep={"best": 1}, command=LEAVING, environment=gate)
    driver = start(tmp_path, "run", "study.yaml")
    folder = tmp_path / "runs" / "toy"
    try:
        until(lambda: len(list(folder.glob("trials/*/checkpoint/state"))) == 2, "two checkpoints")
        ran = survey("clean", str(folder), "--yes")
        assert ran.code == 5
        assert f"process {driver.pid} " in ran.err
    finally:
        driver.kill()
        end(driver)
    ran = survey("clean", str(folder), "--yes")
    assert ran.code == 0, ran.err
    assert "there is nothing" in ran.err
    assert len(list(folder.glob("trials/*/checkpoint/state"))) == 2
    (tmp_path / "gate").touch()
    assert run(tmp_path, "run", "study.yaml").code == 0


def test_a_work_root_elsewhere_is_cleaned_and_only_the_studys_own_part_of_it(tmp_path: Path, survey: Survey) -> None:
    scratch = tmp_path / "scratch"
    site = {"schema_version": 1, "name": "here", "extends": "local", "work_root": str(scratch)}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    write_study(tmp_path, trials=2, parallel=1, keep={"best": 0}, command=LEAVING)
    ran = run(tmp_path, "run", "study.yaml", "--site", "site.yaml")
    assert ran.code == 0, ran.err
    (root,) = scratch.iterdir()
    other = scratch / "other-abc123" / "trials" / "00000" / "checkpoint"
    other.mkdir(parents=True)
    (other / "state").touch()
    left = root / "trials" / "00001" / "checkpoint"
    left.mkdir(exist_ok=True)
    (left / "state").write_bytes(b"x" * 10)
    told = survey("clean", str(tmp_path / "runs" / "toy"), "--yes", "--json")
    assert told.code == 0, told.err
    assert [item["path"] for item in json.loads(told.out)["items"]] == [str(left)]
    assert not left.exists()
    assert (other / "state").exists()
