from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
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
