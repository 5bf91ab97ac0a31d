from __future__ import annotations

import pytest
from optuna.trial import TrialState
from sampler_spaces import mixed, quiet_study, run

from orchestrator.errors import UsageError
from orchestrator.samplers import GridSampler

BASE = {"drop": 0.1, "layers": 2, "width": 32, "batch": 8, "constant": 2.0}
POINTS = [
    {**BASE, "rate": 1e-4, "optimizer": "adam"},
    {**BASE, "rate": 1e-4, "optimizer": "sgd", "momentum": 0.9},
    {**BASE, "rate": 1e-3, "optimizer": "adam"},
    {**BASE, "rate": 1e-3, "optimizer": "sgd", "momentum": 0.9},
]


def test_every_point_comes_once_and_in_order() -> None:
    study = quiet_study(GridSampler(POINTS))
    assert run(study, mixed, 4, pending=4) == POINTS
    assert GridSampler(POINTS).exhausted(study)


def test_a_resumed_study_goes_on_with_the_next_point() -> None:
    study = quiet_study(GridSampler(POINTS))
    run(study, mixed, 2, pending=1)
    study.sampler = GridSampler(POINTS)
    assert GridSampler(POINTS).remaining(study) == 2
    assert run(study, mixed, 2, pending=1) == POINTS[2:]


def test_a_point_that_was_enqueued_does_not_come_again() -> None:
    study = quiet_study(GridSampler(POINTS))
    study.enqueue_trial(POINTS[1])
    assert run(study, mixed, 4) == [POINTS[1], POINTS[0], POINTS[2], POINTS[3]]


def test_an_enqueued_point_off_the_grid_takes_no_place_on_it() -> None:
    study = quiet_study(GridSampler(POINTS))
    study.enqueue_trial({**POINTS[0], "rate": 5e-2})
    assert run(study, mixed, 5)[1:] == POINTS


def test_a_trial_that_is_still_asking_for_its_parameters_holds_its_point() -> None:
    study = quiet_study(GridSampler(POINTS))
    slow, quick = study.ask(), study.ask()
    mixed(quick)
    mixed(slow)
    assert [slow.params, quick.params] == POINTS[:2]


def test_a_failed_point_is_not_tried_again() -> None:
    study = quiet_study(GridSampler(POINTS))
    trial = study.ask()
    mixed(trial)
    study.tell(trial, state=TrialState.FAIL)
    assert run(study, mixed, 3) == POINTS[1:]


def test_a_point_that_is_listed_twice_comes_once() -> None:
    assert len(GridSampler([*POINTS, *POINTS])) == 4


def test_true_is_not_one() -> None:
    study = quiet_study(GridSampler([{"flag": True}, {"flag": 1}]))
    asked = [study.ask().suggest_categorical("flag", [True, 1]) for _ in range(2)]
    assert [type(value) for value in asked] == [bool, int]


def test_asking_for_more_than_there_is_says_so() -> None:
    study = quiet_study(GridSampler(POINTS))
    run(study, mixed, 4)
    with pytest.raises(UsageError, match="every one of the 4 points"):
        mixed(study.ask())


def test_a_parameter_that_the_point_lacks_is_named() -> None:
    study = quiet_study(GridSampler([{"x": 1.0}]))
    with pytest.raises(UsageError, match="no value for 'y'"):
        study.ask().suggest_float("y", 0.0, 1.0)
