"""A bad week in three minutes: drivers killed, the controller restarted in two ways, a node lost; nothing else is."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from chaos_fresh import opened_in_a_fresh_process
from chaos_invariants import INVARIANTS, Evidence, Ran, metrics_of
from slurm_cluster import Cluster
from slurm_place import MakePlace, Place, wait_for

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

TRIALS, DEATHS = 40, 10
OTHERS = "t00001-colleague"


@contextmanager
def job_of_others(cluster: Cluster) -> Iterator[str]:
    """A job that no driver has made, under a name like those that drivers make."""
    words = cluster.output("sbatch", "--parsable", "-n1", "-J", OTHERS, "--wrap", "sleep 1200")
    try:
        yield words
    finally:
        cluster.run("scancel", words)


@contextmanager
def operator(cluster: Cluster) -> Iterator[None]:
    """Somebody who looks after the cluster, and gives back the nodes that a controller drains as it comes back."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1.0):
            with suppress(AssertionError, subprocess.TimeoutExpired):  # the controller is away
                cluster.give_back_nodes()

    person = threading.Thread(target=look, daemon=True)
    person.start()
    try:
        yield
    finally:
        ended.set()
        person.join()


def disturb(cluster: Cluster, death: int) -> None:
    """What happens beside the driver's death."""
    match death:
        case 2:
            cluster.stop("slurmctld")
            time.sleep(1)
            cluster.start("slurmctld")
        case 5:
            cluster.kill("slurmctld")
            cluster.start("slurmctld")
        case 7:
            cluster.lose_node("n2")
            cluster.start("n2")


def evidence(place: Place, cluster: Cluster, others: str) -> Evidence:
    results = {
        json.loads(path.read_bytes())["tag"]: metrics
        for path in (place.root / "work").rglob("job.json")
        if (result := path.with_name("result.json")).exists()
        and (metrics := metrics_of(result.read_bytes())) is not None
    }
    left = [name for name in cluster.output("squeue", "-h", "-o", "%j").split() if name != OTHERS]
    harmed = [] if others in cluster.output("squeue", "-h", "-o", "%A").split() else [OTHERS]
    return Evidence(
        root=place.root / "runs" / "toy",
        name="toy",
        objective="loss",
        trials=TRIALS,
        executions=[Ran(each.tag, each.job_id, each.end is not None) for each in place.executions()],
        results=results,
        queue=left,
        harmed=harmed,
    )


def test_drivers_killed_ten_times_a_controller_twice_and_a_node_once_leave_the_budget_exact(
    cluster: Cluster, make_place: MakePlace
) -> None:
    # So few at a time that ten drivers cannot see the end of it, however slowly they start.
    place = make_place(cluster, trials=TRIALS, parallel=3, seconds="2", failures={"most": 1.0})
    moments = random.Random(7)
    with operator(cluster), job_of_others(cluster) as others:
        for death in range(DEATHS):
            driver = place.driver()
            place.wait_for_executions(len(place.executions()) + moments.randint(1, 2))
            time.sleep(moments.uniform(0.0, 1.0))
            disturb(cluster, death)
            driver.kill()
            driver.wait()
        cluster.wait_until_ready()
        assert place.run() == 0, place.said
        wait_for("the queue to drain", lambda: cluster.output("squeue", "-h", "-o", "%j").split() == [OTHERS])
        found = evidence(place, cluster, others)
    trials = found.told()
    wrong = [words for number in range(1, 8) for words in INVARIANTS[f"INV{number}"](found, trials)]
    assert wrong == [], place.said
    assert len(trials) == TRIALS
    assert {trial.state for trial in trials} <= {"complete", "failed"}
    once = opened_in_a_fresh_process([found.root], name="toy")
    assert once == opened_in_a_fresh_process([found.root], name="toy")
