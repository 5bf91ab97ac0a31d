"""The probe job: what it tells of a node, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from looks import emulated, look, of, said

from orchestrator.clock import SystemClock
from orchestrator.config.site import BatchOptions, Site, load_site
from orchestrator.doctor.findings import Level, exit_code
from orchestrator.doctor.probe import Probe, _gpu_lines, wanted_gpus
from orchestrator.doctor.site import SiteCheck
from orchestrator.simulate.batchjob import Node
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.installed import InstalledCluster
from orchestrator.transports.base import Command
from orchestrator.transports.local import LocalTransport

QUICK: dict[str, Any] = {
    "command_timeout": 10.0,
    "python": sys.executable,
    "poll": {"look": 0.1, "query_min": 0.3, "query_max": 1.0},
    "grace": 4.0,
    "settle": 1.0,
    "limits": {"submits_per_minute": 6000.0, "queries_per_minute": 6000.0},
}


def quick(kind: str, **changes: Any) -> Site:
    return flavour(kind).site(**{**QUICK, **changes})


async def probed(site: Site, root: Path, *, gpus: int = 0, patience: float = 60.0) -> SiteCheck:
    check = await look(site, root)
    assert check.usable, check.findings
    await Probe(check=check, gpus=gpus, patience=patience).run()
    return check


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
async def test_a_probe_tells_of_the_node_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with emulated(tmp_path, monkeypatch, kind):
        check = await probed(quick(kind), tmp_path / "runs", gpus=1 if kind == "slurm" else 0)
    found = check.findings
    assert "OK a job ran on " in said(found, "probe"), found
    assert f"Python {'.'.join(map(str, sys.version_info[:3]))} runs the agent" in said(found, "node")
    assert "the login node sees a file of the node's after" in said(found, "visibility")
    assert of(found, "node clock")[0].level is Level.OK
    assert "query of the probe" in check.answers
    assert "probe job" in said(found, "queue")
    assert not (tmp_path / "runs").exists()


async def test_a_probe_of_this_machine_needs_no_cluster(tmp_path: Path) -> None:
    check = await probed(load_site("local"), tmp_path / "runs")
    assert exit_code(check.findings) == 0, check.findings
    assert "OK a job ran on " in said(check.findings, "probe")
    assert os.listdir(tmp_path) == []


async def test_a_probe_on_a_work_root_of_its_own_leaves_that_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await probed(quick("slurm", work_root=str(work)), tmp_path / "runs")
    assert "OK a job ran on " in said(check.findings, "probe"), check.findings
    assert os.listdir(work) == []


@pytest.mark.parametrize(
    ("asked", "listed", "devices", "visible", "level"),
    [
        (0, [], 0, None, Level.OK),
        (1, ["GPU 0: Tesla V100"], 4, "0", Level.OK),
        (1, [], 1, None, Level.WARN),
        (1, [], 0, "0", Level.WARN),
        (1, [], 0, None, Level.ERROR),
        (1, [], 0, "", Level.ERROR),
    ],
)
def test_a_gpu_that_was_asked_for_must_be_seen(
    asked: int, listed: list[str], devices: int, visible: str | None, level: Level
) -> None:
    (line,) = _gpu_lines({"listed": listed, "devices": devices, "visible": visible}, asked)
    assert line.level is level


async def test_no_python_on_the_nodes_is_what_the_probe_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await probed(quick("slurm", python="/nowhere/python3"), tmp_path / "runs")
    (line,) = of(check.findings, "probe")
    assert line.level is Level.ERROR
    assert "python:" in line.hint


async def test_a_refused_probe_is_an_error_in_the_schedulers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(tmp_path, monkeypatch, "slurm", faults=[Fault(command="submit", kind="refused")]):
        check = await probed(quick("slurm"), tmp_path / "runs")
    assert "Invalid account" in said(check.findings, "probe")
    assert exit_code(check.findings) == 4
    assert not (tmp_path / "runs").exists()


async def test_a_probe_that_waits_too_long_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated(tmp_path, monkeypatch, "slurm", nodes=ONE_CPU) as cluster:
        await _fill(cluster, tmp_path)
        check = await probed(quick("slurm"), tmp_path / "runs", patience=2.0)
        waiting = await _names(cluster, "PENDING")
    assert "was cancelled" in said(check.findings, "probe"), check.findings
    assert "--probe-wait" in said(check.findings, "probe")
    assert waiting == []
    assert not (tmp_path / "runs").exists()


def test_an_interrupt_takes_the_probe_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, log = tmp_path / "site.yaml", tmp_path / "log"
    site.write_text(quick("slurm").to_yaml())
    words = [sys.executable, "-m", "orchestrator.cli.app", "doctor", "--site", str(site), "--probe"]
    with emulated(tmp_path, monkeypatch, "slurm", nodes=ONE_CPU) as cluster, log.open("w") as stream:
        asyncio.run(_fill(cluster, tmp_path))
        doctor = subprocess.Popen(words, cwd=tmp_path, stdout=stream, stderr=stream)
        try:
            end = time.monotonic() + 60
            while not asyncio.run(_names(cluster, "PENDING")):
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            doctor.send_signal(signal.SIGINT)
            assert doctor.wait(60) == 130, log.read_text()
        finally:
            doctor.kill()
            doctor.wait()
        assert asyncio.run(_names(cluster, "PENDING")) == []
    assert not (tmp_path / "runs").exists()


ONE_CPU = (Node(name="n1", cpus=1),)


async def _fill(cluster: InstalledCluster, folder: Path) -> None:
    """Submit a job that leaves no room for another."""
    script = folder / "fill.sh"
    script.write_text("#!/bin/sh\nsleep 600\n")
    sent = await LocalTransport().run(Command(argv=(str(cluster.bin / "sbatch"), str(script))))
    assert sent.returncode == 0, sent.stderr


async def _names(cluster: InstalledCluster, state: str) -> list[str]:
    """Names of the jobs in ``state``."""
    listed = await LocalTransport().run(Command(argv=(str(cluster.bin / "squeue"), "--me", "-h", "-o", "%T %j")))
    assert listed.returncode == 0, listed.stderr
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [row[1] for row in rows if row[0] == state]


@pytest.mark.parametrize(
    ("queues", "gpus"),
    [
        ([], 0),
        ([{"name": "cpu", "unit": "share", "cores_per_unit": 8}], 0),
        ([{"name": "gpu", "unit": "gpu", "gpus_per_unit": 1}], 1),
    ],
)
async def test_a_probe_asks_by_itself_for_a_gpu_where_the_queue_has_some(
    tmp_path: Path, queues: list[dict[str, Any]], gpus: int
) -> None:
    check = SiteCheck(site=quick("slurm", queues=queues), root=tmp_path, batch=BatchOptions(), clock=SystemClock())
    assert wanted_gpus(check) == gpus
