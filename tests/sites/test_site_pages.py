"""What the pages in ``docs/sites`` show works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import resources
from orchestrator.config.loading import load_data
from orchestrator.config.site import BatchOptions, load_site
from orchestrator.config.study import StudyResources
from orchestrator.jobs.placement import place
from orchestrator.model import Resources

PAGES = Path(__file__).parents[2] / "docs" / "sites"
SITES = sorted(path.stem for path in resources.folders("sites")[-1].glob("*.yaml"))
BLOCKS = [
    (page.stem, number, text)
    for page in sorted(PAGES.glob("*.md"))
    for number, text in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("site", SITES)
def test_every_site_has_a_page_that_the_list_of_sites_links_to(site: str) -> None:
    text = (PAGES / f"{site}.md").read_text(encoding="utf-8")
    assert f"--site {site}" in text or site == "gridengine"
    assert f"]({site}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "number", "text"), BLOCKS, ids=lambda value: str(value) if len(str(value)) < 20 else ""
)
def test_an_example_of_a_page_is_accepted(page: str, number: int, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"{page}-{number}.yaml"
    path.write_text(text, encoding="utf-8")
    data, _ = load_data(path)
    if "scheduler" in data:
        assert load_site(path).name == data["name"]
        return
    wanted = StudyResources.model_validate(data["resources"])
    resource = Resources(gpus=wanted.gpus, cpus=wanted.cpus, memory=wanted.memory, walltime=wanted.walltime)
    placement = place(load_site(page), resource, BatchOptions.model_validate(data["batch"]))
    assert placement.gpus == wanted.gpus
