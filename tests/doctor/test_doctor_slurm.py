"""The doctor on a real Slurm: its lists, its limits, a probe with a GPU, and a controller that is away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster
from survey_command import Ran

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system


def doctor(cluster: Cluster, folder: Path, *words: str) -> Ran:
    site = {
        "schema_version": 1,
        "name": "real",
        "extends": "slurm",
        "command_timeout": 60,
        "work_root": str(folder / "work"),
        "poll": {"look": 0.2, "query_min": 1, "query_max": 2},
        "limits": {"submits_per_minute": 6000, "queries_per_minute": 6000},
        "queues": [{"name": "main", "unit": "share", "gpus_per_unit": 4}, {"name": "gone", "unit": "share"}],
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", "doctor", "--site", str(folder / "site.yaml"), *words],
        cwd=folder,
        env={**os.environ, **cluster.environment, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_probe_on_a_real_slurm_sees_its_gpu_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    ran = doctor(cluster, tmp_path, "--probe", "--queue", "main", "--record", "record")
    rows = [line.split(None, 1) for line in ran.out.splitlines()[1:] if not line.lstrip().startswith("->")]
    found = [(level, " ".join(words.split())) for level, words in rows]
    text = "\n".join(words for _, words in found)
    assert ran.code == 0, ran.out
    assert "version slurm-wlm " in text
    assert "queue squeue answers in " in text
    assert "history on: sacct answers in " in text
    assert "of the site file, and not of the scheduler: gone" in text
    assert "probe a job ran on " in text
    assert "queue lists the probe job " in text or "history says of the probe job: " in text
    assert "visibility the login node sees a file of the node's after " in text
    assert "node GPUs CUDA_VISIBLE_DEVICES=" in text
    assert not (tmp_path / "work").exists() or not os.listdir(tmp_path / "work")
    assert not (tmp_path / "runs").exists()
    recorded = {path.name for path in (tmp_path / "record").iterdir()}
    assert {"query.txt", "history.txt", "version.txt", "queues.txt", "query-of-the-probe.txt"} <= recorded
    assert "PARTITION" in (tmp_path / "record" / "raw-sinfo.txt").read_text()


def test_a_cluster_without_accounting_is_told_apart(forgetful_cluster: Cluster, tmp_path: Path) -> None:
    ran = doctor(forgetful_cluster, tmp_path)
    assert "off: " in ran.out
    assert "history: false" in ran.out
    assert ran.code == 0, ran.out
