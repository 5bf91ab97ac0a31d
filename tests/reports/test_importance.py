from __future__ import annotations

import logging

import pytest
from study_records import from_values, study, training_like, trial

from orchestrator.reports.importance import importances


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_parameter_that_decides_comes_first(direction: str) -> None:
    found = importances(training_like(200, direction=direction))
    assert next(iter(found)) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1.0)


def test_a_conditional_parameter_has_an_importance_too() -> None:
    assert "momentum" in importances(training_like(60))


@pytest.mark.parametrize("values", [[], [0.5], [0.1, 0.2, 0.3], [None] * 5, [0.5] * 8])
def test_too_little_to_go_by_gives_none(values: list[float | None]) -> None:
    assert importances(from_values(values)) == {}


def test_four_complete_trials_are_enough() -> None:
    assert importances(from_values([0.1, 0.2, 0.3, 0.4])) == {"x": 1.0}


def test_odd_choices_and_trials_outside_the_space_do_no_harm() -> None:
    trials = [trial(n, n / 10, params={"c": [None, 1, True, "1"][n % 4], "x": float(n)}) for n in range(8)]
    record = study(
        trials,
        space={"c": {"type": "categorical", "choices": [None, 1, True, "1"]}, "x": {"type": "float", "low": 0.0, "high": 1.0}},
    )  # fmt: skip
    assert set(importances(record)) == {"c", "x"}


def test_optuna_keeps_quiet_and_its_verbosity_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO):
        importances(training_like(10))
    assert caplog.records == []
    assert optuna.logging.get_verbosity() == before
