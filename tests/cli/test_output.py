from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli.output import (
    State,
    console,
    emit_json,
    error,
    message,
    print_table,
    set_state,
    wants_color,
)
from orchestrator.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm")
    set_state(State())
    yield
    set_state(State())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("option", "variables", "terminal", "color"),
    [
        (None, {}, True, True),
        (None, {}, False, False),
        (None, {"NO_COLOR": "1"}, True, False),
        (None, {"NO_COLOR": ""}, True, True),
        (None, {"FORCE_COLOR": "1"}, False, True),
        (None, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, True),
        (None, {"TERM": "dumb"}, True, False),
        (False, {"FORCE_COLOR": "1"}, True, False),
        (True, {"NO_COLOR": "1"}, False, True),
    ],
)
def test_colour_is_the_options_then_the_environments_then_the_terminals(
    monkeypatch: pytest.MonkeyPatch, option: bool | None, variables: dict[str, str], terminal: bool, color: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    set_state(State(color=option))
    assert wants_color(Terminal() if terminal else io.StringIO()) is color


def test_forced_colour_does_not_make_a_log_file_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = console()
    shown.print("[red]x[/red]")
    assert not shown.is_terminal
    assert capsys.readouterr().err == "\x1b[31mx\x1b[0m\n"


def test_without_colour_there_is_no_control_code(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[red]x[/red]")
    error(UsageError("no such thing", hint="try another"))
    print_table(("a", "b"), [("1", "2")])
    captured = capsys.readouterr()
    assert captured.err == "x\nError: no such thing\n  try another\n"
    assert "\x1b" not in captured.out


def test_an_error_in_a_file_begins_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    error(ConfigError("study.yaml:3: name: wrong"))
    assert capsys.readouterr().err == "study.yaml:3: name: wrong\n"


def test_quiet_hides_messages_but_not_errors(capsys: pytest.CaptureFixture[str]) -> None:
    set_state(State(verbosity=-1))
    message("hello")
    console().print("hello")
    error(UsageError("no"))
    assert capsys.readouterr().err == "Error: no\n"


def test_details_are_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    message("detail", verbosity=1)
    assert capsys.readouterr().err == ""
    set_state(State(verbosity=1))
    message("detail", verbosity=1)
    assert capsys.readouterr().err == "detail\n"


def test_json_is_one_strict_document_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    data: dict[Any, Any] = {"x": float("nan"), "y": (1, 2.5, float("inf")), "p": Path("/a"), 3: {"é": None, "t": True}}
    emit_json(data)
    captured = capsys.readouterr()
    found = json.loads(captured.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found == {"schema_version": 1, "x": None, "y": [1, 2.5, None], "p": "/a", "3": {"é": None, "t": True}}
    assert captured.err == ""


def test_a_table_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "n"), [("x" * 300, "1"), ("日本", "22")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("x  1")
    assert lines[0] == "name" + " " * 298 + "n"
    assert lines[2] == "日本" + " " * 298 + "22"


def test_a_heading_is_bold_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    print_table(("a",), [])
    assert screen.getvalue() == "\x1b[1ma\x1b[0m\n"
