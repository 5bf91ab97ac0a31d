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


def test_results_of_jobs_that_slurm_has_forgotten_are_collected_by_the_next_driver(
    forgetful_cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(forgetful_cluster, trials=3, parallel=3, seconds="0.5")
    driver = place.driver()
    place.wait_for_executions(3)
    driver.kill()
    driver.wait()
    _wait_until_forgotten(forgetful_cluster)
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(3)


def test_a_job_that_left_nothing_and_is_forgotten_is_lost_and_run_again(
    forgetful_cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(forgetful_cluster, trials=1, seconds="300,0.2")
    driver = place.driver()
    (first,) = place.wait_for_executions(1)
    driver.kill()
    driver.wait()
    forgetful_cluster.kill_programs(first.job_id)
    _wait_until_forgotten(forgetful_cluster)
    assert place.run() == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["lost", "succeeded"]
    assert len(place.executions()) == 2


def _wait_until_forgotten(cluster: Cluster) -> None:
    wait_for(
        "the end of the jobs' records", lambda: not cluster.output("squeue", "-h", "-t", "all", "-o", "%A").split()
    )
