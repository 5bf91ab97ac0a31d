"""An emulated cluster whose commands are on PATH, a site file for it, and commands that are there and do nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.simulate.batchjob import Node
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.installed import InstalledCluster, install

# Its rate limits are out of the way, and nothing is waited for longer than a test can bear.
QUICK: dict[str, Any] = {
    "python": sys.executable,
    "poll": {"look": 0.1, "query_min": 0.3, "query_max": 1.0},
    "grace": 2.0,
    "settle": 1.0,
    "limits": {"submits_per_minute": 6000.0, "queries_per_minute": 6000.0},
}


@contextlib.contextmanager
def cluster(folder: Path, kind: str = "slurm", **rules: object) -> Iterator[tuple[InstalledCluster, str]]:
    """Run a cluster of one node with two GPUs; gives it, and the PATH that has its commands."""
    made = flavour(kind).make_rules(**{"nodes": (Node(name="n1", gpus=2, cpus=8),), **rules})
    with install(folder / "cluster", kind=kind, rules=made, delay_factor=0.0) as installed:
        yield installed, f"{installed.bin}{os.pathsep}{os.environ['PATH']}"


def write_site(folder: Path, kind: str = "slurm", **changes: object) -> Path:
    """Write ``site.yaml`` for such a cluster."""
    path = folder / "site.yaml"
    path.write_text(flavour(kind).site(**{**QUICK, **changes}).to_yaml(), encoding="utf-8")
    return path


def submitted(installed: InstalledCluster) -> int:
    """How often the cluster was asked to take a job."""
    calls = (installed.control("show") or {"calls": {}})["calls"]
    return sum(calls.get(name, 0) for name in ("sbatch", "qsub", "pjsub"))


def idle_commands(folder: Path, *names: str) -> str:
    """A PATH that has commands of these names; each leaves the file ``called`` beside itself when it is run."""
    place = folder / "idle"
    place.mkdir()
    for name in names:
        (place / name).write_text(f"#!/bin/sh\necho {name} >> {place}/called\nexit 1\n", encoding="utf-8")
        (place / name).chmod(0o700)
    return f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin"
