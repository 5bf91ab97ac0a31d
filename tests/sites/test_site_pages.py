"""What the pages in ``docs/sites`` show works as it stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from orchestrator import resources
from orchestrator.cli.app import app, main
from orchestrator.config.site import load_site
from orchestrator.config.units import parse_duration

PAGES = Path(__file__).parents[2] / "docs" / "sites"
SITES = sorted(path.stem for path in resources.folders("sites")[-1].glob("*.yaml"))
NAMES = sorted(path.stem for path in PAGES.glob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# What a user types on a login node beside `survey`; the README explains each.
INSTALL = {
    "python3.11 -m venv venv",
    ". venv/bin/activate",
    "pip install /path/to/survey-orchestrator",
    "pip install --prefer-binary /path/to/survey-orchestrator",
    "curl -LsSf https://astral.sh/uv/install.sh | sh",
    "~/.local/bin/uv venv --python 3.11 --seed venv",
    "tmux new -s lungs",
}


def text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [body for _, found, body in BLOCK.findall(text(page)) if found == language]


def commands(page: str) -> Iterator[str]:
    for body in blocks(page, ""):
        yield from (line.strip() for line in body.splitlines() if line.strip())


def write_own_sites(page: str, home: Path) -> None:
    """Write the site files of a page where their first line says."""
    for body in blocks(page, "yaml"):
        if "\nscheduler:" in body and (named := re.match(r"# ~/(\S+\.yaml)\n", body)):
            path = home / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")


def study_parts(page: str) -> list[dict[str, Any]]:
    return [data for body in blocks(page, "yaml") if "resources" in (data := yaml.safe_load(body))]


@pytest.mark.parametrize("site", SITES)
def test_every_site_has_a_page_that_the_list_of_sites_links_to(site: str) -> None:
    assert f"--site {site}" in text(site)
    assert f"]({site}.md)" in text("README")
    assert study_parts(site)


@pytest.mark.parametrize("site", SITES)
def test_the_steps_of_a_page_lead_to_a_checked_study(
    site: str,
    clean_environment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_sites(site, clean_environment)
    steps = [shlex.split(line)[1:] for line in commands(site) if line.startswith("survey ")]
    init = next((words for words in steps if words[0] == "init"), ["init", "study.yaml"])
    check = next(words for words in steps if words[0] == "check")
    assert main(init) == 0
    begun = yaml.safe_load(Path("study.yaml").read_text())
    for part in study_parts(site):
        Path("study.yaml").write_text(yaml.safe_dump({**begun, **part}))
        capsys.readouterr()
        assert main(check) == 0
        script, said = capsys.readouterr()
        assert script.startswith("#!/bin/bash\n")
        queue = re.search(r": queue (\S+),", said)
        assert queue is None or f"`{queue[1]}`" in text(site) or queue[1] == part["batch"]["queue"]


@pytest.mark.parametrize("page", NAMES)
def test_every_command_of_a_page_is_one_that_there_is(page: str) -> None:
    survey: Any = typer.main.get_command(app)
    for line in commands(page):
        if line.startswith("survey ") and line != "survey --help":
            words = shlex.split(line)[1:]
            context = survey.make_context("survey", list(words))
            verb, command, rest = survey.resolve_command(context, words)
            command.make_context(verb, rest, parent=context)
        else:
            assert line in INSTALL | {"survey --help"} or re.fullmatch(r"cd (/[\w-]+)+", line), line


@pytest.mark.parametrize("page", NAMES)
def test_a_site_file_of_a_page_is_accepted(page: str, clean_environment: Path) -> None:
    write_own_sites(page, clean_environment)
    for body in blocks(page, "yaml"):
        data = yaml.safe_load(body)
        if "scheduler" in data:
            path = clean_environment / "again.yaml"
            path.write_text(body, encoding="utf-8")
            assert load_site(path).name == data["name"]


@pytest.mark.parametrize("site", SITES)
def test_the_queues_that_a_page_lists_are_those_of_the_profile(site: str) -> None:
    profile = load_site(site)
    rows = re.findall(r"^\| `(\S+)` \| [^|]* \| (\d+[hm]) \|", text(site), re.MULTILINE)
    if profile.queues:
        assert {name for name, _ in rows} == {queue.name for queue in profile.queues}
    for name, limit in rows:
        assert parse_duration(limit) in {queue.max_walltime for queue in profile.queues if queue.name == name}
