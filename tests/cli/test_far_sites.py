"""What is said of a site behind a login node before anybody connects to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from little_study import write_study
from survey_command import Survey, command


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "far.yaml"
    path.write_text(
        "name: far\nscheduler: slurm\npython: python3\nwork_root: /work/of/mine\n"
        "transport: {kind: openssh, host: nowhere.invalid}\n"
    )
    return path


def test_a_command_that_would_run_in_a_folder_of_this_machine_is_told(
    survey: Survey, tmp_path: Path, site: Path
) -> None:
    ran = survey("check", str(write_study(tmp_path)), "--site", str(site))
    said = " ".join((ran.out + ran.err).split())
    assert ran.code == 0, said
    assert "set `workdir` to the folder of the code there" in said
    assert str(tmp_path) in said


def test_a_folder_of_the_code_there_need_not_be_here(survey: Survey, tmp_path: Path, site: Path) -> None:
    study = write_study(tmp_path, workdir="/work/of/mine/code")
    ran = survey("check", str(study), "--site", str(site))
    assert ran.code == 0, ran.err
    assert "workdir" not in ran.err
