"""``survey doctor``: its words, its exit codes, its JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from looks import emulated
from survey_command import Survey, command

from orchestrator.simulate.flavours import flavour


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return command(capsys)


def test_the_doctor_alone_looks_at_this_installation(survey: Survey) -> None:
    ran = survey("doctor")
    assert ran.code == 0, ran.out
    lines = ran.out.splitlines()
    assert lines[0] == "this installation"
    # Only what cannot be broken, a path, may be longer than a line.
    assert all(len(line) <= 80 or max(map(len, line.split())) > 40 for line in lines), ran.out
    assert "\x1b" not in ran.out
    assert lines[1].split()[:2] == ["OK", "Python"]
    assert ran.err.strip().endswith(" 0 ERROR")
    assert os.listdir() == []


def test_colour_is_for_those_who_want_it(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32mOK" in survey("--color", "doctor").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in survey("doctor").out


def test_json_has_each_line_and_the_counts(survey: Survey) -> None:
    ran = survey("doctor", "--site", "local", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["schema_version"] == 1
    assert told["looked_at"] == "site local (local)"
    assert {"level", "subject", "text", "hint"} == set(told["findings"][0])
    assert sum(told["counts"].values()) == len(told["findings"])


def test_an_error_ends_with_4_and_says_what_to_do(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(flavour("pjm").site(command_timeout=10.0).to_yaml())
    with emulated(tmp_path, monkeypatch, "pjm") as cluster:
        (cluster.bin / "pjstat").unlink()
        ran = survey("doctor", "--site", str(site))
    assert ran.code == 4
    assert "  ERROR commands" in ran.out
    assert "-> Is this a login node" in ran.out
    assert "1 ERROR" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--site", "nowhere"], "there is no site 'nowhere'"),
        (["nothing"], "no study 'nothing'"),
        (["toy", "--site", "local"], "one thing at a time"),
        (["--probe"], "go with --site"),
        (["--site", "local", "--probe", "--probe-wait", "soon"], "--probe-wait"),
        (["--site", "local", "--queue", "a queue"], "--queue"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(survey: Survey, words: list[str], message: str) -> None:
    ran = survey("doctor", *words)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


def test_a_record_goes_with_the_findings(survey: Survey) -> None:
    ran = survey("doctor", "--site", "local", "--record", "record")
    assert ran.code == 0
    assert "saved in record" in ran.err
    assert {"README.txt", "findings.txt", "site.yaml", "python.txt", "index.json"} <= set(os.listdir("record"))
