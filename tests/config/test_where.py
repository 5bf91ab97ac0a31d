"""Conditions between parameters: what can be written, what it means, and what is answered to mistakes."""

from __future__ import annotations

import pytest
from study_files import Load, loader, writer

from orchestrator.config.study import compare
from orchestrator.config.where import condition
from orchestrator.errors import ConfigError, UsageError


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(writer(tmp_path_factory.mktemp("study"), monkeypatch))


@pytest.mark.parametrize(
    ("text", "params", "expected"),
    [
        ("a <= b", {"a": 2, "b": 2}, True),
        ("a <= b", {"a": 3, "b": 2}, False),
        ("batch * patch**3 <= 4e6", {"batch": 4, "patch": 64}, True),
        ("batch * patch**3 <= 4e6", {"batch": 32, "patch": 64}, False),
        ("1 < a < b", {"a": 2, "b": 3}, True),
        ("1 < a < b", {"a": 1, "b": 3}, False),
        ("kind == 'sgd' or a > 1", {"kind": "adam", "a": 1}, False),
        ("not (kind != 'sgd' and a > 1)", {"kind": "sgd", "a": 9}, True),
        ("kind in ['sgd', 'adam']", {"kind": "adam"}, True),
        ("a not in (1, 2)", {"a": 2}, False),
        ("a % 2 == 0 and a // 2 == 3 and -a == -6", {"a": 6}, True),
        ("max(a, b) / min(a, b) < 4", {"a": 1, "b": 4}, False),
        ("abs(log10(a) - log2(b)) <= sqrt(4)", {"a": 100, "b": 4}, True),
        ("deep == True", {"deep": True}, True),
    ],
)
def test_a_condition_means_what_it_says(text: str, params: dict[str, object], expected: bool) -> None:
    assert condition(text).holds(params) is expected


def test_a_condition_on_an_absent_parameter_holds() -> None:
    assert condition("momentum < 0.5 and a > 1").holds({"a": 0})


@pytest.mark.parametrize("text", ["1 / a > 0", "log(a) < 1", "(0 - 8 + a) ** (1 / 3) < 9", "9 ** 9 ** 9 ** b < a"])
def test_what_has_no_value_does_not_hold(text: str) -> None:
    assert not condition(text).holds({"a": 0, "b": 9})


@pytest.mark.parametrize("text", ["a < 'x'", "a + 'x' == 'x'", "'x' * a == 'xx'", "sqrt(kind) > 1"])
def test_a_number_and_text_are_not_compared(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be worked out for .* = "):
        condition(text).holds({"a": 2, "kind": "sgd"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a <", "column 4: this is no condition"),
        ("a = b", "this is no condition"),
        ("a + b", "expected a comparison"),
        ("1 < 2", "it speaks of no parameter"),
        ("a < b.c", "column 5: only names of parameters"),
        ("a < b[0]", "column 5: only names"),
        ("  a < open('x')", "column 7: the functions are abs"),
        ("__import__('os').system('x') == a", "column 1: the functions are"),
        ("(lambda: a)() < 1", "column 1: the functions are"),
        ("a < max(b, default=3)", "column 5: the functions are"),
        ("a < sqrt(1, 2)", "column 5: sqrt does not take 2 values"),
        ("[a] * 9 == [a]", "column 1: only names"),
        ("a in b", "column 6: after `in` comes a list"),
        ("a is b", "column 6: compare with"),
        ("a @ b < 1", "column 5: only \\+ - "),
        ("(a := 3) < 4", "column 2: only names"),
        ("f'{a}' == 'x'", "column 1: only names"),
        ("größe < b.c", "column 9: only names"),
        ("a < " + "(" * 300 + "1" + ")" * 300, "brackets|no condition"),
        ("a < " + "1" * 1000, "at most 1000 characters"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_column(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        condition(text)


SPACE = "a: {type: int, low: 1, high: 4}\nb: {type: int, low: 1, high: 4}\nbatch-size: 3"


def test_a_study_has_conditions(load: Load) -> None:
    study = load("where: ['a <= b', a + b < 6]\n", space=SPACE)
    assert study.where == ("a <= b", "a + b < 6")
    assert type(study).model_validate(study.to_data()) == study


def test_a_mistake_in_a_condition_is_told_by_line_and_column(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"study.yaml:12: where\[1\]: column 9: there is no parameter c"):
        load("where:\n  - a <= b\n  - a + b < c\n", space=SPACE)
    with pytest.raises(ConfigError, match=r"where\[0\]: column 5: this is no condition"):
        load("where: ['a <= ']\n", space=SPACE)


def test_a_name_that_is_read_as_a_subtraction_is_explained(load: Load) -> None:
    with pytest.raises(ConfigError, match="'batch-size' cannot be named in a condition"):
        load("where: ['batch-size < a']\n", space=SPACE)


def test_conditions_stay_as_long_as_the_study(load: Load) -> None:
    forbidden, _ = compare(load(space=SPACE), load("where: ['a <= b']\n", space=SPACE))
    assert forbidden == ['where: (none) -> ["a <= b"]']
