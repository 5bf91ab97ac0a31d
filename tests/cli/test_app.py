from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import pytest
from survey_command import Survey, command

from orchestrator import __version__
from orchestrator.cli import app
from orchestrator.errors import HeldByAnother, SurveyError

RUN = "import sys; from orchestrator.cli.app import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def verb(monkeypatch: pytest.MonkeyPatch, function: Callable[[], None]) -> None:
    """Make ``function`` the verb ``schema``."""
    monkeypatch.setattr("orchestrator.cli.schema.schema", function)


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_the_command_stays_light_until_a_verb_is_used(words: list[str]) -> None:
    heavy = "tensorflow torch sklearn matplotlib plotly paramiko optuna pydantic scipy numpy jinja2 sqlalchemy rich"
    code = (
        "import sys\nfrom orchestrator.cli.app import main\n"
        f"main({words})\n"
        f"print('HEAVY', sorted(set('{heavy}'.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_lists_every_verb_in_one_line_each(survey: Survey) -> None:
    ran = survey("--help")
    assert ran.code == 0
    assert ran.err == ""
    for name, row in app.VERBS.items():
        assert f"  {name} " in ran.out
        assert row.help in " ".join(ran.out.split())


@pytest.mark.parametrize("name", app.VERBS)
def test_every_verb_has_a_function_and_says_how_it_is_used(survey: Survey, name: str) -> None:
    module = importlib.import_module(f"orchestrator.cli.{app.VERBS[name].module}")
    assert getattr(module, app.VERBS[name].function or name).__doc__
    ran = survey(name, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: survey {name} ")


def test_the_version_is_the_packages(survey: Survey) -> None:
    assert survey("--version").out == f"survey-orchestrator {__version__}\n"


def test_a_misspelt_verb_is_answered_with_the_near_one(survey: Survey) -> None:
    ran = survey("chek", "x.yaml")
    assert ran.code == 2
    assert 'there is no verb "chek"\n  did you mean "check"?' in ran.err


def test_an_unknown_option_is_a_usage_error(survey: Survey) -> None:
    assert survey("schema", "--nonsense").code == 2
    assert survey("--nonsense").code == 2


def test_an_error_is_told_in_words_with_its_exit_code(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> None:
        raise HeldByAnother("study x is driven by pid 7 on login1", hint="stop it first [bold]")

    verb(monkeypatch, held)
    ran = survey("schema")
    assert ran.code == 5
    assert ran.out == ""
    assert ran.err == "Error: study x is driven by pid 7 on login1\n  stop it first [bold]\n"


def test_an_error_out_of_a_group_of_tasks_is_told_in_words_too(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def grouped() -> None:
        raise BaseExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("more", [SurveyError("the disk is full")])])

    verb(monkeypatch, grouped)
    ran = survey("schema")
    assert (ran.code, ran.err) == (1, "Error: the disk is full\n")


def test_a_bug_is_one_line_and_with_debug_a_traceback(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oh")

    verb(monkeypatch, broken)
    ran = survey("schema")
    assert ran.code == 1
    assert ran.err == "Error: ZeroDivisionError: oh\n  this is a bug; run again with --debug to see where\n"
    ran = survey("--debug", "schema")
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "in broken" in ran.err


def test_an_error_shows_its_traceback_with_debug_only(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise SurveyError("no")

    verb(monkeypatch, failing)
    assert "Traceback" not in survey("schema").err
    assert "Traceback" in survey("--debug", "schema").err


def test_an_interrupt_is_130_and_quiet(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    verb(monkeypatch, interrupted)
    ran = survey("schema")
    assert (ran.code, ran.out, ran.err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c '{RUN}' schema | head -c 1 >/dev/null"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_options_of_one_call_do_not_reach_the_next(survey: Survey) -> None:
    from orchestrator.cli.output import state

    survey("-q", "--no-color", "schema")
    assert (state().verbosity, state().color) == (-1, False)
    survey("-vv", "schema")
    assert (state().verbosity, state().color) == (2, None)
    survey("schema")
    assert state().verbosity == 0


def test_a_shell_can_complete_the_verbs() -> None:
    environment = {"_SURVEY_COMPLETE": "complete_bash", "COMP_WORDS": "survey s", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=False, env=environment)
    assert {"status", "sites", "schema"} <= set(done.stdout.split())
