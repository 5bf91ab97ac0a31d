"""Samplers held to conditions between parameters."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
from sampler_spaces import SPACE, mixed, quiet_study, run, valid
from test_sampler_contract import QUICK, RUNNABLE

from orchestrator.errors import UsageError
from orchestrator.samplers import make_sampler
from orchestrator.samplers.within import Asked, Within, random_points

ASKING = sorted(set(RUNNABLE) - {"grid"})


def walk(asked: Any) -> dict[str, Any]:
    mixed(asked)
    return dict(asked.params)


def narrow(params: Any) -> bool:
    """About one point of eight."""
    return bool(params["layers"] * params["width"] <= 64 and params["batch"] >= 12)


def within(name: str, admits: Any = narrow, seed: int = 5) -> Within:
    return Within(
        lambda inner: make_sampler(
            name, seed=inner, options=QUICK.get(name), space=SPACE, admits=admits if name == "bo" else None
        ),
        seed=seed,
        space=SPACE,
        walk=walk,
        admits=admits,
    )


@pytest.mark.parametrize("name", ASKING)
def test_every_point_meets_the_conditions_and_keeps_to_the_space(name: str) -> None:
    asked = run(quiet_study(within(name)), mixed, 14, pending=3)
    assert all(narrow(params) for params in asked)
    assert all(valid(params) for params in asked)
    assert len({json.dumps(params, sort_keys=True) for params in asked}) == 14


@pytest.mark.parametrize("name", ASKING)
def test_a_sampler_made_anew_for_each_ask_goes_on_as_one_that_was_kept(name: str) -> None:
    kept, anew = quiet_study(within(name)), quiet_study(within(name))
    first = run(kept, mixed, 8)
    second = []
    for _ in range(8):
        anew.sampler = within(name)
        second += run(anew, mixed, 1)
    assert first == second


@pytest.mark.parametrize("name", ["random", "qmc", "bo"])
def test_conditions_that_always_hold_change_nothing(name: str) -> None:
    free = make_sampler(name, seed=5, options=QUICK.get(name), space=SPACE)
    held = within(name, lambda _params: True)
    assert run(quiet_study(held), mixed, 6) == run(quiet_study(free), mixed, 6)


def test_a_point_that_no_draw_finds_is_taken_at_random() -> None:
    def rare(params: Any) -> bool:
        return bool(params["layers"] == 5 and params["width"] < 12 and params["batch"] == 32 and params["drop"] == 0.0)

    asked = run(quiet_study(within("random", rare)), mixed, 3)
    assert all(rare(params) for params in asked)
    assert len({params["rate"] for params in asked}) == 3


def test_what_the_user_fixed_is_kept_and_the_rest_goes_with_it() -> None:
    study = quiet_study(within("random"))
    study.enqueue_trial({"layers": 5, "batch": 12})
    (params,) = run(study, mixed, 1)
    assert (params["layers"], params["batch"]) == (5, 12)
    assert params["width"] * 5 <= 64


def test_fixed_values_that_leave_nothing_are_told() -> None:
    study = quiet_study(within("random"))
    study.enqueue_trial({"batch": 4})
    with pytest.raises(UsageError, match=r"none meets the conditions between the parameters, given \{'batch': 4\}"):
        run(study, mixed, 1)


def test_nothing_of_a_draw_that_is_thrown_away_is_written() -> None:
    study = quiet_study(within("random"))
    trial = study.ask(fixed_distributions={})
    asked = Asked(make_sampler("random", seed=9), study, study.trials[0], {})
    mixed(asked)  # type: ignore[arg-type]  # it answers as a trial does
    assert study.trials[0].params == {}
    assert set(asked.params) <= set(SPACE)
    assert trial.number == 0


def test_random_points_have_all_parameters_and_fill_their_ranges() -> None:
    import numpy as np

    points = list(random_points(SPACE, np.random.default_rng(1), 300))
    assert len(points) == 300
    assert all(set(point) == set(SPACE) for point in points)
    assert {point["layers"] for point in points} == {1, 2, 3, 4, 5}
    assert {point["constant"] for point in points} == {2.0}


def test_bo_searches_well_inside_its_conditions() -> None:
    def on_the_ring(params: Any) -> bool:
        return bool(1.0 <= params["x"] ** 2 + params["y"] ** 2 <= 1.2)

    space = {name: optuna.distributions.FloatDistribution(-2.0, 2.0) for name in "xy"}

    def distance(trial: Any) -> float:
        x, y = trial.suggest_float("x", -2.0, 2.0), trial.suggest_float("y", -2.0, 2.0)
        return float((x - 1.0) ** 2 + y**2)

    def best(name: str) -> float:
        def make(seed: int) -> Any:
            return make_sampler(name, seed=seed, space=space, admits=on_the_ring if name == "bo" else None)

        sampler = Within(
            make, seed=2, space=space, walk=lambda asked: (distance(asked), asked.params)[1], admits=on_the_ring
        )
        study = quiet_study(sampler)
        assert all(on_the_ring(params) for params in run(study, distance, 20))
        return float(study.best_value)

    assert best("bo") < 0.3 * best("random")
