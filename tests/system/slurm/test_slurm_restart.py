"""A real slurmctld that goes away in mid-study and comes back."""

from __future__ import annotations

import time

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system


def test_a_clean_restart_of_slurmctld_costs_no_trial_and_no_second_execution(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=8, parallel=3, seconds="1")
    driver = place.driver()
    place.wait_for_executions(3)
    cluster.stop("slurmctld")
    # The trials that run now end while nobody can be asked; the next ones cannot be submitted.
    time.sleep(3)
    cluster.start("slurmctld")
    assert driver.wait(timeout=250) == 0, place.said
    place.assert_each_trial_ran_once(8)


def test_a_slurmctld_killed_in_mid_study_costs_no_trial_and_no_second_execution(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=6, parallel=3, seconds="1", seconds_of=dict.fromkeys(range(3), "9"))
    driver = place.driver()
    place.wait_for_executions(3)
    cluster.wait_until_saved(time.time())
    cluster.kill("slurmctld")
    cluster.start("slurmctld")
    assert driver.wait(timeout=250) == 0, place.said
    place.assert_each_trial_ran_once(6)


def test_jobs_that_end_while_driver_and_slurmctld_are_both_away_are_collected(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=3, parallel=3, seconds="2")
    driver = place.driver()
    place.wait_for_executions(3)
    driver.kill()
    cluster.stop("slurmctld")
    try:
        assert place.run() == 0, place.said
    finally:
        cluster.start("slurmctld")
    place.assert_each_trial_ran_once(3)
