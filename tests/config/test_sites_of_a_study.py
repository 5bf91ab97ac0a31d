"""`sites:` in study.yaml: names, shares, and what is different on each site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import ConfigError

_STUDY = """\
name: two
objective: {metric: m, direction: minimize}
space: {x: {type: float, low: 0.0, high: 1.0}}
trials: 8
parallel: 4
command: [train]
batch: {group: lab, modules: [cuda]}
environment: {OMP_NUM_THREADS: 4, WHERE: anywhere}
"""


def load(folder: Path, sites: str) -> Study:
    path = folder / "study.yaml"
    path.write_text(f"{_STUDY}sites: {sites}\n")
    return Study.load(path)


def test_a_bare_name_is_a_site_without_changes(tmp_path: Path) -> None:
    study = load(tmp_path, "[flow-type2, {name: miyabi-g, share: 2}]")
    assert [(site.name, site.share) for site in study.sites] == [("flow-type2", None), ("miyabi-g", 2)]
    here = study.at(study.sites[0])
    assert (here.batch, here.environment, here.workdir) == (study.batch, study.environment, None)


def test_what_a_site_says_goes_before_what_the_study_says(tmp_path: Path) -> None:
    study = load(
        tmp_path, "[{name: pbs, batch: {group: other}, environment: {WHERE: there}, workdir: /work/x}, {name: pjm}]"
    )
    there = study.at(study.sites[0])
    assert (there.batch.group, there.batch.modules) == ("other", ("cuda",))
    assert there.environment == {"OMP_NUM_THREADS": "4", "WHERE": "there"}
    assert there.workdir == "/work/x"


def test_the_frozen_study_says_the_same(tmp_path: Path) -> None:
    study = load(tmp_path, "[{name: pbs, batch: {group: other}}, {name: pjm, share: 3}]")
    (tmp_path / "again.yaml").write_text(study.to_yaml())
    again = Study.load(tmp_path / "again.yaml")
    assert again == study
    assert again.at(again.sites[0]).batch.modules == ("cuda",)


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ("[pbs, slurm, pbs]", '"pbs" is named twice'),
        ("[{name: pbs, share: 1}, {name: pjm, share: 2}]", "the shares are 3 in all, and parallel is 4"),
        ("[{name: pbs, share: 0}]", "share"),
        ("[{name: pbs, shares: 2}]", "share"),
        ("[{name: pbs, environment: {SURVEY_X: 1}}]", "SURVEY_"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, sites: str, words: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, sites)
    assert words in str(caught.value)
    assert "study.yaml" in str(caught.value)
