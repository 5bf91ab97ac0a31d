"""The look at this installation."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

import pytest
from looks import of, said

from orchestrator.doctor.findings import Level, exit_code
from orchestrator.doctor.installation import EXTRAS, examine_installation


def own(home: Path, kind: str, name: str, text: str) -> Path:
    path = home / ".config" / "survey-orchestrator" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sound_installation_has_no_error_and_stays_as_it_was(tmp_path: Path, clean_environment: Path) -> None:
    found = examine_installation(tmp_path / "runs")
    assert exit_code(found) == 0, found
    assert {"Python", "package", "dependencies", "extra", "sites", "templates", "studies", "state", "ssh"} <= {
        line.subject for line in found
    }
    assert list(tmp_path.iterdir()) == []
    assert list(clean_environment.iterdir()) == []


def test_each_extra_of_the_package_is_explained() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert set(EXTRAS) == set(re.findall(r"^([\w-]+) = \[", table, re.MULTILINE))


def test_a_missing_dependency_is_an_error_and_a_missing_extra_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=99", "no-such-package>=1", "pyyaml>=6", "no-such-extra>=2; extra == 'gp'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: needs)
    found = examine_installation(Path())
    assert "ERROR missing or too old: numpy " in said(found, "dependencies")
    assert "no-such-package" in said(found, "dependencies")
    (extra,) = of(found, "extra")
    assert extra.level is Level.OK
    assert "pip install 'survey-orchestrator[gp]'" in extra.text


def test_an_own_site_and_an_own_template_that_cannot_be_read_are_errors(
    tmp_path: Path, clean_environment: Path
) -> None:
    own(clean_environment, "sites", "mine.yaml", "name: mine\nscheduler: slurm\nqueuse: []\n")
    own(clean_environment, "templates", "mine.sh.j2", "#!/bin/sh\n{% if %}\n")
    found = examine_installation(tmp_path)
    assert "mine.yaml:3: queuse: unknown key" in said(found, "sites")
    assert "mine.sh.j2:2: " in said(found, "templates")
    assert exit_code(found) == 4


def test_a_state_folder_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    found = examine_installation(tmp_path)
    assert "XDG_STATE_HOME" in said(found, "state")
    assert of(found, "state")[0].level is Level.ERROR
    other = examine_installation(Path("/proc/nowhere"))
    assert "--root" in said(other, "studies")


def test_a_full_disk_is_met_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "whole"))

    monkeypatch.setattr(os, "fsync", full)
    found = examine_installation(tmp_path)
    assert "no space left" in said(found, "studies")
    assert "Make room there" in said(found, "studies")
    assert list(tmp_path.iterdir()) == []


def test_locks_that_are_not_to_be_had_are_said_with_what_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    found = examine_installation(tmp_path)
    assert "WARN " in said(found, "studies")
    assert "lockf: No locks available" in said(found, "studies")
    assert "lease alone" in said(found, "studies")


def test_ssh_and_schedulers_are_named_by_what_is_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    nothing = examine_installation(tmp_path)
    assert said(nothing, "ssh").startswith("WARN not found")
    assert "none on PATH" in said(nothing, "schedulers")
    for name in ("ssh", "pjsub"):
        (tmp_path / name).write_text("#!/bin/sh\necho OpenSSH_9.9 >&2\n")
        (tmp_path / name).chmod(0o700)
    some = examine_installation(tmp_path)
    assert said(some, "ssh").startswith("OK OpenSSH_9.9")
    assert "--site pjm" in said(some, "schedulers")
