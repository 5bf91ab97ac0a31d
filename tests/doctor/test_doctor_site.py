"""The look at a site: emulated clusters through their commands, and what can be wrong with them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from looks import bad, emulated, look, of, said

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site
from orchestrator.doctor import far_side
from orchestrator.doctor.findings import Level, exit_code
from orchestrator.doctor.folders import judge_folder
from orchestrator.simulate.batchjob import Partition
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import flavour

KINDS = ["slurm", "pbs", "pbs-json", "pbs-wrapped", "pjm", "pjm-stock", "pjm-wrapped", "gridengine"]


def site_of(kind: str, **changes: Any) -> Site:
    return flavour(kind).site(**{"command_timeout": 10.0, "python": sys.executable, **changes})


def test_the_far_side_needs_no_more_than_python_3_6() -> None:
    run = "from vermin.main import main; main()"
    argv = [sys.executable, "-c", run, "-t=3.6-", "--no-tips", "--violations", far_side.__file__]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
async def test_a_healthy_cluster_of_every_dialect_has_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind):
        check = await look(site_of(kind), tmp_path / "runs")
    assert exit_code(check.findings) == 0, check.findings
    assert "can be read" in said(check.findings, "queue")
    assert of(check.findings, "commands")[0].level is Level.OK
    assert set(bad(check.findings)) <= {"work root", "limits", "history"}, bad(check.findings)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("kind", "version"),
    [("slurm", "slurm-wlm 22.05.8"), ("pbs", "pbs_version = 23.06.06"), ("gridengine", "SGE 8.1.9")],
)
async def test_the_schedulers_version_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, version: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind):
        check = await look(site_of(kind), tmp_path)
    assert version in said(check.findings, "version")


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm"])
async def test_history_is_on_where_the_cluster_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind):
        on = await look(site_of(kind), tmp_path)
        unused = await look(site_of(kind, history=False), tmp_path)
    assert said(on.findings, "history").startswith("OK on: ")
    assert "`history: true`" in said(unused.findings, "history")


@pytest.mark.parametrize("kind", ["slurm-noacct", "pbs-nohistory"])
async def test_history_is_off_where_the_cluster_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind):
        expected = await look(site_of(kind, history=False), tmp_path)
        surprise = await look(site_of(kind, history=True), tmp_path)
    assert said(expected.findings, "history").startswith("OK off: ")
    assert said(surprise.findings, "history").startswith("WARN off: ")
    assert "`history: false`" in said(surprise.findings, "history")


async def test_a_command_that_is_missing_is_named_with_the_key_that_sets_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(tmp_path, monkeypatch, "pjm") as cluster:
        (cluster.bin / "pjstat").unlink()
        check = await look(site_of("pjm"), tmp_path)
        (cluster.bin / "pjstat2").write_text("#!/bin/sh\nexit 0\n")
        (cluster.bin / "pjstat2").chmod(0o700)
        other = await look(site_of("pjm", commands={"pjstat": "pjstat2"}), tmp_path)
    assert exit_code(check.findings) == 4
    assert "not found on PATH there: pjstat" in said(check.findings, "commands")
    assert "commands: {pjstat: /path/to/pjstat}" in said(check.findings, "commands")
    assert not of(check.findings, "queue")
    # A command of another name is found; that it is silent about there being no job has a name, too.
    assert "pjstat2" in of(other.findings, "commands")[0].text
    assert "set empty: absent" in said(other.findings, "queue")


async def test_a_command_that_hangs_is_cut_off_at_its_deadline_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(tmp_path, monkeypatch, "slurm", faults=[Fault(command="squeue", kind="hang")]):
        check = await look(site_of("slurm", command_timeout=1.5), tmp_path)
    assert "ERROR squeue gave no answer within 1.5 s" in said(check.findings, "queue")
    assert said(check.findings, "history").startswith("OK on")
    assert exit_code(check.findings) == 4


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
async def test_a_list_that_cannot_be_read_asks_for_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind, faults=[Fault(command="any", kind="garbage")]):
        check = await look(site_of(kind), tmp_path)
    assert "cannot be read" in said(check.findings, "queue")
    assert "--record DIR" in said(check.findings, "queue")


async def test_a_server_that_is_down_is_said_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated(tmp_path, monkeypatch, "slurm")  # installed, never started
    check = await look(site_of("slurm"), tmp_path)
    assert "Unable to contact slurm controller" in said(check.findings, "queue")


async def test_python_that_is_missing_or_too_old_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "python3.4"
    old.write_text("#!/bin/sh\necho 3.4.10\n")
    old.chmod(0o700)
    with emulated(tmp_path, monkeypatch, "slurm"):
        missing = await look(site_of("slurm", python="/nowhere/python3"), tmp_path)
        too_old = await look(site_of("slurm", python=str(old)), tmp_path)
    assert said(missing.findings, "python").startswith("WARN there is no /nowhere/python3 on the login node")
    assert "3.4.10, older than 3.6" in said(too_old.findings, "python")
    assert "--probe" in said(too_old.findings, "python")


async def test_queues_of_the_site_file_are_compared_with_the_schedulers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions = (
        Partition(name="main", max_walltime=7200.0),
        Partition(name="debug", max_walltime=600.0),
    )
    queues = [
        {"name": "main", "unit": "share", "max_walltime": "4h"},
        {"name": "gone", "unit": "share", "max_walltime": "1h"},
    ]
    with emulated(tmp_path, monkeypatch, "pbs", partitions=partitions):
        check = await look(site_of("pbs", queues=queues), tmp_path)
    words = said(check.findings, "queues")
    assert "main (2h), debug (10m)" in words
    assert "WARN of the site file, and not of the scheduler: gone" in words
    assert "WARN main: at most 2h, and 4h in the site file" in words


async def test_a_clock_that_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(SystemClock):
        def now(self) -> float:
            return super().now() - 300.0

    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await look(site_of("slurm"), tmp_path, clock=Late())
    # A busy machine takes a moment between the two looks.
    assert re.search(r"WARN the site.s clock is 300\.\d s ahead of this machine.s", said(check.findings, "clock"))


async def test_a_work_root_that_cannot_be_made_is_an_error_with_the_key_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await look(site_of("slurm", work_root="/proc/survey"), tmp_path)
        (tmp_path / "file").write_text("")
        below = await look(site_of("slurm", work_root=str(tmp_path / "file" / "work")), tmp_path)
    for one in (check, below):
        assert of(one.findings, "work root")[-1].level is Level.ERROR
        assert "work_root:" in said(one.findings, "work root")
        assert not one.usable
    assert "a part of the path is a file" in said(below.findings, "work root")


def test_a_read_only_work_root_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere: only a read-only mount refuses, and this is how.
    def refuse(path: str, mode: int = 0o777) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    facts = far_side.examine_folder(str(tmp_path))
    assert facts["error"]["errno"] == 30
    (line,) = (one for one in judge_folder(facts, site="s", batch=False, database=False) if one.level is Level.ERROR)
    assert "the file system cannot be written" in line.text


async def test_a_path_that_the_scheduler_cannot_write_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await look(site_of("slurm", work_root=f"{tmp_path}/100%"), tmp_path)
    assert "100%" in said(check.findings, "work root")
    assert of(check.findings, "work root")[-1].level is Level.ERROR


async def test_a_site_that_takes_no_job_without_a_group_says_how_to_name_one(tmp_path: Path) -> None:
    site = site_of("slurm", group_required=True, commands={"sbatch": "/nowhere/sbatch"})
    check = await look(site, tmp_path)
    assert "takes no job without a group" in said(check.findings, "script")
    assert exit_code(check.findings) == 4


def test_a_file_system_that_hangs_holds_nobody_up() -> None:
    over = threading.Event()
    try:
        answers = far_side.within(0.5, {"folder": over.wait, "other": lambda: 7})
    finally:
        over.set()
    assert answers == {"folder": None, "other": 7}
    (line,) = judge_folder(None, site="s", batch=True, database=False)
    assert line.level is Level.ERROR
    assert "gave no answer in time" in line.text


def test_a_folder_that_was_examined_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    facts = far_side.examine_folder(str(tmp_path / "a" / "b"))
    assert facts["error"] is None
    assert facts["tried"]["rename"] is True
    assert facts["tried"]["exclusive"] is True
    assert facts["tried"]["lockf"] is True
    assert facts["tried"]["flock"] is True
    assert 0 <= facts["tried"]["seen"] < 10
    assert os.listdir(tmp_path) == ["kept"]
    assert stat.S_ISREG((tmp_path / "kept").stat().st_mode)
