"""`pruner:` of study.yaml, by its bare name or with options."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_files import Load, loader, writer

from orchestrator.config.pruning import Asha, Hyperband, Median
from orchestrator.config.study import Study, compare
from orchestrator.errors import ConfigError
from orchestrator.studies.reporting import why_mute


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path, monkeypatch))


def test_a_bare_name_has_the_defaults(load: Load) -> None:
    assert load("pruner: median\n").pruner == Median(name="median")
    assert load("pruner: hyperband\n").pruner == Hyperband(name="hyperband", reduction_factor=3)
    assert load("pruner: asha\n").pruner == Asha(name="asha", min_step=1, max_step=None, reduction_factor=4)
    assert load().pruner is None


def test_options_are_those_of_the_pruner_and_survive_being_written(load: Load, tmp_path: Path) -> None:
    study = load("pruner: {name: asha, min_step: 2, max_step: 60, reduction_factor: 3}\n")
    again = tmp_path / "again.yaml"
    again.write_text(study.to_yaml())
    assert Study.load(again).pruner == study.pruner == Asha(name="asha", min_step=2, max_step=60, reduction_factor=3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pruner: medain", 'study.yaml:8: pruner: unknown name "medain"; did you mean "median"?'),
        ("pruner: {name: asha, reduction_faktor: 3}", 'unknown key; did you mean "reduction_factor"?'),
        ("pruner: {name: asha, min_step: 4, max_step: 4}", "max_step (4) is not above min_step (4)"),
        ("pruner: {name: hyperband, reduction_factor: 1}", "pruner.reduction_factor: must be at least 2, found 1"),
        ("pruner: {name: median, startup_trials: 0}", "pruner.startup_trials: must be at least 1, found 0"),
        ("pruner: {min_step: 3}", 'pruner: missing key "name"'),
        ("pruner: 3", "pruner: expected a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_place(load: Load, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"{line}\n")
    assert words in caught.value.message


def test_a_study_of_several_objectives_has_no_pruner(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: two\ncommand: [train]\ntrials: 3\npruner: asha\n"
        "objectives: [{metric: a, direction: maximize}, {metric: b, direction: maximize}]\n"
        "space: {x: {type: float, low: 0, high: 1}}\n"
    )
    with pytest.raises(ConfigError, match=r"study\.yaml:4: pruner: trials of several objectives report no one value"):
        Study.load(path)


def test_a_pruner_may_change_between_runs(load: Load) -> None:
    before, after = load("pruner: asha\n"), load("pruner: {name: asha, reduction_factor: 3}\n")
    assert compare(before, after) == ([], ["pruner.reduction_factor: 4 -> 3"])
    assert compare(before, load())[0] == []


def test_a_program_that_can_be_seen_to_report_nothing_is_told_before_it_runs(load: Load, tmp_path: Path) -> None:
    study = load("pruner: asha\n")
    (tmp_path / "train.py").write_text("from orchestrator import trial\ntrial.finish(pauc=1)\n")
    assert "nothing in train.py does" in why_mute(study, tmp_path)
    assert why_mute(load(), tmp_path) == ""
    (tmp_path / "train.py").write_text("trial.report(1, 0.5)\n")
    assert why_mute(study, tmp_path) == ""


def test_a_metric_that_is_read_from_the_output_is_no_report(load: Load, tmp_path: Path) -> None:
    study = load('pruner: median\nread: [{metric: pauc, stdout: "pauc=(.*)"}]\n')
    assert "`read`" in why_mute(study, tmp_path)


def test_a_program_that_is_not_there_to_be_looked_at_is_not_judged(load: Load, tmp_path: Path) -> None:
    assert why_mute(load("pruner: asha\n"), tmp_path / "elsewhere") == ""
