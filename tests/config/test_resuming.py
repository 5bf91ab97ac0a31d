from __future__ import annotations

from pathlib import Path

import pytest
from study_files import Load, loader, writer

from orchestrator.config.study import compare


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path, monkeypatch))


def test_the_same_study_has_no_differences(study: Load) -> None:
    assert compare(study(), study()) == ([], [])


@pytest.mark.parametrize(
    ("further", "line"),
    [
        ("parallel: 4\n", "parallel: 1 -> 4"),
        ('resources: {walltime: "10:00"}\n', "resources.walltime: (none) -> 600"),
        ("resources: {memory: 2G}\n", "resources.memory: (none) -> 2048"),
        ("retry: {timeout: 1}\n", "retry.timeout: 5 -> 1"),
        ("failures: {stop_after: 5}\n", "failures.stop_after: (none) -> 5"),
        ("batch: {queue: small}\n", 'batch.queue: (none) -> "small"'),
        ("description: x\n", 'description: "" -> "x"'),
        ("metrics: [dice]\n", 'metrics: [] -> ["dice"]'),
    ],
)
def test_how_a_study_is_run_may_change(study: Load, further: str, line: str) -> None:
    assert compare(study(), study(further)) == ([], [line])


@pytest.mark.parametrize(
    ("further", "line"),
    [
        ("sampler: {seed: 1}\n", "sampler.seed: 0 -> 1"),
        ("sampler: {options: {a: 1}}\n", "sampler.options.a: (none) -> 1"),
        ("environment: {A: 1}\n", 'environment.A: (none) -> "1"'),
        ("workdir: code\n", 'workdir: (none) -> "code"'),
        ("resources: {gpus: 2}\n", "resources.gpus: 0 -> 2"),
        ("storage: sqlite:///x\n", 'storage: (none) -> "sqlite:///x"'),
    ],
)
def test_what_a_trial_computes_may_not_change(study: Load, further: str, line: str) -> None:
    forbidden, _ = compare(study(), study(further))
    assert forbidden == [line]


def test_the_space_may_not_change(study: Load) -> None:
    old = study(space="lr: {type: float, low: 0, high: 1}\no: {type: categorical, choices: [a, b]}")
    new = study(space="lr: {type: float, low: 0, high: 2}\nm: 3")
    assert compare(old, new) == (
        [
            "space.lr.high: 1.0 -> 2.0",
            'space.o.type: "categorical" -> (none)',
            'space.o.choices: ["a", "b"] -> (none)',
            'space.m.type: (none) -> "fixed"',
            "space.m.value: (none) -> 3",
        ],
        [],
    )


def test_the_order_of_parameters_and_the_spelling_of_numbers_do_not_matter(study: Load) -> None:
    old = study(space="a: {type: categorical, choices: [1, 2.0]}\nb: 2")
    new = study(space="b: 2.0\na: {type: categorical, choices: [1.0, 2]}")
    assert compare(old, new) == ([], [])


def test_a_flag_is_not_a_number(study: Load) -> None:
    assert compare(study(space="b: 1"), study(space="b: true")) == (["space.b.value: 1 -> true"], [])


def test_the_budget_may_only_grow(study: Load) -> None:
    more = study().model_copy(update={"trials": 30})
    assert compare(study(), more) == ([], ["trials: 20 -> 30"])
    assert compare(more, study()) == (["trials: 30 -> 20 (trials may only grow)"], [])
