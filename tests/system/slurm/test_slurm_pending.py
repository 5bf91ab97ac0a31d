"""Jobs that a real Slurm would keep pending for ever: the user is told, in Slurm's word, while the driver waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace, wait_for

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

_SHORT = {"walltime": "2m"}


@pytest.fixture
def short_down(cluster: Cluster) -> Iterator[Cluster]:
    """The partition ``short`` accepts jobs and starts none; its node has the feature ``fast``."""
    cluster.output("scontrol", "update", "partitionname=short", "State=DOWN")
    _set_features(cluster, "fast")
    yield cluster
    cluster.output("scontrol", "update", "partitionname=short", "State=UP", "MaxTime=2")
    _set_features(cluster, "")


def test_a_held_job_is_told_and_goes_on_once_it_is_released(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=1, batch={"directives": ["--hold"]})
    driver = place.driver()
    wait_for("the word", lambda: "waits for something that may never come: PENDING JobHeldUser" in place.said)
    cluster.output("scontrol", "release", _only_job(cluster))
    assert driver.wait(timeout=200) == 0, place.said
    place.assert_each_trial_ran_once(1)


def test_a_walltime_over_a_limit_that_was_lowered_is_told_and_goes_on_once_it_is_raised(
    short_down: Cluster, make_place: MakePlace
) -> None:
    place = make_place(short_down, trials=1, resources=_SHORT, batch={"queue": "short"})
    driver = place.driver()
    wait_for("the job", lambda: short_down.output("squeue", "-h"))
    short_down.output("scontrol", "update", "partitionname=short", "State=UP", "MaxTime=1")
    wait_for("the word", lambda: "may never come: PENDING PartitionTimeLimit" in place.said)
    short_down.output("scontrol", "update", "partitionname=short", "MaxTime=2")
    assert driver.wait(timeout=200) == 0, place.said
    place.assert_each_trial_ran_once(1)


def test_a_constraint_that_no_node_meets_any_more_is_told_and_goes_on_once_it_is_met(
    short_down: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        short_down, trials=1, resources=_SHORT, batch={"queue": "short", "directives": ["--constraint=fast"]}
    )
    driver = place.driver()
    wait_for("the job", lambda: short_down.output("squeue", "-h"))
    _set_features(short_down, "")
    short_down.output("scontrol", "update", "partitionname=short", "State=UP")
    wait_for("the word", lambda: "may never come: PENDING BadConstraints" in place.said)
    _set_features(short_down, "fast")
    short_down.output("scontrol", "release", _only_job(short_down))
    assert driver.wait(timeout=200) == 0, place.said
    place.assert_each_trial_ran_once(1)


def _set_features(cluster: Cluster, features: str) -> None:
    cluster.output("scontrol", "update", "nodename=n1", f"AvailableFeatures={features}", f"ActiveFeatures={features}")


def _only_job(cluster: Cluster) -> str:
    (job_id,) = cluster.output("squeue", "-h", "-o", "%i").split()
    return job_id
