"""The core by itself: who runs when, what is refused, what is forgotten; time is a number here."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import machine

from orchestrator.simulate.batchjob import BatchJob, Fate, Partition, Phase, Refusal, Refused, Rules, Wait, Wish
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.queue_model import lognormal_wait


class Bench:
    """A host that notes what it is told, and a cluster at time 0."""

    def __init__(self, **rules: Any) -> None:
        self.signals: list[tuple[int, int]] = []
        self.started: list[int] = []
        self.lost: list[int] = []
        made = Rules(**{"nodes": machine(2), **rules})
        self.cluster = Cluster(made, self, now=0.0)

    def start(self, job: BatchJob) -> None:
        self.started.append(job.number)

    def signal(self, job: BatchJob, number: int) -> None:
        self.signals.append((job.number, number))
        if number == 9:
            self.cluster.ended(job, signal=9)

    def lose(self, job: BatchJob) -> None:
        self.lost.append(job.number)

    def submit(self, **wish: Any) -> BatchJob:
        job = self.cluster.submit(Wish(name="a", **wish))
        self.cluster.advance(self.cluster.now)
        return job


def test_jobs_start_in_the_order_of_their_submits() -> None:
    bench = Bench(nodes=machine(1, gpus=2))
    jobs = [bench.submit(gpus=1) for _ in range(4)]
    assert bench.started == [1, 2]
    assert [job.wait for job in jobs[2:]] == [Wait.RESOURCES, Wait.PRIORITY]
    bench.cluster.ended(jobs[1])
    bench.cluster.advance(5.0)
    assert bench.started == [1, 2, 3]
    assert jobs[2].devices == (1,)


def test_two_jobs_on_a_node_have_different_gpus() -> None:
    bench = Bench(nodes=machine(1, gpus=4))
    first, second = bench.submit(gpus=2), bench.submit(gpus=2)
    assert set(first.devices) & set(second.devices) == set()
    assert len(first.devices + second.devices) == 4


def test_a_short_job_goes_past_a_large_one_and_a_long_one_does_not() -> None:
    bench = Bench(nodes=machine(2, gpus=4))
    bench.submit(gpus=4, walltime=1000.0)
    large = bench.submit(nodes=2, gpus=4, walltime=1000.0)
    long = bench.submit(gpus=1, walltime=2000.0)
    short = bench.submit(gpus=1, walltime=900.0)
    assert [job.phase for job in (large, long, short)] == [Phase.QUEUED, Phase.QUEUED, Phase.RUNNING]


def test_a_large_job_is_not_starved_by_small_ones() -> None:
    bench = Bench(nodes=machine(2, gpus=1))
    running = [bench.submit(gpus=1, walltime=100.0) for _ in range(2)]
    large = bench.submit(nodes=2, gpus=1, walltime=100.0)
    for _ in range(5):
        bench.submit(gpus=1, walltime=150.0)
    for job in running:
        bench.cluster.ended(job)
        bench.cluster.advance(bench.cluster.now + 10.0)
    assert large.phase is Phase.RUNNING


def test_a_whole_node_is_given_whole() -> None:
    bench = Bench(nodes=machine(2, gpus=4))
    bench.submit(gpus=1)
    whole = bench.submit(whole=True)
    assert len(whole.devices) == 4
    waiting = bench.submit(whole=True)
    assert waiting.phase is Phase.QUEUED


def test_at_the_end_of_the_walltime_comes_a_signal_and_then_the_kill() -> None:
    bench = Bench(limit_signal=15, kill_wait=30.0, limit_late=5.0)
    job = bench.submit(walltime=100.0)
    bench.cluster.advance(104.0)
    assert bench.signals == []
    bench.cluster.advance(105.0)
    assert bench.signals == [(1, 15)]
    assert job.phase is Phase.ENDING
    bench.cluster.advance(200.0)
    assert bench.signals == [(1, 15), (1, 9)]
    assert (job.phase, job.fate, job.ended) == (Phase.ENDED, Fate.LIMIT, 135.0)


def test_a_job_that_ends_in_time_is_never_killed() -> None:
    bench = Bench()
    job = bench.submit(walltime=100.0)
    bench.cluster.advance(50.0)
    bench.cluster.ended(job, exit_code=3)
    bench.cluster.advance(5000.0)
    assert bench.signals == []
    assert (job.fate, job.exit_code, job.ended) == (Fate.EXITED, 3, 50.0)


def test_what_is_late_happens_at_its_own_time() -> None:
    bench = Bench(nodes=machine(1, gpus=1), queue_wait=lambda job: 10.0 * job.number)
    jobs = [bench.submit(gpus=1, walltime=50.0) for _ in range(2)]
    bench.cluster.advance(10_000.0)
    assert [job.started for job in jobs] == [10.0, 10.0 + 50.0 + 30.0]


@pytest.mark.parametrize(
    ("wish", "rules", "why"),
    [
        ({"queue": "nosuch"}, {}, Refused.NO_QUEUE),
        ({"queue": "off"}, {}, Refused.QUEUE_DISABLED),
        ({"walltime": 100_000.0}, {}, Refused.WALLTIME),
        ({"gpus": 9}, {}, Refused.IMPOSSIBLE),
        ({"nodes": 9}, {}, Refused.IMPOSSIBLE),
        ({}, {"group_required": True}, Refused.NO_GROUP),
        ({"group": "other"}, {"groups": ("mine",)}, Refused.NO_GROUP),
        ({"array": (0, 1)}, {"array_size": 0}, Refused.NO_ARRAYS),
        ({"array": tuple(range(20))}, {"array_size": 10}, Refused.ARRAY_SIZE),
        ({"array": (0, 1, 2, 3)}, {}, Refused.USER_LIMIT),
    ],
)
def test_what_a_site_does_not_take_is_refused_with_the_reason(
    wish: dict[str, object], rules: dict[str, object], why: Refused
) -> None:
    queues = (
        Partition(name="main", max_walltime=86400.0, default_walltime=3600.0, queued=3),
        Partition(name="off", enabled=False),
    )
    bench = Bench(partitions=queues, **rules)
    with pytest.raises(Refusal) as refusal:
        bench.submit(**wish)
    assert refusal.value.why is why
    assert list(bench.cluster.live()) == []


def test_a_queue_has_its_own_nodes() -> None:
    queues = (Partition(name="main", nodes=("n1",)), Partition(name="debug", nodes=("n2",)))
    bench = Bench(partitions=queues)
    assert bench.submit(gpus=4).nodes == ("n1",)
    assert bench.submit(gpus=4).phase is Phase.QUEUED
    assert bench.submit(queue="debug", gpus=4).nodes == ("n2",)


def test_a_preempted_job_comes_back_if_it_may() -> None:
    bench = Bench(requeue_wait=60.0)
    stays, goes = bench.submit(rerun=True), bench.submit(rerun=False)
    for job in (stays, goes):
        bench.cluster.preempt(job)
        bench.cluster.ended(job, signal=15)
    bench.cluster.advance(100.0)
    assert (stays.phase, stays.restarts) == (Phase.RUNNING, 1)
    assert (goes.phase, goes.fate) == (Phase.ENDED, Fate.PREEMPTED)
    assert [record.fate for record in bench.cluster.past([stays.number])] == [Fate.PREEMPTED]


def test_the_end_of_an_earlier_start_does_not_end_the_later_one() -> None:
    bench = Bench(requeue_wait=0.0)
    job = bench.submit(walltime=100.0)
    bench.cluster.advance(90.0)
    bench.cluster.fail_node(job.nodes[0])
    bench.cluster.advance(95.0)
    assert bench.lost == [1]
    assert job.phase is Phase.RUNNING
    bench.cluster.advance(150.0)  # the first start's walltime would be over
    assert job.phase is Phase.RUNNING


def test_a_node_that_is_down_takes_no_jobs_until_it_is_back() -> None:
    bench = Bench(nodes=machine(1))
    bench.cluster.fail_node("n1", back_after=100.0)
    job = bench.submit()
    bench.cluster.advance(99.0)
    assert bench.started == []
    bench.cluster.advance(101.0)
    assert bench.started == [job.number]


def test_finished_jobs_and_old_records_are_forgotten() -> None:
    bench = Bench(keep_finished=300.0, history_kept=1000.0)
    for _ in range(50):
        bench.cluster.ended(bench.submit())
    bench.cluster.advance(301.0)
    assert list(bench.cluster.live()) == []
    assert len(list(bench.cluster.past())) == 50
    bench.cluster.advance(1001.0)
    assert list(bench.cluster.past()) == []
    assert bench.cluster.named("a") == []


def test_a_waiting_time_belongs_to_the_job_and_not_to_the_order_of_questions() -> None:
    wait = lognormal_wait(600.0, 1.0, seed=3)
    bench = Bench()
    first, second = bench.submit(), bench.submit()
    assert (wait(first), wait(second)) == (wait(first), wait(second))
    assert wait(first) != wait(second)
    waits = sorted(wait(bench.submit()) for _ in range(400))
    assert 450.0 < waits[200] < 800.0
