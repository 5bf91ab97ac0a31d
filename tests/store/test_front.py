"""The Pareto front, and what of a study is on it."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import create_trial

from orchestrator.store.front import front, fronts
from orchestrator.store.record import StudyRecord, TrialRecord


def record(*trials: TrialRecord, directions: tuple[str, ...] = ("maximize", "minimize")) -> StudyRecord:
    return StudyRecord(
        name="s", objectives=("a", "b")[: len(directions)], directions=directions, space={}, sampler={}, planned=9,
        parallel=1, site="local", state="done", trials=trials,
    )  # fmt: skip


def trial(number: int, *values: float, state: str = "complete", beyond: float = 0.0) -> TrialRecord:
    return TrialRecord(number=number, state=state, values=values or None, constraints={"memory <= 1": beyond})


@pytest.mark.parametrize("directions", [("minimize", "minimize"), ("maximize", "minimize"), ("minimize",) * 3])
def test_the_front_is_optunas(directions: tuple[str, ...]) -> None:
    rng = random.Random(len(directions))
    for _ in range(20):
        # Few values, so that many are equal.
        points = [tuple(float(rng.randint(0, 6)) for _ in directions) for _ in range(40)]
        study = optuna.create_study(directions=[StudyDirection[word.upper()] for word in directions])
        study.add_trials([create_trial(values=point) for point in points])
        assert front(points, directions) == [each.number for each in study.best_trials]


def test_fronts_come_one_after_the_other() -> None:
    points = [(0.0, 0.0), (1.0, 1.0), (0.0, 0.0), (2.0, 1.0), (0.5, 2.0)]
    assert list(fronts(points, ("minimize", "minimize"))) == [[0, 2], [1, 4], [3]]
    assert front([], ("minimize",)) == []


def test_only_trials_that_keep_to_all_bounds_are_best_or_on_the_front() -> None:
    found = record(trial(0, 9.0, 1.0, beyond=0.5), trial(1, 3.0, 2.0), trial(2, 4.0, 3.0), trial(3, 1.0, 5.0))
    assert [each.number for each in found.feasible] == [1, 2, 3]
    assert [each.number for each in found.front()] == [2, 1]
    assert [each.number for each in found.best(3)] == [2, 1, 3]
    alone = record(trial(0, 1.0, beyond=1e-9), trial(1, 5.0), trial(2, 4.0), trial(3), directions=("minimize",))
    assert [each.number for each in alone.best(2)] == [2, 1]
    assert [each.number for each in alone.front()] == [2]


def test_trials_that_are_not_complete_are_never_feasible() -> None:
    assert not trial(0, 1.0, state="pruned").feasible
    assert record(trial(0, 1.0, 1.0, state="pruned"), trial(1, state="failed")).best() == ()


def test_a_record_with_bounds_and_conditions_is_read_back_as_it_was() -> None:
    found = StudyRecord(
        name="s", objectives=("a",), directions=("minimize",), space={}, sampler={}, planned=1, parallel=1, site="x",
        state="done", constraints=({"metric": "memory", "at_most": 1.0},), where=("a < b",), trials=(trial(0, 1.0),),
    )  # fmt: skip
    assert StudyRecord.from_json(found.to_json()) == found
