from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from study_files import Load, loader, writer

from orchestrator.errors import UsageError
from orchestrator.search.space import distributions, grid, is_active, suggest, validate

CONDITIONAL = """\
momentum: {type: float, low: 0, high: 0.9, step: 0.3, when: {optimizer: sgd}}
optimizer: {type: categorical, choices: [sgd, adam]}
nesterov: {type: categorical, choices: [true, false], when: {momentum: [0.3, 0.6]}}
layers: {type: int, low: 1, high: 3}
width: 8
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path, monkeypatch))


def asked(space: Any, **fixed: Any) -> tuple[dict[str, Any], optuna.trial.FrozenTrial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if fixed:
        study.enqueue_trial(fixed)
    trial = study.ask()
    params = suggest(space, trial)
    return params, study.trials[0]


def test_distributions_are_optunas_own(study: Load) -> None:
    space = study(
        space="a: {type: float, low: 1e-4, high: 1, log: true}\nb: {type: int, low: 1, high: 9, step: 4}\n"
        "c: {type: categorical, choices: [x, 1, 0.5]}\nd: {type: int, low: 1, high: 64, log: true}\ne: 3"
    ).space
    assert distributions(space) == {
        "a": FloatDistribution(1e-4, 1, log=True),
        "b": IntDistribution(1, 9, step=4),
        "c": CategoricalDistribution(["x", 1, 0.5]),
        "d": IntDistribution(1, 64, log=True),
    }


def test_a_range_that_is_no_multiple_of_the_step_ends_at_the_last_step_without_a_warning(study: Load) -> None:
    space = study(space="a: {type: float, low: 0, high: 1, step: 0.3}\nb: {type: int, low: 1, high: 10, step: 4}").space
    found = distributions(space)
    assert found["a"] == FloatDistribution(0, 0.9, step=0.3)
    assert found["b"] == IntDistribution(1, 9, step=4)
    params, trial = asked(space)
    assert trial.distributions == found
    validate(space, params)


def test_suggestions_agree_with_the_distributions(study: Load) -> None:
    space = study(space=CONDITIONAL).space
    _, trial = asked(space, optimizer="sgd", momentum=0.3)
    assert trial.distributions == distributions(space)


def test_inactive_parameters_are_not_asked_for_and_fixed_ones_are_there(study: Load) -> None:
    space = study(space=CONDITIONAL).space
    params, trial = asked(space, optimizer="adam")
    assert list(params) == ["optimizer", "layers", "width"]
    assert params["width"] == 8
    assert set(trial.params) == {"optimizer", "layers"}


def test_a_condition_on_a_condition_holds_only_where_both_do(study: Load) -> None:
    space = study(space=CONDITIONAL).space
    assert "nesterov" in asked(space, optimizer="sgd", momentum=0.6)[0]
    assert "nesterov" not in asked(space, optimizer="sgd", momentum=0.9)[0]
    assert not is_active(space["nesterov"], {"optimizer": "adam"})


def test_parameters_come_in_the_order_of_the_file(study: Load) -> None:
    params, _ = asked(study(space=CONDITIONAL).space, optimizer="sgd", momentum=0.0)
    assert list(params) == ["momentum", "optimizer", "layers", "width"]


def test_suggested_points_are_points_of_the_space(study: Load) -> None:
    space = study(space=CONDITIONAL + "lr: {type: float, low: 0.1, high: 0.7, step: 0.1}\n").space
    search = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [suggest(space, search.ask()) for _ in range(50)]
    for point in points:
        validate(space, point)
    assert len({tuple(point) for point in points}) == 3, "adam, sgd, and sgd with nesterov"


def test_a_grid_is_every_point_once_with_conditions_heeded(study: Load) -> None:
    space = study(space=CONDITIONAL).space
    points = grid(space)
    # sgd: momentum 0, 0.9 without and 0.3, 0.6 with two values of nesterov; adam: one; each with three layers.
    assert len(points) == (2 + 2 * 2 + 1) * 3
    assert len({tuple(sorted(point.items(), key=str)) for point in points}) == len(points)
    for point in points:
        validate(space, point)


def test_a_grid_has_the_numbers_that_one_would_write(study: Load) -> None:
    space = study(
        space="a: {type: float, low: 0, high: 0.3, step: 0.1}\nb: {type: int, low: 1, high: 6, step: 2}"
    ).space
    assert [point["a"] for point in grid(space)[::3]] == [0.0, 0.1, 0.2, 0.3]
    assert [point["b"] for point in grid(space)[:3]] == [1, 3, 5]


def test_a_grid_over_a_real_parameter_without_a_step_is_refused(study: Load) -> None:
    space = study(space="lr: {type: float, low: 0, high: 1}").space
    with pytest.raises(UsageError, match="parameter lr is a real number without a step"):
        grid(space)


def test_a_grid_without_bounds_in_reason_is_refused_at_once(study: Load) -> None:
    with pytest.raises(UsageError, match="parameter a alone has 2000000001 values"):
        grid(study(space="a: {type: int, low: 0, high: 2000000000}").space)
    many = "\n".join(f"a{n}: {{type: int, low: 1, high: 100}}" for n in range(9))
    with pytest.raises(UsageError, match="more than 1000000 points, counted up to parameter a3"):
        grid(study(space=many).space)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"optimizer": "adam", "layers": 1}, "parameter width is missing"),
        ({"optimizer": "adam", "layers": 4, "width": 8}, "parameter layers cannot be 4"),
        ({"optimizer": "adam", "layers": 1, "width": 8, "momentum": 0.3}, "it needs optimizer = sgd"),
        ({"optimiser": "adam"}, r'no parameter optimiser\n  did you mean "optimizer"\?'),
        ({"optimizer": "adam", "layers": 1, "width": 9}, "parameter width cannot be 9"),
    ],
)
def test_what_is_no_point_of_the_space_is_refused(study: Load, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        validate(study(space=CONDITIONAL).space, params)
