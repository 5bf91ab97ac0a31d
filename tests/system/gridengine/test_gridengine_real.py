"""Whole studies on a real Grid Engine, through the command line; how jobs end there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from gridengine_cluster import CannotProvide, GridEngineCluster
from gridengine_place import Place, wait_for

pytestmark = [pytest.mark.system, pytest.mark.slow]


class MakePlace(Protocol):
    """`Place` in the test's own folder; its drivers end with the test."""

    def __call__(self, *, trials: int, **keys: Any) -> Place: ...


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[GridEngineCluster]:
    cluster = GridEngineCluster()
    try:
        cluster.up()
        yield cluster
    except CannotProvide as error:
        pytest.fail(f"no Grid Engine to test with: {error}", pytrace=False)
    finally:
        cluster.down()


@pytest.fixture
def cluster(own_cluster: GridEngineCluster) -> GridEngineCluster:
    """The cluster without a job in it."""
    own_cluster.empty()
    return own_cluster


@pytest.fixture
def make_place(cluster: GridEngineCluster, tmp_path: Path) -> Iterator[MakePlace]:
    places: list[Place] = []

    def make(*, trials: int, **keys: Any) -> Place:
        places.append(Place(tmp_path, cluster, trials=trials, **keys))
        return places[-1]

    yield make
    for place in places:
        place.close()


def test_an_asynchronous_study_runs_each_trial_once(make_place: MakePlace) -> None:
    place = make_place(
        trials=6, parallel=3, seconds=0.5, resources={"cpus": 2, "walltime": "5m"}, batch={"array": False}
    )
    assert place.run() == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["succeeded"] * 6
    executions = place.executions()
    assert sorted(execution["SURVEY_TRIAL"] for execution in executions) == ["0", "1", "2", "3", "4", "5"]
    assert len({execution["JOB_ID"] for execution in executions}) == 6


def test_a_random_study_goes_as_array_jobs_whose_elements_count_from_one(make_place: MakePlace) -> None:
    place = make_place(trials=4, parallel=4, batch={"array": True})
    assert place.run() == 0, place.said
    assert [outcome["verdict"] for outcome in place.outcomes()] == ["succeeded"] * 4
    executions = place.executions()
    assert len({execution["JOB_ID"] for execution in executions}) == 1
    assert sorted(execution["SGE_TASK_ID"] for execution in executions) == ["1", "2", "3", "4"]


def test_a_running_job_that_is_deleted_by_hand_is_cancelled_and_not_run_again(
    cluster: GridEngineCluster, make_place: MakePlace
) -> None:
    place = make_place(trials=1, seconds=300, failures={"most": 1.0})
    driver = place.driver()
    (execution,) = place.wait_for_executions(1)
    cluster.output("qdel", execution["JOB_ID"])
    assert driver.wait(timeout=120) == 0, place.said
    (outcome,) = place.outcomes()
    assert outcome["verdict"] == "cancelled", outcome
    assert "qdel" in outcome["reason"]


def test_a_job_that_is_deleted_while_it_waits_is_not_submitted_again(
    cluster: GridEngineCluster, make_place: MakePlace
) -> None:
    place = make_place(trials=1, failures={"most": 1.0}, batch={"directives": ["-h"]})
    driver = place.driver()
    wait_for("the job", lambda: "hqw" in cluster.output("qstat"))
    cluster.output("qdel", "-u", "root")
    assert driver.wait(timeout=120) == 0, place.said
    (outcome,) = place.outcomes()
    assert "deleted before it began" in outcome["reason"]
    assert not place.executions()


def test_a_job_over_the_scheduler_s_walltime_timed_out(make_place: MakePlace) -> None:
    place = make_place(trials=1, seconds=300, failures={"most": 1.0}, batch={"directives": ["-l h_rt=0:0:6"]})
    assert place.run() == 0, place.said
    (outcome,) = place.outcomes()
    assert outcome["verdict"] == "timeout", outcome
    assert "37" in outcome["reason"]


def test_a_queue_that_does_not_exist_pauses_the_study_in_grid_engine_s_words(make_place: MakePlace) -> None:
    place = make_place(trials=2, batch={"queue": "nowhere.q"})
    assert place.run() == 4, place.said
    assert 'unknown queue "nowhere.q"' in place.said
    assert not place.executions()
