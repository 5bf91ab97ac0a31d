"""Bounds of what trials report."""

from __future__ import annotations

import pytest
from study_files import Load, loader, writer

from orchestrator.config.constraints import Constraint, amounts
from orchestrator.config.study import compare
from orchestrator.errors import ConfigError


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path_factory.mktemp("study"), monkeypatch))


def test_amounts_are_above_zero_where_a_bound_is_passed() -> None:
    bounds = [Constraint(metric="memory", at_most=16000), Constraint(metric="s", at_least=0.5, at_most=1)]
    assert amounts(bounds, {"memory": 17000.0, "s": 0.75}) == {
        "memory <= 16000": 1000.0,
        "s <= 1": -0.25,
        "s >= 0.5": -0.25,
    }
    assert amounts(bounds, {"memory": 16000.0, "s": 0.25})["s >= 0.5"] == 0.25


def test_a_trial_needs_the_metrics_that_have_bounds(load: Load) -> None:
    study = load("constraints: [{metric: memory, at_most: 16}, {metric: pauc, at_least: 0.1}]\n")
    assert study.needed_metrics == ("pauc", "memory")


def test_a_metric_with_a_bound_can_be_read_from_the_output(load: Load) -> None:
    study = load("constraints: [{metric: memory, at_most: 16}]\nread: [{metric: memory, csv: 'log.csv:mb'}]\n")
    assert study.read[0].metric == "memory"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("constraints: [{metric: memory}]", "needs at_most or at_least"),
        ("constraints: [{metric: memory, at_most: 1, at_least: 2}]", r"at_least \(2\) is above at_most \(1\)"),
        ("constraints: [{metric: memory, atmost: 1}]", 'did you mean "at_most"'),
        ("constraints: [{metric: memory, at_most: much}]", "expected a number"),
    ],
)
def test_mistakes_are_told(load: Load, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(line + "\n")


def test_bounds_stay_as_long_as_the_study(load: Load) -> None:
    old, new = (load(f"constraints: [{{metric: memory, at_most: {most}}}]\n") for most in (16, 32))
    forbidden, _ = compare(old, new)
    assert len(forbidden) == 1
    assert forbidden[0].startswith("constraints: ")
