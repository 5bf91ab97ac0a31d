"""Whole studies on a real Slurm, through the command line."""

from __future__ import annotations

import itertools

import pytest
from slurm_cluster import Cluster
from slurm_place import MakePlace

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system


def test_a_study_runs_to_its_end_and_no_two_trials_at_a_time_share_a_gpu(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(
        cluster,
        trials=10,
        parallel=6,
        seconds="1.5",
        resources={"gpus": 1, "walltime": "10m"},
    )
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(10)
    executions = place.executions()
    assert all(len(execution.gpus) == 1 for execution in executions)
    together = 0
    for one, other in itertools.combinations(executions, 2):
        assert one.end is not None
        if one.node == other.node and one.begin < other.begin < one.end:
            together += 1
            assert one.gpus != other.gpus
    assert together
    outcomes = {trial.user_attrs["outcome"]["job_id"]: trial for trial in place.trials()}
    assert set(outcomes) == {execution.job_id for execution in executions}


def test_a_trial_of_several_gpus_sees_as_many(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=2, parallel=2, seconds="0.5", resources={"gpus": 3, "walltime": "10m"})
    assert place.run() == 0, place.said
    assert [len(set(execution.gpus)) for execution in place.executions()] == [3, 3]


def test_a_refused_partition_pauses_the_study_in_slurms_words_until_it_is_mended(
    cluster: Cluster, make_place: MakePlace
) -> None:
    place = make_place(cluster, trials=2, parallel=2, batch={"queue": "nowhere"})
    assert place.run() == 4, place.said
    assert "invalid partition specified: nowhere" in place.said
    assert not place.executions()
    place.change(batch={"queue": "main"})
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(2)


@pytest.mark.parametrize(
    ("resources", "batch", "words"),
    [
        ({"gpus": 5, "walltime": "10m"}, {}, "Requested node configuration is not available"),
        ({"walltime": "10m"}, {"directives": ["--constraint=nosuch"]}, "Invalid feature specification"),
        ({"walltime": "10m"}, {"queue": "short"}, "Requested time limit is invalid"),
    ],
)
def test_a_request_that_can_never_be_met_is_refused_in_slurms_words_and_not_left_to_wait(
    cluster: Cluster, make_place: MakePlace, resources: dict[str, object], batch: dict[str, object], words: str
) -> None:
    place = make_place(cluster, trials=1, resources=resources, batch=batch)
    assert place.run() == 4, place.said
    assert words in place.said
    assert not cluster.output("squeue", "-h")


def test_a_driver_killed_again_and_again_runs_each_trial_once(cluster: Cluster, make_place: MakePlace) -> None:
    place = make_place(cluster, trials=8, parallel=3, seconds="0.5")
    for kill in range(3):
        driver = place.driver()
        place.wait_for_executions(2 * kill + 1)
        driver.kill()
        driver.wait()
    assert place.run() == 0, place.said
    place.assert_each_trial_ran_once(8)
