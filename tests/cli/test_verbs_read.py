"""What a user reads of a study that has run: status, logs, best, export, report, check."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from little_study import content, end, run, start, until, write_study
from survey_command import Ran, Survey, command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A study of four trials that keeps the artefacts of the best one."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, trials=4, keep={"best": 1}, metrics=["side"])
    return folder, run(folder, "run", "study.yaml")


@pytest.fixture
def place(finished: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished[0])
    return finished[0]


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def trials(survey: Survey) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(survey("export", "--json").out)["trials"]
    return found


def test_a_run_tells_its_result_on_stdout_and_its_story_on_stderr(finished: tuple[Path, Ran]) -> None:
    folder, ran = finished
    assert ran.code == 0, ran.err
    told = ran.out.splitlines()
    assert told[0] == "toy: done, 4 complete, 4 planned"
    assert told[1].startswith("best: trial ")
    assert told[2].startswith("  x = 0.")
    assert told[-1] == f"record: {folder}/runs/toy"
    story = ran.err.splitlines()
    assert story[0] == "study: 4 trials"
    assert len([line for line in story if line.startswith("trial ")]) == 4
    assert any("(best)" in line for line in story)
    assert story[-1].endswith("[4/4]")
    assert "\x1b" not in ran.out + ran.err


@pytest.mark.parametrize("name", ["study.yaml", "runs/toy", "toy", ""])
def test_a_study_is_meant_by_its_file_its_folder_its_name_or_being_the_latest(
    survey: Survey, place: Path, name: str
) -> None:
    ran = survey("status", *([name] if name else []))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("toy on local: done\n4 complete; 4 planned, 2 in parallel, sampler random\n")


def test_status_names_the_best_trial_as_best_does(survey: Survey, place: Path) -> None:
    first = survey("best").out.splitlines()[0]
    assert f"best: {first.replace(':', ',', 1)}" in survey("status").out.splitlines()


def test_status_tells_times_of_the_readers_clock(survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        return next(line for line in survey("status").out.splitlines() if line.startswith("as of "))

    seen = set()
    for zone in ("UTC", "Asia/Tokyo"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        seen.add(shown())
    monkeypatch.undo()
    time.tzset()
    assert len(seen) == 2


def test_status_as_json_is_the_record(survey: Survey, place: Path) -> None:
    ran = survey("status", "--json")
    found = json.loads(ran.out)
    assert found["schema_version"] == 1
    assert (found["study"]["name"], found["study"]["state"]) == ("toy", "done")
    assert [trial["state"] for trial in found["study"]["trials"]] == ["complete"] * 4


def test_logs_shows_what_a_trial_printed_and_where_it_lies(survey: Survey, place: Path) -> None:
    ran = survey("logs", "2")
    assert ran.code == 0
    assert ran.out == "trial 2\ncareful\n"
    assert ran.err.splitlines() == [
        "trial 2, attempt 1 of 1: succeeded",
        f"==> {place}/runs/toy/trials/00002/attempt-1/stdout <==",
        f"==> {place}/runs/toy/trials/00002/attempt-1/stderr <==",
    ]


def test_logs_shows_the_last_lines_only(survey: Survey, place: Path) -> None:
    stdout = place / "runs/toy/trials/00003/attempt-1/stdout"
    stdout.write_text("".join(f"line {number}\n" for number in range(10)), encoding="utf-8")
    assert survey("logs", "3", "-n", "2").out == "line 8\nline 9\ncareful\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["99"], "trial 99 of toy has no attempt\n  trials 0 to 3 have"),
        (["1", "--attempt", "2"], "trial 1 has no attempt 2\n  it has: 1"),
        (["-n", "0", "1"], "-n"),
    ],
)
def test_logs_says_which_trials_and_attempts_there_are(
    survey: Survey, place: Path, words: list[str], told: str
) -> None:
    ran = survey("logs", *words)
    assert ran.code == 2
    assert told in ran.err


def test_best_ranks_by_the_objective(survey: Survey, place: Path) -> None:
    losses = sorted(float(str(trial["values.loss"])) for trial in trials(survey))
    ran = survey("best", "-n", "3")
    headings = [line for line in ran.out.splitlines() if line.startswith("trial ")]
    assert [float(line.rsplit("=", 1)[1]) for line in headings] == pytest.approx(losses[:3], rel=1e-5)
    found = json.loads(survey("best", "-n", "3", "--json").out)
    assert [trial["values"][0] for trial in found["best"]] == losses[:3]
    assert "side 2.5" in ran.out


def test_best_exports_what_is_kept_and_only_the_best_is_kept(survey: Survey, place: Path, tmp_path: Path) -> None:
    ran = survey("best", "-n", "2", "--export", str(tmp_path / "out"))
    assert ran.code == 0
    assert "exported 2 trials" in ran.err
    first, second = sorted((tmp_path / "out").iterdir())
    facts = json.loads((first / "trial.json").read_text(encoding="utf-8"))
    assert (first / "artifacts/model.txt").read_text(encoding="utf-8") == f"model {facts['trial']}\n"
    assert facts["values"] == [facts["params"]["x"]]
    assert [path.name for path in second.iterdir()] == ["trial.json"]
    assert "kept no artefacts" in ran.err
    assert len(list((place / "runs/toy/trials").rglob("model.txt"))) == 1


def test_best_says_why_it_cannot_export(survey: Survey, place: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    ran = survey("best", "--export", str(tmp_path / "taken"))
    assert ran.code != 0
    assert f"cannot write {tmp_path}/taken" in ran.err
    assert "bug" not in ran.err


def test_export_is_one_row_a_trial(survey: Survey, place: Path) -> None:
    ran = survey("export")
    table = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["number"] for row in table] == ["0", "1", "2", "3"]
    assert all(row["params.x"] == row["values.loss"] for row in table)
    assert survey("export", "-f", "json").out == survey("export", "--json").out
    assert [trial["number"] for trial in trials(survey)] == [0, 1, 2, 3]


def test_export_refuses_a_format_that_it_does_not_know(survey: Survey, place: Path) -> None:
    ran = survey("export", "--format", "xlsx")
    assert ran.code == 2
    assert "csv" in ran.err


def test_report_is_one_file_whose_path_is_told(survey: Survey, place: Path, tmp_path: Path) -> None:
    ran = survey("report", "-o", str(tmp_path / "report.html"))
    assert (ran.code, ran.out) == (0, f"{tmp_path}/report.html\n")
    assert "toy" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_check_prints_the_script_and_the_cost_and_writes_nothing(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    write_study(tmp_path, trials=4, resources={"gpus": 1, "walltime": "1h"}, command=["no-such-program"])
    site = tmp_path / "mine.yaml"
    site.write_text(
        "name: mine\nscheduler: slurm\nqueues:\n  - {name: gpu, unit: gpu, gpus_per_unit: 1, cores_per_unit: 8}\n",
        encoding="utf-8",
    )
    before = content(tmp_path)
    ran = survey("check", str(tmp_path / "study.yaml"), "--site", str(site), "--root", str(tmp_path / "runs"))
    assert ran.code == 0, ran.err
    assert ran.out.startswith("#!/bin/bash\n#SBATCH")
    assert "toy on mine: queue gpu, 4 trials, 2 at once" in ran.err
    assert "at most 4.0 GPU-hours" in ran.err
    assert "not checked: sbatch, squeue, scancel are not on PATH here: is this a login node of mine?" in ran.err
    assert "warning: command 'no-such-program' is not on PATH here" in ran.err
    assert ran.err.endswith("nothing was submitted\n")
    found = json.loads(survey("check", str(tmp_path / "study.yaml"), "--site", str(site), "--json").out)
    assert (found["site"], found["cost"]["gpu_hours"]) == ("mine", 4.0)
    assert content(tmp_path) == before


def test_check_tells_what_run_would_refuse(survey: Survey, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    write_study(tmp_path, trials=4, metrics=["side"], keep={"best": 1}, sampler={"name": "random", "seed": 6})
    before = content(tmp_path)
    ran = survey("check", str(tmp_path / "study.yaml"), "--root", str(tmp_path / "runs"))
    assert ran.code == 6
    assert "sampler.seed: 5 -> 6" in ran.err
    assert content(tmp_path) == before


def test_a_study_that_runs_can_be_looked_at_and_is_not_disturbed(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gate = tmp_path / "gate"
    write_study(tmp_path, trials=3, environment={"GATE": str(gate)})
    driver = start(tmp_path, "run", "study.yaml")
    root = tmp_path / "runs/toy"
    until(lambda: len(list(root.rglob("attempt-1/stderr"))) == 2, "the trials do not start")
    until(lambda: survey("status").out.count("local-") == 2, "the snapshot does not show what is in flight")
    ran = survey("status")
    assert ran.out.startswith("toy on local: running\n2 running; 3 planned")
    assert ran.out.splitlines()[-3].split() == ["trial", "job", "submitted", "for", "step", "latest"]
    ran = survey("logs", "0")
    assert ran.out == "trial 0\ncareful\n"
    assert "trial 0, attempt 1 of 1: in flight as local-" in ran.err
    assert survey("best").code == 2
    assert survey("export").out.count("running") == 2
    second = run(tmp_path, "run", "study.yaml")
    assert second.code == 5
    assert f"pid {driver.pid}" in second.err or str(driver.pid) in second.err
    os.close(os.open(gate, os.O_CREAT))
    done = end(driver)
    assert done.code == 0, done.err
    assert survey("status").out.startswith("toy on local: done")
