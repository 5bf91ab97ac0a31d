from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest
from little_study import SURVEY, environment
from survey_command import Survey, command

from orchestrator.config.site import load_site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def own_site(home: Path, name: str, text: str) -> None:
    folder = home / ".config" / "survey-orchestrator" / "sites"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_sites_lists_what_ships_and_what_is_ones_own(survey: Survey, clean_environment: Path) -> None:
    own_site(clean_environment, "mine", "name: mine\nscheduler: slurm\ndescription: my cluster\n")
    ran = survey("sites")
    assert ran.code == 0
    rows = {line.split()[0]: line for line in ran.out.splitlines()}
    assert rows["mine"].split() == ["mine", "slurm", "my", "cluster"]
    assert "local" in rows
    listed = {site["name"]: site for site in json.loads(survey("sites", "--json").out)["sites"]}
    assert listed["mine"]["path"].endswith("/sites/mine.yaml")
    assert set(listed) == set(rows) - {"site"}


def test_one_broken_site_file_hides_no_other(survey: Survey, clean_environment: Path) -> None:
    own_site(clean_environment, "broken", "name: broken\nscheduler: slurm\nqueuse: []\n")
    ran = survey("sites")
    assert ran.code == 2
    assert 'broken.yaml:3: queuse: unknown key; did you mean "queues"?' in ran.err
    assert "\nlocal " in ran.out


def test_a_site_is_shown_as_a_file_that_loads(survey: Survey, tmp_path: Path) -> None:
    ran = survey("sites", "local")
    copy = tmp_path / "copy.yaml"
    copy.write_text(ran.out, encoding="utf-8")
    assert load_site(str(copy)).model_dump() == load_site("local").model_dump()
    assert json.loads(survey("sites", "local", "--json").out)["site"]["name"] == "local"


def test_a_misspelt_site_is_answered_with_the_near_one(survey: Survey) -> None:
    ran = survey("sites", "locla")
    assert ran.code == 2
    assert 'did you mean "local"?' in ran.err


def test_each_value_of_a_site_says_how_far_it_can_be_trusted(survey: Survey) -> None:
    shown = survey("sites", "wisteria-aquarius").out.splitlines()
    marks = {line.partition("#")[0].strip(): line.partition("# ")[2] for line in shown if "  # " in line}
    assert marks["scheduler: pjm"] == "documented"
    assert marks["group_required: true"] == "assumed"
    assert marks["settle: 120.0"] == "default"


@pytest.mark.parametrize("columns", [60, 80])
def test_the_list_of_sites_fits_a_terminal_and_loses_no_word(survey: Survey, tmp_path: Path, columns: int) -> None:
    listed = json.loads(survey("sites", "--json").out)["sites"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        [*SURVEY, "sites"], cwd=tmp_path, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal's other end any more
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()
    assert max(len(line) for line in lines) <= columns
    words = " ".join(" ".join(lines).split())
    for site in listed:
        assert site["description"].split()[-1] in words
        assert sum(line.startswith(f"{site['name']} ") for line in lines) == 1
