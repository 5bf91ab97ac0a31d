"""Several attempts side by side in one job of a real Slurm, on nodes that are handed out whole."""

from __future__ import annotations

from collections import Counter

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace, wait_for

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

_NODES = {"queues": [{"name": "main", "unit": "node", "gpus_per_unit": 4, "cores_per_unit": 8}]}
_ONE_GPU = {"gpus": 1, "walltime": "10m"}


def test_four_trials_share_a_node_with_a_gpu_a_claim_a_log_and_a_verdict_of_their_own(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        cluster,
        trials=4,
        parallel=4,
        seconds="2",
        failing=[2],
        site=_NODES,
        resources=_ONE_GPU,
        batch={"pack": "auto", "array": False},
    )
    assert place.run() == 0, place.said
    executions = place.executions()
    (job_id,) = {execution.job_id for execution in executions}
    assert len({execution.node for execution in executions}) == 1
    assert sorted(execution.gpus for execution in executions) == [("0",), ("1",), ("2",), ("3",)]
    ends = [execution.end for execution in executions if execution.end is not None]
    assert max(execution.begin for execution in executions) < min(ends)
    verdicts = ["succeeded", "succeeded", "failed", "succeeded"]
    assert [outcome["verdict"] for outcome in place.outcomes()] == verdicts
    for attempt in place.attempts():
        assert (attempt["job_id"], attempt["packed"]) == (job_id, 4)
        folder = place.folder(attempt)
        assert f'"tag": "{attempt["tag"]}"' in (folder / "claim").read_text()
        assert (folder / "stdout").read_text() == f"this is {attempt['tag']}\n"


def test_a_job_that_is_filled_in_part_goes_when_the_stated_wait_is_over(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        cluster,
        trials=5,
        parallel=5,
        seconds="6",
        site=_NODES,
        resources=_ONE_GPU,
        batch={"pack": "auto", "pack_wait": "1s", "array": False},
    )
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(5)
    assert sorted(Counter(execution.job_id for execution in place.executions()).values()) == [1, 4]
    assert "waits 1 s at most for attempts to share its job with (4 fill it)" in place.said
    # The last one had nobody to wait for: it began while the other four ran.
    *_, last = place.executions()
    assert all(execution.end is not None and last.begin < execution.end for execution in place.executions())


def test_a_packed_job_that_is_cancelled_by_hand_ends_all_its_trials_with_that_reason(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        cluster,
        trials=2,
        parallel=2,
        seconds="300",
        site=_NODES,
        resources={"gpus": 2, "walltime": "10m"},
        batch={"pack": "auto"},
        failures={"most": 1.0},
    )
    driver = place.driver()
    first, second = place.wait_for_executions(2)
    assert first.job_id == second.job_id
    assert sorted([*first.gpus, *second.gpus]) == ["0", "1", "2", "3"]
    cluster.output("scancel", first.job_id)
    assert driver.wait(timeout=200) == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["cancelled", "cancelled"]
    wait_for("the job's end", lambda: not cluster.output("squeue", "-h", "-t", "R"))
