from __future__ import annotations

from pathlib import Path

import pytest
from study_files import Load, loader, writer

from orchestrator.config.parameters import FixedParameter, in_order, same
from orchestrator.errors import ConfigError


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("lr: {type: flaot, low: 1, high: 2}", r':7: space\.lr: unknown type "flaot"; did you mean "float"\?'),
        ("lr: {type: float, low: 3, high: 2}", r":7: space\.lr\.low: low \(3\.0\) is above high \(2\.0\)"),
        ("lr: {type: float, low: 0, high: 2, log: true}", r"space\.lr\.low: low must be above zero where log"),
        ("lr: {type: float, low: 1, high: 2, log: true, step: 1}", r"space\.lr\.step: step and log cannot go"),
        ("lr: {type: int, low: 1, high: 9, log: true, step: 2}", r"space\.lr\.step: step and log cannot go"),
        ("lr: {type: float, low: 1, high: 2, step: 3}", r"space\.lr\.step: step \(3\.0\) is larger than the range"),
        ("lr: {type: float, low: 1, high: 2, step: 0}", r"space\.lr\.step: must be more than 0"),
        ("lr: {type: int, low: 1, high: 2.5}", r"space\.lr\.high: expected a whole number, found the number 2\.5"),
        ("lr: {type: int, low: true, high: 2}", r"space\.lr\.low: expected a whole number, found true"),
        ('lr: {type: float, low: "1", high: 2}', r'space\.lr\.low: expected a number, found the text "1"'),
        ("lr: {type: float, low: 1, high: .inf}", r"space\.lr\.high: expected a finite number"),
        ("lr: {type: float, low: 1, hihg: 2}", r'space\.lr\.hihg: unknown key; did you mean "high"\?'),
        (
            "lr: {type: float, low: 1, high: 2, log: yes}",
            r'space\.lr\.log: expected true or false, found the text "yes"',
        ),
        ("lr: {low: 1, high: 2}", r'space\.lr: missing key "type"'),
        ("lr: {tpye: float, low: 1, high: 2}", r'space\.lr\.tpye: unknown key; did you mean "type"\?'),
        ("lr: [1, 2]", r"space\.lr: a list is no parameter; for a choice"),
        ("lr: ~", r"space\.lr: expected a mapping"),
        ("lr: .nan", r"space\.lr: expected a finite number"),
        ("o: {type: categorical, choices: []}", r"space\.o\.choices: must not be empty"),
        ("o: {type: categorical, choices: [a, b, a]}", r"space\.o\.choices\[2\]: choice 'a' is there twice"),
        ("o: {type: categorical, choices: [1, true]}", r"space\.o\.choices\[1\]: choice True is there twice \(1\)"),
        ("o: {type: categorical, choices: [1, [2]]}", r"space\.o\.choices\[1\]: expected a number, text"),
        ("a: {value: 1, when: {opt: 3}}\nopts: 4", r':7: space\.a\.when\.opt: .*did you mean "opts"\?'),
        ("a: {value: 1, when: {a: 1}}", r"space\.a\.when\.a: a parameter cannot depend on itself"),
        (
            "a: {value: 1, when: {o: sdg}}\no: {type: categorical, choices: [sgd]}",
            r"never has the value 'sdg'; did you",
        ),
        ("a: {value: 1, when: {n: [2, 4]}}\nn: {type: int, low: 2, high: 9, step: 3}", r"n never has the value 4"),
        ("a: {value: 1, when: {b: 1}}\nb: {value: 1, when: {a: 1}}", r":6: space: .* in a circle: a -> b -> a"),
        ("a: {value: 1, when: {b: []}}\nb: 1", r"space\.a\.when\.b: must not be empty"),
        ('" a": 1', r"a parameter's name must be printable"),
    ],
)
def test_a_parameter_that_cannot_be_is_told_with_line_and_key(study: Load, space: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(space=space)


def test_an_empty_space_is_refused(study: Load) -> None:
    with pytest.raises(ConfigError, match=r"space: must not be empty"):
        study(space="{}")


@pytest.mark.parametrize("written", ["3", "{value: 3}", "{type: fixed, value: 3}"])
def test_a_fixed_value_has_three_spellings(study: Load, written: str) -> None:
    assert study(space=f"depth: {written}").space["depth"] == FixedParameter(value=3)


def test_a_single_condition_is_a_list_of_one(study: Load) -> None:
    space = study(space="o: {type: categorical, choices: [sgd, no]}\nm: {value: 1, when: {o: no}}").space
    assert space["m"].when == {"o": ("no",)}


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        ("{type: float, low: 0, high: 1}", [0, 0.3, 1], [-0.1, 1.1, "0.3", True, None]),
        ("{type: float, low: 0, high: 1, step: 0.1}", [0.3, 0.1 + 0.2], [0.35]),
        ("{type: int, low: 1, high: 9, step: 2}", [1, 3, 9], [2, 3.0, True]),
        ("{type: categorical, choices: [1, a, false]}", [1, 1.0, "a", False], [True, 0, "b"]),
        ("relu", ["relu"], ["tanh", None]),
    ],
)
def test_a_parameter_admits_its_own_values_only(
    study: Load, written: str, inside: list[object], outside: list[object]
) -> None:
    parameter = study(space=f"p: {written}").space["p"]
    assert [value for value in inside if not parameter.admits(value)] == []
    assert [value for value in outside if parameter.admits(value)] == []


def test_parents_come_before_those_that_depend_on_them(study: Load) -> None:
    space = study(space="c: {value: 1, when: {b: 1}}\nb: {value: 1, when: {a: 1}}\na: 1\nz: 1").space
    assert in_order(space) == ("a", "b", "c", "z")


def test_a_number_and_a_flag_are_never_the_same() -> None:
    assert same(1, 1.0)
    assert not same(1, True)
