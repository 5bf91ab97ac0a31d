from __future__ import annotations

from pathlib import Path

import pytest
from study_files import Write, writer

from orchestrator.config.comparison import Comparison
from orchestrator.errors import ConfigError

TEXT = """\
name: paper
study: study.yaml
samplers: [random, bo, {name: bo, label: bo-x, options: {a: 1}, trials: 9}]
parallel: [1, 4]
repeats: 2
trials: 12
seed: 5
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return writer(tmp_path, monkeypatch)


def test_a_short_comparison_has_the_papers_defaults(write: Write) -> None:
    found = Comparison.load(write("name: a\nstudy: s.yaml\nsamplers: [bo, random]\n"))
    assert (found.parallel, found.repeats, found.trials, found.concurrent) == ((1, 2, 4, 8), 3, 50, 1)


def test_random_search_has_one_arm_at_the_largest_parallelism(write: Write) -> None:
    arms = Comparison.load(write(TEXT)).arms()
    assert [arm.label for arm in arms if arm.repeat == 1] == [
        "random-p4-r1",
        "bo-p1-r1",
        "bo-p4-r1",
        "bo-x-p1-r1",
        "bo-x-p4-r1",
    ]
    assert [arm.parallel for arm in arms if arm.sampler.name == "random"] == [4, 4]


def test_a_repeat_has_the_same_seed_in_all_arms(write: Write) -> None:
    arms = Comparison.load(write(TEXT)).arms()
    assert {arm.repeat: arm.seed for arm in arms} == {1: 5, 2: 6}
    assert all(arm.seed == 4 + arm.repeat for arm in arms)


def test_repeats_come_one_after_another(write: Write) -> None:
    repeats = [arm.repeat for arm in Comparison.load(write(TEXT)).arms()]
    assert repeats == sorted(repeats)


def test_a_sampler_may_have_a_budget_and_a_name_of_its_own(write: Write) -> None:
    arms = {arm.label: arm for arm in Comparison.load(write(TEXT)).arms()}
    assert (arms["bo-x-p1-r1"].trials, arms["bo-p1-r1"].trials) == (9, 12)
    assert (arms["bo-x-p1-r1"].series, arms["bo-p1-r1"].series) == ("bo-x", "bo")
    assert arms["bo-x-p1-r1"].sampler.options == {"a": 1}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("label: bo-x, ", "", r':3: samplers\[2\]: "bo" is there twice: give one of them a label'),
        ("label: bo-x", f"label: {'x' * 60}", r"samplers\[2\]\.label: too long"),
        ("[1, 4]", "[4, 4]", r"parallel: a number is there twice"),
        ("[1, 4]", "[0]", r"parallel\[0\]: must be at least 1"),
        ("parallel", "paralel", r'paralel: unknown key; did you mean "parallel"\?'),
        ("label", "lable", r'samplers\[2\]\.lable: unknown key; did you mean "label"\?'),
        ("random, ", "3, ", r"samplers\[0\]: expected a mapping"),
    ],
)
def test_a_mistake_is_told_with_line_and_key(write: Write, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Comparison.load(write(TEXT.replace(old, new)))
