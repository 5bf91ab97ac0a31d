"""What is wrong with a site, or with what a study asks of it, is found before anything is written or submitted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from little_cluster import idle_commands
from little_study import content, write_study
from survey_command import Ran, Survey, command

SITE = """\
name: mine
scheduler: slurm
queues:
  - {name: gpu, unit: gpu, gpus_per_unit: 1, cores_per_unit: 8, max_units: 4, max_walltime: 1h}
  - {name: debug, unit: gpu, gpus_per_unit: 1, cores_per_unit: 8, max_units: 1, max_walltime: 10m, only_by_name: true}
"""


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a machine that has Slurm's commands; any use of them leaves a file."""
    monkeypatch.setenv("PATH", idle_commands(tmp_path, "sbatch", "squeue", "scancel"))
    made = tmp_path / "place"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def put_site(folder: Path, text: str = SITE) -> None:
    (folder / "site.yaml").write_text(text, encoding="utf-8")


def refused(survey: Survey, folder: Path, *told: str) -> tuple[Ran, Ran]:
    """Check that both `check` and `run` end with 2 and these words, and leave no trace."""
    before = content(folder.parent)
    checked, ran = (survey(verb, "study.yaml", "--site", "site.yaml") for verb in ("check", "run"))
    for one in (checked, ran):
        assert one.code == 2, one.err
        assert "this is a bug" not in one.err
        assert len(one.err.splitlines()) <= 8
        for words in told:
            assert words in one.err
    assert ran.out == ""
    assert content(folder.parent) == before
    return checked, ran


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": {"queue": "gqu"}}, ["site mine has no queue 'gqu'", "did you mean", "Known queues: gpu, debug"]),
        ({"resources": {"gpus": 1, "walltime": "2h"}}, ["no queue of site mine takes", "2h is over its 1h"]),
        ({"resources": {"gpus": 9}}, ["no queue of site mine takes 9 GPUs", "9 GPUs, and it takes 1 to 4"]),
        ({"batch": {"queue": "debug"}, "resources": {"gpus": 2}}, ["debug (by gpu): 2 GPUs, and it takes 1"]),
        ({"resources": {"gpus": 1, "nodes": 2}}, ["its jobs stay on one node"]),
        ({"batch": {"template": "nope.sh.j2"}}, ["there is no template nope.sh.j2", "Templates by name: "]),
    ],
)
def test_what_no_queue_can_give_is_refused_with_what_each_can(
    survey: Survey, place: Path, changes: dict[str, Any], told: list[str]
) -> None:
    put_site(place)
    write_study(place, **changes)
    refused(survey, place, *told)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("group_flag: --account={group}\ngroup_required: true\n", ["takes no job without a group (--account={group})"]),
        ("queuse: []\n", ['site.yaml:6: queuse: unknown key; did you mean "queues"?']),
        ("limits: {submit_per_minute: 3}\n", ["site.yaml:6: ", 'did you mean "submits_per_minute"?']),
        ("limits: {submits_per_minute: 0}\n", ["site.yaml:6: limits.submits_per_minute: "]),
        ("scheduler: slurm\n", ['site.yaml:6:1: duplicate key "scheduler": it is already on line 2']),
        ("commands: {scancel: /opt/no/such/scancel}\n", ["/opt/no/such/scancel is not on PATH", "`commands`", "mine"]),
    ],
)
def test_a_site_file_that_is_wrong_is_refused_with_its_place(
    survey: Survey, place: Path, more: str, told: list[str]
) -> None:
    put_site(place, SITE + more)
    write_study(place, resources={"gpus": 1})
    refused(survey, place, *told)


def test_an_unknown_scheduler_is_answered_with_the_near_one(survey: Survey, place: Path) -> None:
    put_site(place, SITE.replace("slurm", "slrum"))
    write_study(place, resources={"gpus": 1})
    refused(survey, place, "unknown scheduler 'slrum'", "Did you mean 'slurm'?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("#!/bin/bash\n\n{{ placment.queue }}\n", "'placment' is undefined"),
        ("#!/bin/bash\n\n{% if %}\n", "Expected an expression"),
        ("#!/bin/bash\n\n{{ 1 / 0 }}\n", "ZeroDivisionError"),
    ],
)
def test_a_template_that_is_wrong_is_refused_with_its_line(
    survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    put_site(place)
    write_study(place, resources={"gpus": 1}, batch={"template": "./own.sh.j2"})
    (place / "own.sh.j2").write_text(text, encoding="utf-8")
    refused(survey, place, f"{place}/own.sh.j2:3: ", line)
    # A template belongs to its study.yaml, wherever the command is called.
    monkeypatch.chdir(place.parent)
    ran = survey("check", "place/study.yaml", "--site", "place/site.yaml")
    assert f"{place}/own.sh.j2:3: " in ran.err


def test_a_work_root_that_cannot_be_made_is_refused_after_script_and_cost(survey: Survey, place: Path) -> None:
    (place / "afile").write_text("mine", encoding="utf-8")
    put_site(place, f"{SITE}work_root: {place}/afile/below\nwork_root_hint: Use the scratch disk.\n")
    write_study(place, resources={"gpus": 1, "walltime": "1h"})
    told = f"the work root {place}/afile/below/toy of site mine cannot be written: {place}/afile is not a folder"
    checked, _ = refused(survey, place, told, "Use the scratch disk.")
    assert checked.out.startswith("#!/bin/bash\n")
    assert "at most 2.0 GPU-hours" in checked.err


def test_a_work_root_without_permission_is_refused(
    survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_site(place, f"{SITE}work_root: {place.parent}/closed/{{user}}\n")
    write_study(place, resources={"gpus": 1})
    closed = place.parent / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # whom permissions do not stop
        whole = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and whole(path, mode))
    refused(survey, place, f"cannot be written: you may not write to {closed}")


def test_check_passes_where_the_site_is_not_and_run_does_not(
    survey: Survey, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place / "nothing"))
    put_site(place, f"{SITE}work_root: /no/such/disk/{{user}}\n")
    write_study(place, resources={"gpus": 1})
    before = content(place)
    ran = survey("check", "study.yaml", "--site", "site.yaml")
    assert ran.code == 0, ran.err
    told = "sbatch, squeue, scancel are not on PATH here: is this a login node of mine?"
    assert f"not checked: {told}" in ran.err
    assert "not checked: its work root /no/such/disk/" in ran.err
    ran = survey("run", "study.yaml", "--site", "site.yaml")
    assert ran.code == 2
    assert f"Error: {told}" in ran.err
    assert content(place) == before


def test_what_a_remote_site_has_is_not_looked_for_here(survey: Survey, place: Path) -> None:
    put_site(place, f"{SITE}work_root: /work/{{user}}\ntransport: {{kind: openssh, host: login.example.org}}\n")
    write_study(place, resources={"gpus": 1}, command=["no-such-program"], workdir="/work/code")
    ran = survey("check", "study.yaml", "--site", "site.yaml")
    assert ran.code == 0, ran.err
    assert "not checked: mine is reached over ssh (login.example.org): its commands, its work root /work/" in ran.err
    assert "warning" not in ran.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"command": ["./train.sh"]}, "command './train.sh' is not an executable file"),
        ({"command": ["no-such-program"]}, "command 'no-such-program' is not on PATH here"),
        ({"workdir": "elsewhere"}, "is not a folder here"),
        (
            {"resources": {"gpus": 4}},
            "a trial takes 4 GPUs: as many trials side by side, one GPU each, use a node better",
        ),
        (
            {"command": ["python"], "batch": {"container": {"image": "own.sif"}}},
            "container image 'own.sif' is not there",
        ),
    ],
)
def test_what_looks_odd_is_a_warning(survey: Survey, place: Path, changes: dict[str, Any], told: str) -> None:
    put_site(place)
    write_study(place, **{"resources": {"gpus": 1}, **changes})
    ran = survey("check", "study.yaml", "--site", "site.yaml")
    assert ran.code == 0, ran.err
    assert f"warning: {told}" in ran.err or ("warning: workdir" in ran.err and told in ran.err)
