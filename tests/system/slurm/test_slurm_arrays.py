"""Array jobs on a real Slurm: one submit for many attempts, each an element with an end of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

_SCRIPT = """
from orchestrator.jobs import product, survey

command = 'echo "{\\\\"metrics\\\\": {\\\\"task\\\\": $SLURM_ARRAY_TASK_ID}}" > "$SURVEY_RESULT"'
with survey("runs", "grid", site="site.yaml") as s:
    jobs = s.prepare("grid", command=command, params=product(a=[1, 2], b=[1, 2, 3]), metrics=["task"])
    s.submit(*jobs)
    for job in s.sync(*jobs):
        print(job.id, job.outcome.verdict, job.outcome.job_id, job.outcome.metrics["task"])
"""


def test_a_plain_survey_is_one_array_job_whose_index_leads_to_the_attempt(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=1)
    (place.root / "script.py").write_text(_SCRIPT)
    said = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place.root,
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    attempts = _ledger(place.root / "runs/grid")
    (array,) = {attempt["job_id"].partition("_")[0] for attempt in attempts}
    assert [attempt["job_index"] for attempt in attempts] == list(range(6))
    names = [f"grid_{a}_{b}" for a in range(2) for b in range(3)]
    assert said.stdout.splitlines() == [
        f"{name} succeeded {array}_{index} {float(index)}" for index, name in enumerate(names)
    ]
    listed = cluster.output("squeue", "-h", "-t", "all", "-r", "-j", array, "-o", "%i|%j").splitlines()
    (name,) = {attempt["job_name"] for attempt in attempts}
    assert sorted(listed) == [f"{array}_{index}|{name}" for index in range(6)]


def test_an_element_that_is_cancelled_by_hand_ends_alone_and_the_others_succeed(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=5, parallel=5, seconds="6")
    driver = place.driver()
    place.wait_for_executions(5)
    array = place.attempts()[0]["job_id"].partition("_")[0]
    assert [attempt["job_id"] for attempt in place.attempts()] == [f"{array}_{index}" for index in range(5)]
    cluster.output("scancel", f"{array}_2")
    assert driver.wait(timeout=200) == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == [
        "succeeded",
        "succeeded",
        "cancelled",
        "succeeded",
        "succeeded",
    ]
    ran = {execution.tag: execution.job_id for execution in place.executions()}
    assert ran == {attempt["tag"]: attempt["job_id"] for attempt in place.attempts()}


def test_elements_whose_driver_was_killed_are_collected_by_the_next_one(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=4, parallel=4, seconds="2")
    driver = place.driver()
    place.wait_for_executions(1)
    driver.kill()
    driver.wait()
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(4)


def _ledger(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((root / "ledger").rglob("attempt-*.json"))]
