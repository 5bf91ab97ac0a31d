"""A scaling study over the nodes of a real Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

# A fifth of the time on one is serial; the first of a trial's processes tells the result.
PROGRAM = """
import json, os, sys
from orchestrator import trial

nodes = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([nodes, os.environ["SURVEY_TRIAL"], os.environ["SLURMD_NODENAME"]]) + "\\n")
if os.environ.get("SLURM_PROCID", "0") == "0":
    trial.finish({"loss": 0.25, "train_seconds": 10 * (0.2 + 0.8 / nodes)}, {"devices": nodes})
"""


def test_each_number_of_nodes_gets_that_many_and_one_process_on_each(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=9, metrics=["train_seconds"], resources={"walltime": "5m"}, parallel=2)
    (place.root / "work.py").write_text(PROGRAM)
    started = place.root / "started"
    place.change(command=[sys.executable, "work.py", str(started)])
    words = [str(place.study), "2", "1", "--over", "nodes", "-n", "2", "--site", str(place.site), "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", "scaling", *words],
        cwd=place.root,
        env={**os.environ, **cluster.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    processes = [json.loads(line) for line in Path(started).read_text().splitlines()]
    for trial in ("0", "1"):
        assert sorted(node for nodes, number, node in processes if (nodes, number) == (2, trial)) == ["n1", "n2"]
        assert len([node for nodes, number, node in processes if (nodes, number) == (1, trial)]) == 1
    assert len(processes) == 6
    found = json.loads(ran.stdout)["scaling"]
    assert [(point["count"], point["devices"], point["trials"]) for point in found["points"]] == [(1, 1, 2), (2, 2, 2)]
    assert found["points"][1]["speedup"] == pytest.approx(1 / 0.6)
    assert found["amdahl"]["serial"] == pytest.approx(0.2)
    assert "2 counts, 4 trials to come" in ran.stderr
    assert "node-hours" in ran.stderr
