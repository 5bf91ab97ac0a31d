"""A study's conditions: what its sampler and its grid make of them, and those that nothing meets."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import UsageError
from orchestrator.search import space as space_tools
from orchestrator.search.sampling import left_out, refuse_impossible, study_grid, study_sampler


def study(where: list[str], sampler: str = "random", **changes: Any) -> Study:
    space = {
        "first": {"type": "int", "low": 1, "high": 4},
        "second": {"type": "int", "low": 1, "high": 4},
        "solver": {"type": "categorical", "choices": ["sgd", "adam"]},
        "nesterov": {"type": "categorical", "choices": [True, False], "when": {"solver": "sgd"}},
        "depth": {"type": "int", "low": 3, "high": 3},
        "epochs": 20,
    }
    return Study(
        **{
            "name": "s",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": space,
            "where": where,
            "sampler": {"name": sampler, "seed": 1},
            "trials": 5,
            "command": ["train"],
            **changes,
        }
    )


def test_a_grid_leaves_out_what_breaks_a_condition_and_says_how_much() -> None:
    held = study(["first <= second", "nesterov == False"], "grid")
    points: list[Any] = study_grid(held) or []
    assert len(points) == 10 * 2  # for adam there is no nesterov, and the condition on it holds
    assert all(point["first"] <= point["second"] and not point.get("nesterov") for point in points)
    assert left_out(held) == 4 * 4 * 3 - 20
    assert left_out(study([], "grid")) == 0


def test_a_grid_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(
        UsageError, match="none of the 48 points of the grid meets the condition 'first > second \\+ 3'"
    ):
        study_grid(study(["first > second + 3"], "grid"))


def test_conditions_may_speak_of_fixed_parameters_and_those_with_one_value() -> None:
    admits = space_tools.admitter(study([]).space, ["first * epochs <= 40", "first < depth"])
    assert admits({"first": 2, "second": 1, "solver": "adam"})
    assert not admits({"first": 3, "second": 1, "solver": "adam"})


def test_what_a_point_has_of_inactive_parameters_does_not_matter() -> None:
    admits = space_tools.admitter(study([]).space, ["nesterov == False"])
    assert admits({"first": 1, "second": 1, "solver": "adam", "nesterov": True})
    assert not admits({"first": 1, "second": 1, "solver": "sgd", "nesterov": True})


def test_a_point_of_the_users_own_must_meet_them_too() -> None:
    point = {"first": 3, "second": 2, "solver": "adam", "depth": 3, "epochs": 20}
    space_tools.validate(study([]).space, point)
    with pytest.raises(UsageError, match="does not meet the condition 'first <= second'"):
        space_tools.validate(study([]).space, point, ["first <= second"])


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (["first <= second", "second > 4"], "meets the condition 'second > 4'"),
        (["first < second", "second < first"], "meets all of first < second, second < first"),
    ],
)
def test_conditions_that_nothing_meets_are_refused_by_name(where: list[str], named: str) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_impossible(study(where))
    assert refused.value.message == f"none of 20,000 random points of the space {named}"


def test_conditions_that_few_points_meet_are_not_refused() -> None:
    refuse_impossible(study(["first == 4", "second == 4", "solver == 'adam'"]))


def test_a_condition_that_compares_a_number_with_text_is_told_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="'solver < first' cannot be worked out for solver = "):
        refuse_impossible(study(["solver < first"]))


@pytest.mark.parametrize("name", ["bo", "cmaes", "skopt"])
def test_samplers_of_one_objective_refuse_several(name: str) -> None:
    several = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
    with pytest.raises(UsageError, match="searches for one objective, and this study has 2"):
        study_sampler(study([], name, objective=None, objectives=several))


@pytest.mark.parametrize("name", ["nsga2", "tpe", "random", "qmc"])
def test_the_others_take_them(name: str) -> None:
    several = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
    study_sampler(study(["first <= second"], name, objective=None, objectives=several))
