"""A real Slurm that keeps no accounting and forgets a job five seconds after its end."""

from __future__ import annotations

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace, wait_for

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system


def test_a_study_runs_to_its_end_without_accounting(forgetful_cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(forgetful_cluster, trials=6, parallel=3, seconds="0.5")
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(6)


def test_of_jobs_that_slurm_has_forgotten_results_are_collected_and_one_that_left_nothing_is_run_again(
    forgetful_cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        forgetful_cluster, trials=3, parallel=3, seconds="0.5", seconds_of={1: "300,0.2"}, batch={"array": False}
    )
    driver = place.driver()
    executions = place.wait_for_executions(3)
    driver.kill()
    driver.wait()
    (lost,) = (execution.job_id for execution in executions if execution.trial == "1")
    forgetful_cluster.kill_programs(lost)
    _wait_until_forgotten(forgetful_cluster)
    assert place.run() == 0, place.said
    assert place.by_trial() == {"0": 1, "1": 2, "2": 1}
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["succeeded", "lost", "succeeded", "succeeded"]
    assert [trial.state.name for trial in place.trials()] == ["COMPLETE"] * 3


def _wait_until_forgotten(cluster: Cluster) -> None:
    wait_for(
        "the end of the jobs' records", lambda: not cluster.output("squeue", "-h", "-t", "all", "-o", "%A").split()
    )
