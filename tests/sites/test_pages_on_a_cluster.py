"""The steps of a site's page, on an emulated cluster of that kind with the profile's queues."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.site import load_site
from orchestrator.simulate.batchjob import Node, Partition
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.installed import install

PAGES = Path(__file__).parents[2] / "docs" / "sites"
# The slow ones differ from these in values only. No emulated Grid Engine has TSUBAME's resource types.
KINDS = {"reedbush-h": "pbs-wrapped", "flow-type2": "pjm"}
SLOW_KINDS = {
    "slurm": "slurm", "pbs": "pbs-nohistory", "pjm": "pjm", "gridengine": "gridengine", "reedbush-l": "pbs-wrapped",
    "abci3": "pbs", "miyabi-g": "pbs-nohistory",
    "wisteria-aquarius": "pjm-wrapped", "genkai": "pjm-wrapped",
}  # fmt: skip
CASES = [*KINDS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW_KINDS.items())]


def write_site(path: Path, site: str, work_root: Path) -> None:
    """Write the user's own file: the profile, asked more often, and with places that this machine has."""
    profile = load_site(site)
    own: dict[str, Any] = {"name": site, "scheduler": profile.scheduler, "extends": site}
    own["poll"] = {"look": "0.2s", "query_min": "1s"}
    own["limits"] = {"queries_per_minute": 60, "submits_per_minute": 600}
    if profile.work_root is not None:
        own["work_root"] = f"{work_root}/{{group}}/{{user}}"
    own["commands"] = {name: Path(program).name for name, program in profile.commands.items()}
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(own), encoding="utf-8")


def write_study(path: Path, site: str) -> None:
    """Write a study with what the page says of this site, of a program that needs neither module nor image."""
    page = (PAGES / f"{site}.md").read_text(encoding="utf-8")
    parts = [yaml.safe_load(body) for body in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    part = next(data for data in parts if "resources" in data)
    batch = {key: value for key, value in part["batch"].items() if key not in ("container", "modules", "setup")}
    if load_site(site).gpu_syntax is None:
        # Such a node's GPUs are all the job's; the emulated node shows a job those that it asked for.
        batch["setup"] = "export CUDA_VISIBLE_DEVICES=0,1,2,3"
    study = {
        "name": "lungs",
        "objective": {"metric": "dice", "direction": "maximize"},
        "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.1}},
        "sampler": "random",
        "trials": 2,
        "parallel": 2,
        "command": 'echo "{\\"metrics\\": {\\"dice\\": 0.5}}" > "$SURVEY_RESULT"',
        "resources": part["resources"],
        "batch": batch,
    }
    path.write_text(yaml.safe_dump(study), encoding="utf-8")


@pytest.mark.parametrize(("site", "kind"), CASES)
def test_a_page_leads_to_a_study_that_runs(site: str, kind: str, clean_environment: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_study(tmp_path / "study.yaml", site)
    queues = [*load_site(site).queues]
    named = yaml.safe_load((tmp_path / "study.yaml").read_text())["batch"].get("queue")
    names = list(dict.fromkeys([*(queue.name for queue in queues), *([named] if named else [])]))
    rules = flavour(kind).make_rules(
        nodes=(Node(name="n1", gpus=8, cpus=240), Node(name="n2", gpus=8, cpus=240)),
        partitions=tuple(Partition(name=name) for name in names),
    )
    write_site(clean_environment / ".config/survey-orchestrator/sites" / f"{site}.yaml", site, work)

    def survey(*words: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.app", *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{cluster.bin}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    with install(tmp_path / "cluster", kind=kind, rules=rules) as cluster:
        assert "warning" not in survey("check", "study.yaml", "--site", site)
        assert "lungs: done, 2 complete" in survey("run", "study.yaml", "--site", site)
    assert "2 complete" in survey("status", "lungs")
    results = list((work if work.exists() else tmp_path / "runs").rglob("result.json"))
    assert len(results) == 2
