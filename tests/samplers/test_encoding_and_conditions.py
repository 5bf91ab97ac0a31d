from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sampler_spaces import SPACE

from orchestrator.samplers.conditions import Conditions
from orchestrator.samplers.encoding import Encoding

OPEN = {name: distribution for name, distribution in SPACE.items() if not distribution.single()}
POINT: dict[str, Any] = {
    "rate": 3e-4,
    "drop": 0.3,
    "layers": 2,
    "width": 100,
    "batch": 12,
    "optimizer": "adam",
    "momentum": 0.7,
}


def test_a_point_survives_the_way_there_and_back() -> None:
    encoding = Encoding(OPEN)
    Z, active = encoding.read([POINT])
    assert active.all()
    back = encoding.write(encoding.snap(Z)[0])
    assert {name: type(value) for name, value in back.items()} == {name: type(value) for name, value in POINT.items()}
    assert {**back, "optimizer": 0} == pytest.approx({**POINT, "optimizer": 0})
    assert back["optimizer"] == "adam"


def test_drawn_and_snapped_points_are_points_of_the_space() -> None:
    encoding = Encoding(OPEN)
    rng = np.random.default_rng(0)
    for Z in (
        encoding.draw(rng.random((200, len(encoding)))),
        encoding.snap(3.0 * rng.standard_normal((200, len(encoding)))),
    ):
        np.testing.assert_allclose(encoding.snap(Z), Z, atol=1e-12)
        for z in Z:
            for name, value in encoding.write(z).items():
                assert OPEN[name]._contains(OPEN[name].to_internal_repr(value)), (name, value)


def test_every_value_of_a_stepped_parameter_is_equally_likely() -> None:
    encoding = Encoding({"n": IntDistribution(1, 4)})
    drawn = encoding.draw(np.linspace(0.00125, 0.99875, 400)[:, None])
    values = [encoding.write(z)["n"] for z in drawn]
    assert [values.count(n) for n in (1, 2, 3, 4)] == [100] * 4


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(0.0, 0.9, step=0.3), IntDistribution(3, 11, step=4), IntDistribution(1, 1000, log=True)],
    ids=["float step", "int step", "int log"],
)
def test_the_ends_of_a_range_can_be_reached(distribution: BaseDistribution) -> None:
    encoding = Encoding({"x": distribution})
    ends = [encoding.write(z)["x"] for z in encoding.snap(np.array([[-1.0], [2.0]]))]
    assert ends == [distribution.low, distribution.high]  # type: ignore[attr-defined]


def test_an_inactive_parameter_says_nothing() -> None:
    encoding = Encoding({"c": CategoricalDistribution(["a", "b", "c"]), "x": FloatDistribution(0.0, 1.0)})
    Z, active = encoding.read([{"c": "a"}, {"x": 0.2}])
    X = encoding.features(Z, active)
    assert X[0, 3] == 0.5
    assert len(set(X[1, :3])) == 1


def test_two_different_choices_are_at_distance_one() -> None:
    encoding = Encoding({"c": CategoricalDistribution(["a", "b", "c"])})
    X = encoding.features(*encoding.read([{"c": "a"}, {"c": "c"}]))
    assert math.dist(X[0], X[1]) == pytest.approx(1.0)


def test_a_value_outside_todays_range_keeps_its_distance() -> None:
    encoding = Encoding({"x": FloatDistribution(0.0, 1.0)})
    assert encoding.read([{"x": 3.0}])[0][0, 0] == 3.0


def condition_of(points: list[dict[str, Any]], space: dict[str, BaseDistribution]) -> tuple[Encoding, Conditions]:
    encoding = Encoding(space)
    return encoding, Conditions(*encoding.read(points), encoding.choices)


def test_a_parent_choice_is_found_in_the_history() -> None:
    space = {
        "a_opt": CategoricalDistribution(["sgd", "adam"]),
        "mom": FloatDistribution(0.0, 1.0),
        "x": FloatDistribution(0.0, 1.0),
    }
    points: list[dict[str, Any]] = [
        {"a_opt": "sgd", "mom": 0.5, "x": 0.9},
        {"a_opt": "adam", "x": 0.1},
        {"a_opt": "sgd", "mom": 0.2, "x": 0.8},
    ]
    encoding, conditions = condition_of(points, space)
    Z, _ = encoding.read([{"a_opt": "adam", "mom": 0.5, "x": 0.9}, {"a_opt": "sgd", "mom": 0.5, "x": 0.1}])
    assert conditions.active(Z).tolist() == [[True, False, True], [True, True, True]]


def test_a_number_of_layers_decides_which_widths_there_are() -> None:
    space: dict[str, BaseDistribution] = {"layers": IntDistribution(1, 3)}
    space |= {f"width{i}": IntDistribution(1, 9) for i in range(3)}
    points = [{"layers": n, **{f"width{i}": 5 for i in range(n)}} for n in (1, 2, 3, 3, 1)]
    encoding, conditions = condition_of(points, space)
    Z, _ = encoding.read([{"layers": n, "width0": 1, "width1": 1, "width2": 1} for n in (1, 2, 3)])
    assert conditions.active(Z).sum(axis=1).tolist() == [2, 3, 4]


def test_a_chain_of_conditions_is_followed() -> None:
    space = {
        "reg": CategoricalDistribution(["none", "some"]),
        "kind": CategoricalDistribution(["l1", "l2", "drop"]),
        "rate": FloatDistribution(0.0, 1.0),
    }
    points: list[dict[str, Any]] = [
        {"reg": "none"},
        {"reg": "some", "kind": "l1"},
        {"reg": "some", "kind": "l2"},
        {"reg": "some", "kind": "drop", "rate": 0.5},
    ]
    encoding, conditions = condition_of(points, space)
    Z, _ = encoding.read([{"reg": "none", "kind": "drop", "rate": 0.5}, {"reg": "some", "kind": "drop", "rate": 0.5}])
    names = encoding.names
    active = conditions.active(Z)
    assert not active[0, names.index("rate")]
    assert not active[0, names.index("kind")]
    assert active[1].all()


def test_what_no_parent_explains_counts_as_active() -> None:
    space = {"c": CategoricalDistribution(["a", "b"]), "x": FloatDistribution(0.0, 1.0)}
    encoding, conditions = condition_of([{"c": "a", "x": 0.5}, {"c": "a"}, {"c": "b", "x": 0.1}], space)
    assert conditions.active(encoding.read([{"c": "b"}])[0]).all()
