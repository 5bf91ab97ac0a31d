"""Trials that are set aside, and the values of pruned ones, in the study database and its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.store.studydb import StudyDatabase, read_trials
from orchestrator.store.trials import PHASE

SETTINGS: dict[str, Any] = {"name": "toy", "directions": ["minimize"], "definition": {"space": "x"}}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[StudyDatabase]:
    with StudyDatabase.open(tmp_path, **SETTINGS) as database:
        yield database


def ask(study: StudyDatabase) -> int:
    return study.ask(optuna.samplers.RandomSampler(seed=1), lambda trial: {"x": trial.suggest_float("x", 0, 1)})[0]


def test_a_trial_is_paused_for_readers_and_running_for_optuna(study: StudyDatabase, tmp_path: Path) -> None:
    number = ask(study)
    study.note(number, PHASE, {"name": "paused", "attempt": 1, "reason": "paused at step 3: for others", "since": 7.0})
    (record,) = read_trials(tmp_path, name="toy")
    assert (record.state, record.reason, record.promoted) == ("paused", "paused at step 3: for others", None)
    assert study.trials()[0].state == optuna.trial.TrialState.RUNNING
    assert study.counts["running"] == 1
    assert [each for each, _ in study.unfinished()] == [number]


def test_a_trial_that_goes_on_is_running_and_keeps_when_it_was_taken_up(study: StudyDatabase, tmp_path: Path) -> None:
    number = ask(study)
    study.note(number, PHASE, {"name": "paused", "attempt": 1, "reason": "so", "since": 7.0})
    study.note(number, PHASE, {"name": "promoted", "attempt": 1, "since": 9.0})
    (record,) = read_trials(tmp_path, name="toy")
    assert (record.state, record.reason, record.promoted) == ("running", "", 9.0)
    study.tell(number, "complete", [0.5])
    (record,) = read_trials(tmp_path, name="toy")
    assert (record.state, record.promoted) == ("complete", 9.0)


def test_a_pruned_trial_has_the_last_value_that_it_reported(study: StudyDatabase) -> None:
    reported, silent, broken = ask(study), ask(study), ask(study)
    study.report(reported, 5, 0.25)
    study.report(reported, 2, 0.5)
    study.report(broken, 1, float("nan"))
    for number in (reported, silent, broken):
        study.tell(number, "pruned")
        study.tell(number, "pruned")  # a write whose answer was lost is done again
    assert [record.values for record in study.record()] == [(0.25,), None, None]


def test_a_pruner_judges_a_report_before_it_is_written(study: StudyDatabase) -> None:
    for _ in range(2):
        number = ask(study)
        study.report(number, 1, 0.1)
        study.tell(number, "complete", [0.1])
    number = ask(study)
    median = optuna.pruners.MedianPruner(n_startup_trials=2)
    assert not study.would_prune(median, number, 1, 0.05)
    assert study.would_prune(median, number, 1, 0.3)
    assert study.trials()[number].intermediate_values == {}
