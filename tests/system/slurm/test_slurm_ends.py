"""How jobs end on a real Slurm, and what the study makes of it."""

from __future__ import annotations

import time

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace, wait_for

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

_LONG = "300"


def test_a_trial_over_its_walltime_is_stopped_by_its_own_agent(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=1, seconds=_LONG, resources={"walltime": "8s"})
    assert place.run() == 3, place.said
    (outcome,) = place.outcomes()
    assert outcome["verdict"] == "timeout"
    assert "walltime" in outcome["reason"]
    (execution,) = place.executions()
    assert execution.end is None


def test_a_job_cancelled_by_hand_is_cancelled_with_its_reason_and_not_run_again(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=2, parallel=2, seconds=_LONG, failures={"most": 1.0})
    driver = place.driver()
    first, second = place.wait_for_executions(2)
    cluster.output("scancel", first.job_id, second.job_id)
    assert driver.wait(timeout=200) == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["cancelled", "cancelled"]
    assert all("SIGTERM" in outcome["reason"] for outcome in place.outcomes())
    assert len(place.executions()) == 2


def test_a_job_cancelled_before_it_starts_never_runs(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=1, failures={"most": 1.0}, batch={"directives": ["--begin=now+1hour"]})
    driver = place.driver()
    wait_for("the job", lambda: cluster.output("squeue", "-h", "-t", "PENDING"))
    cluster.output("scancel", "--user=root")
    assert driver.wait(timeout=200) == 0, place.said
    (outcome,) = place.outcomes()
    assert outcome["verdict"] == "cancelled"
    assert "CANCELLED" in outcome["reason"]
    assert not place.executions()


def test_a_trial_whose_node_fails_is_run_again_and_one_over_slurms_limit_is_a_timeout(
    cluster: Cluster, make_place: MakePlace
) -> None:
    # Slurm takes half a minute to notice either, so they share it, each on a node of its own.
    place = make_place(
        cluster,
        trials=2,
        parallel=2,
        seconds=f"{_LONG},0.2",
        resources={"gpus": 4, "walltime": "30m"},
        failures={"most": 1.0},
    )
    driver = place.driver()
    lost, late = sorted(place.wait_for_executions(2), key=lambda execution: execution.trial)
    assert lost.node != late.node
    cluster.lose_node(lost.node)
    try:
        cluster.output("scontrol", "update", f"jobid={late.job_id}", "EndTime=now+1")
        assert driver.wait(timeout=200) == 0, place.said
    finally:
        cluster.start(lost.node)
    first, again, timeout = place.outcomes()
    assert [first["verdict"], again["verdict"]] == ["node-failure", "succeeded"]
    assert timeout["verdict"] == "timeout", timeout["reason"]
    assert place.by_trial() == {"0": 2, "1": 1}
    assert again["job_id"] != lost.job_id


def test_a_job_that_slurm_starts_again_under_the_same_id_goes_on_as_the_same_attempt(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=1, seconds=f"{_LONG},0.2", batch={"directives": ["--requeue"]})
    driver = place.driver()
    (first,) = place.wait_for_executions(1)
    cluster.output("scontrol", "requeue", first.job_id)
    # Slurm holds a requeued job back for two minutes. It must not begin in the second in which it was ended:
    # slurmd takes its new credential for the revoked one, and the job fails.
    wait_for("the requeue", lambda: cluster.output("squeue", "-h", "-j", first.job_id, "-o", "%T") == "PENDING")
    cluster.output("scontrol", "update", f"jobid={first.job_id}", "StartTime=now+2")
    assert driver.wait(timeout=200) == 0, place.said
    first, again = place.executions()
    assert (again.job_id, again.tag, again.restart) == (first.job_id, first.tag, 1)
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["succeeded"]


def test_a_job_that_slurm_fails_to_start_again_is_run_again_as_a_new_one(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=1, seconds=f"{_LONG},0.2", batch={"directives": ["--requeue"]})
    driver = place.driver()
    (first,) = place.wait_for_executions(1)
    # A start in the second of the end is refused by slurmd; early in a second there is time for it.
    wait_for("the begin of a second", lambda: time.time() % 1 < 0.1)
    cluster.output("scontrol", "requeue", first.job_id)
    wait_for("the requeue", lambda: cluster.output("squeue", "-h", "-j", first.job_id, "-o", "%T") == "PENDING")
    cluster.output("scontrol", "update", f"jobid={first.job_id}", "StartTime=now")
    assert driver.wait(timeout=200) == 0, place.said
    *failed, succeeded = place.outcomes()
    assert succeeded["verdict"] == "succeeded"
    # On a machine so slow that the second was over, the job was started again after all.
    assert [(outcome["verdict"], outcome["job_id"]) for outcome in failed] in ([], [("lost", first.job_id)])
    assert len(place.executions()) == 2
