"""A canary in place of each secret: no file, no name, no command line, no output of a whole study has it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from little_study import PROGRAM, write_study
from survey_command import Survey, command

ENVIRONMENT = "canary-of-the-environment-5c1f"
PASSWORD = "canary-of-the-storage-a77d"
# Each trial writes down the command lines that anybody on its machine could see.
SPY = 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " " >> "$SPY"; '


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def survey(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_umask: None
) -> Survey:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ENVIRONMENT)
    monkeypatch.setenv("DB_SECRET", PASSWORD)
    return command(capsys)


def found(folder: Path, *canaries: str) -> list[str]:
    """Files whose name or content has a canary."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if any(canary in str(path) or (path.is_file() and canary.encode() in path.read_bytes()) for canary in canaries)
    ]


def open_to_others(folder: Path) -> list[str]:
    """Files and folders that their owner's group or anybody may read, write or enter."""
    return [
        f"{path.relative_to(folder)} {stat.filemode(path.lstat().st_mode)}"
        for path in sorted([folder, *folder.rglob("*")])
        if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077
    ]


def test_a_whole_study_has_no_canary_anywhere_and_is_its_owners_alone(survey: Survey, tmp_path: Path) -> None:
    spy, told = tmp_path / "seen-by-others", tmp_path / "told"
    notify = tmp_path / "notify.sh"
    notify.write_text(f"#!/bin/sh\n{{ cat; echo \"$*\"; }} > '{told}'\n", encoding="utf-8")
    notify.chmod(0o700)
    write_study(
        tmp_path,
        command=SPY + PROGRAM,
        environment={"SPY": str(spy)},
        notify={"command": [str(notify)]},
        batch={"setup": ["true"]},
    )
    said = ""
    for words in (
        ("check", "study.yaml"),
        ("-vv", "--debug", "run", "study.yaml"),
        ("-v", "tick"),
        ("status", "--json"),
        ("explain",),
        ("explain", "0"),
        ("logs", "0"),
        ("stop", "--cancel"),
        ("export", "--format", "json"),
        ("best", "--export", "best"),
        ("report",),
    ):
        ran = survey(*words)
        assert ran.code == 0, ran.err
        said += ran.out + ran.err
    assert "agent.py" in spy.read_text("utf-8", "replace")
    assert "toy is done" in told.read_text("utf-8")
    assert ENVIRONMENT not in said
    assert found(tmp_path, ENVIRONMENT, PASSWORD) == []
    driven = tmp_path / "runs/toy"
    # The report was asked for by a person, with their own umask; its folder keeps it from others.
    assert [line for line in open_to_others(driven) if not line.startswith("report.html")] == []
    assert stat.S_IMODE(driven.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:${DB_SECRET}@127.0.0.1:1/db?connect_timeout=1&sslpassword=${DB_SECRET}", "cannot be reached"),
        ("mysql://me@127.0.0.1:1/db?password=${DB_SECRET}", ""),
        ("sqlite:///x.db?password=${DB_SECRET}", "a file takes none"),
        ("nonsense://me:${DB_SECRET}@host/db?password=${DB_SECRET}", ""),
    ],
)
def test_a_password_of_the_storage_is_in_no_message_and_no_file(
    survey: Survey, tmp_path: Path, url: str, words: str
) -> None:
    write_study(tmp_path, storage=url)
    said = ""
    for verb in (("check", "study.yaml"), ("-vv", "--debug", "run", "study.yaml"), ("status",), ("doctor", "toy")):
        ran = survey(*verb)
        said += ran.out + ran.err
    assert words in said
    assert PASSWORD not in said
    assert found(tmp_path, PASSWORD) == []


def test_the_umask_of_whoever_calls_stays_theirs(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path, trials=1)
    assert survey("run", "study.yaml").code == 0
    umask = os.umask(0o022)
    os.umask(umask)
    assert umask == 0o022
