"""The adaptors ask the emulated clusters, and understand what is printed: virtual time, scripts without an agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from worlds import EVERY, World, machine, play

from orchestrator.model import Answer, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Refused
from orchestrator.simulate.batchjob import Partition
from orchestrator.simulate.clock import VirtualClock

every = pytest.mark.parametrize("kind", EVERY)
# What is known of a job after its end: by history, by the live list, or not at all.
TELLS_THE_END = ["slurm", "slurm-noacct", "pbs", "pbs-json", "pjm", "pjm-stock", "gridengine", "gridengine-altair"]
# A bare pjstat says that a job has ended, and not how.
TELLS_HOW = [kind for kind in TELLS_THE_END if kind != "pjm-stock"]
FORGETS_AT_ONCE = ["pbs-nohistory", "pbs-wrapped", "pjm-wrapped"]
# Directives for one GPU and ten seconds of walltime.
SHORT = {
    "slurm": "#SBATCH --time=00:00:10 --gpus-per-node=1",
    "pbs": "#PBS -l select=1:ngpus=1 -l walltime=00:00:10",
    "pjm": "#PJM -L gpu=1,elapse=00:00:10",
    "gridengine": "#$ -l h_rt=00:00:10 -l gpu=1",
}


async def last_word(world: World, job_id: str) -> JobStatus:
    """What a watcher would know: the live answer, or history's where that is absent."""
    (status,) = await world.asker.query(job_id)
    if status.answer is Answer.ABSENT:
        past = await world.asker.history(job_id)
        if past is not None and past[0].answer is not Answer.ABSENT:
            return past[0]
    return status


@every
def test_a_job_is_queued_then_runs_then_is_gone(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, start_delay=0.0, queue_wait=lambda _job: 30.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 60\n")
        (queued,) = await world.asker.query(job_id)
        assert (queued.answer, queued.state) == (Answer.ALIVE, JobState.QUEUED)
        assert queued.job_id == job_id
        assert "t00001-aaaaaaaa".startswith(queued.name)
        assert queued.name
        await asyncio.sleep(45.0)
        (running,) = await world.asker.query(job_id)
        assert (running.answer, running.state) == (Answer.ALIVE, JobState.RUNNING)
        await asyncio.sleep(3600.0)
        gone = await last_word(world, job_id)
        assert gone.answer in {Answer.ENDED, Answer.ABSENT}

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "slurm-noacct", "pbs", "pbs-json", "gridengine"])
def test_times_are_read_as_utc_whatever_the_site_s_zone_is(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, zone=9.0, queue_wait=lambda _job: 30.0)
        begin = world.clock.now()
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 60\n")
        (queued,) = await world.asker.query(job_id)
        assert queued.submitted == begin
        await asyncio.sleep(40.0)
        (running,) = await world.asker.query(job_id)
        assert running.started == begin + 30.0

    play(body)


@pytest.mark.parametrize("kind", TELLS_HOW)
@pytest.mark.parametrize(
    ("script", "verdict", "exit_code"),
    [("sleep 5\n", Verdict.SUCCEEDED, 0), ("sleep 5\nexit 3\n", Verdict.FAILED, 3)],
)
def test_the_end_of_a_job_is_told_with_its_exit_code(
    tmp_path: Path, kind: str, script: str, verdict: Verdict, exit_code: int
) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", script)
        await asyncio.sleep(30.0)
        status = await last_word(world, job_id)
        assert status.answer is Answer.ENDED
        assert status.end is not None
        assert status.end.verdict is verdict
        if status.end.exit_code is not None:  # Slurm's live list tells of a failure without its code
            assert status.end.exit_code == exit_code

    play(body)


@pytest.mark.parametrize("kind", TELLS_HOW)
def test_the_end_of_the_walltime_is_a_timeout(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        directives = SHORT[world.site.scheduler]
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 600\n", directives=directives)
        await asyncio.sleep(60.0)
        status = await last_word(world, job_id)
        assert status.end is not None
        assert status.end.verdict is Verdict.TIMEOUT, status

    play(body)


@pytest.mark.parametrize("kind", [kind for kind in TELLS_THE_END if kind != "gridengine"])
@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_job_is_told_as_cancelled(tmp_path: Path, kind: str, running: bool) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, queue_wait=lambda _job: 0.0 if running else 1e6)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 6000\n")
        await asyncio.sleep(10.0)
        assert await world.asker.cancel(job_id)
        assert await world.asker.cancel(job_id)
        await asyncio.sleep(60.0)
        status = await last_word(world, job_id)
        if not running and kind == "gridengine-altair":
            assert status.answer is Answer.ABSENT  # what never ran has no accounting record
            return
        assert status.end is not None
        assert status.end.verdict is Verdict.CANCELLED, status

    play(body)


@every
def test_cancelling_frees_the_node(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(1, gpus=1))
        directives = SHORT[world.site.scheduler].replace("00:00:10", "10:00:00")
        first = await world.asker.job_id("t00001-aaaaaaaa", "sleep 30000\n", directives=directives)
        second = await world.asker.job_id("t00002-aaaaaaaa", "sleep 30000\n", directives=directives)
        await asyncio.sleep(10.0)
        before = await world.asker.query(first, second)
        assert [status.state for status in before] == [JobState.RUNNING, JobState.QUEUED]
        assert await world.asker.cancel(first)
        await asyncio.sleep(60.0)
        (after,) = await world.asker.query(second)
        assert after.state is JobState.RUNNING

    play(body)


@every
def test_a_job_is_found_by_its_tag_and_another_tag_is_not(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        begin = world.clock.now()
        await world.asker.job_id("t00001-aaaaaaaa", "sleep 6000\n")
        job_id = await world.asker.job_id("t00002-bbbbbbbb", "sleep 6000\n")
        found = await world.asker.find("t00002-bbbbbbbb", since=begin)
        assert [status.job_id for status in found.jobs["t00002-bbbbbbbb"]] == [job_id]
        nothing = await world.asker.find("t00003-cccccccc", since=begin)
        assert not nothing.jobs.get("t00003-cccccccc")
        if kind != "gridengine":  # no accounting file before the first end, which proves as little as much
            assert nothing.trusted

    play(body)


@pytest.mark.parametrize("kind", [kind for kind in TELLS_THE_END if kind != "slurm-noacct"])
def test_a_job_that_has_ended_is_found_by_its_tag_in_history(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        begin = world.clock.now()
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\n")
        await asyncio.sleep(7200.0)
        found = await world.asker.find("t00001-aaaaaaaa", since=begin)
        assert [status.job_id for status in found.jobs["t00001-aaaaaaaa"]] == [job_id]

    play(body)


@pytest.mark.parametrize("kind", FORGETS_AT_ONCE)
def test_where_nothing_is_kept_an_ended_job_is_absent_and_never_more(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\n")
        other = await world.asker.job_id("t00002-aaaaaaaa", "sleep 9000\n")
        await asyncio.sleep(60.0)
        ended, alive = await world.asker.query(job_id, other)
        assert ended.answer is Answer.ABSENT
        assert alive.answer is Answer.ALIVE
        assert await world.asker.history(job_id) is None

    play(body)


def test_a_bare_pjstat_says_that_a_job_has_ended_and_not_how(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pjm-stock")
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\nexit 3\n")
        await asyncio.sleep(30.0)
        status = await last_word(world, job_id)
        assert status.answer is Answer.ENDED
        assert status.end is not None
        assert status.end.verdict is None

    play(body)


def test_slurm_forgets_a_finished_job_after_its_minimum_age_and_accounting_keeps_it(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", keep_finished=300.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\n")
        await asyncio.sleep(200.0)
        (live,) = await world.asker.query(job_id)
        assert live.answer is Answer.ENDED
        await asyncio.sleep(200.0)
        (live,) = await world.asker.query(job_id)
        assert live.answer is Answer.ABSENT
        past = await world.asker.history(job_id)
        assert past is not None
        assert past[0].answer is Answer.ENDED

    play(body)


@every
def test_a_lagging_history_does_not_know_the_end_yet(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, keep_finished=0.0, history_lag=90.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\n")
        await asyncio.sleep(60.0)
        status = await last_word(world, job_id)
        assert status.answer is Answer.ABSENT
        await asyncio.sleep(60.0)
        later = await last_word(world, job_id)
        assert later.answer is (
            Answer.ENDED if world.cluster.rules.history and kind != "pjm-wrapped" else Answer.ABSENT
        )

    play(body)


@every
def test_a_new_job_may_be_invisible_for_a_while_and_run_all_the_same(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, visible_after=60.0)
        begin = world.clock.now()
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 6000\n")
        await asyncio.sleep(30.0)
        (hidden,) = await world.asker.query(job_id)
        assert hidden.answer is Answer.ABSENT
        assert not (await world.asker.find("t00001-aaaaaaaa", since=begin)).jobs.get("t00001-aaaaaaaa")
        await asyncio.sleep(40.0)
        (seen,) = await world.asker.query(job_id)
        assert seen.state is JobState.RUNNING

    play(body)


@every
def test_a_full_queue_refuses_for_now_and_an_unknown_queue_for_good(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, partitions=(Partition(name="main", default_walltime=3600.0, queued=2),))
        for number in range(2):
            await world.asker.job_id(f"t0000{number}-aaaaaaaa")
        full = await world.asker.submit("t00003-aaaaaaaa")
        assert isinstance(full, Refused)
        assert full.later
        queue = {
            "slurm": "#SBATCH --partition=nosuch",
            "pbs": "#PBS -q nosuch",
            "pjm": "#PJM -L rscgrp=nosuch",
            "gridengine": "#$ -q nosuch",
        }[world.site.scheduler]
        unknown = await world.asker.submit("t00004-aaaaaaaa", directives=queue)
        assert isinstance(unknown, Refused)
        assert not unknown.later

    play(body)


@every
def test_a_limit_on_running_jobs_makes_the_others_wait(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, partitions=(Partition(name="main", default_walltime=3600.0, running=1),))
        ids = [await world.asker.job_id(f"t0000{number}-aaaaaaaa", "sleep 100\n") for number in range(2)]
        await asyncio.sleep(10.0)
        states = [status.state for status in await world.asker.query(*ids)]
        assert states == [JobState.RUNNING, JobState.QUEUED]
        assert not any(status.stuck for status in await world.asker.query(*ids))
        await asyncio.sleep(110.0)
        (second,) = await world.asker.query(ids[1])
        assert second.state is JobState.RUNNING

    play(body)


@pytest.mark.parametrize("kind", ["pbs", "pbs-json", "gridengine"])
def test_a_request_that_no_node_can_meet_is_accepted_where_the_scheduler_does_so(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(1, gpus=1))
        greedy = SHORT[world.site.scheduler].replace("gpu=1", "gpu=9").replace("ngpus=1", "ngpus=9")
        job_id = await world.asker.job_id("t00001-aaaaaaaa", directives=greedy)
        await asyncio.sleep(3600.0)
        (status,) = await world.asker.query(job_id)
        assert status.state is JobState.QUEUED
        assert status.stuck is (kind != "gridengine")  # whose list does not say why

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "pjm"])
def test_a_request_that_no_node_can_meet_is_refused_elsewhere(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(1, gpus=1))
        greedy = SHORT[world.site.scheduler].replace("gpus-per-node=1", "gpus-per-node=9").replace("gpu=1", "gpu=9")
        answer = await world.asker.submit("t00001-aaaaaaaa", directives=greedy)
        assert isinstance(answer, Refused)
        assert not answer.later

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "slurm-noacct", "pbs", "pbs-json", "pjm", "gridengine"])
def test_an_array_is_alive_as_long_as_one_element_is_and_fails_with_one(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        # The elements differ in length only by when they start: two nodes of eight cores, one slot at a time.
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 50\nexit 2\n", array=3)
        await asyncio.sleep(20.0)
        (status,) = await world.asker.query(job_id)
        assert status.answer is Answer.ALIVE
        await asyncio.sleep(200.0)
        ended = await last_word(world, job_id)
        assert ended.end is not None
        assert ended.end.verdict is Verdict.FAILED

    play(body)


def test_bulk_jobs_are_refused_where_the_site_forbids_them(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pjm-wrapped")
        answer = await world.asker.submit("t00001-aaaaaaaa", array=3)
        assert isinstance(answer, Refused)
        assert not answer.later
        assert "PJM 0070" in answer.reason

    play(body)


@every
def test_a_held_job_is_held_and_stuck(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, queue_wait=lambda _job: 600.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa")
        (batch_job,) = world.cluster.live()
        world.cluster.hold(batch_job)
        (status,) = await world.asker.query(job_id)
        assert (status.answer, status.state, status.stuck) == (Answer.ALIVE, JobState.HELD, True)
        world.cluster.release(batch_job)
        (status,) = await world.asker.query(job_id)
        assert status.state is JobState.QUEUED

    play(body)


NO_RERUN = {"slurm": "#SBATCH --no-requeue", "pbs": "#PBS -r n", "pjm": "#PJM --norestart", "gridengine": "#$ -r n"}


@pytest.mark.parametrize("kind", TELLS_HOW)
def test_a_job_whose_node_failed_and_that_may_not_be_run_again_is_told_so(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", directives=NO_RERUN[world.site.scheduler])
        await asyncio.sleep(10.0)
        world.cluster.fail_node(next(iter(world.cluster.live())).nodes[0])
        await asyncio.sleep(60.0)
        status = await last_word(world, job_id)
        assert status.end is not None
        assert status.end.verdict is Verdict.NODE_FAILURE, status

    play(body)


@every
def test_a_job_that_may_be_run_again_keeps_its_id_through_a_node_failure(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, requeue_wait=120.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 600\n")
        await asyncio.sleep(10.0)
        (batch_job,) = world.cluster.live()
        world.cluster.fail_node(batch_job.nodes[0], back_after=60.0)
        await asyncio.sleep(30.0)
        (waiting,) = await world.asker.query(job_id)
        assert waiting.state is JobState.QUEUED
        await asyncio.sleep(120.0)
        (again,) = await world.asker.query(job_id)
        assert again.state is JobState.RUNNING
        assert batch_job.restarts == 1
        if world.site.scheduler == "pbs" and kind != "pbs-wrapped":
            assert again.restarts == 1

    play(body)


def test_slurm_s_accounting_counts_the_starts_of_a_requeued_job(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", requeue_wait=120.0, keep_finished=5.0)
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 100\n")
        await asyncio.sleep(10.0)
        world.cluster.fail_node(next(iter(world.cluster.live())).nodes[0], back_after=60.0)
        await asyncio.sleep(400.0)
        past = await world.asker.history(job_id)
        assert past is not None
        assert past[0].end is not None
        assert past[0].end.verdict is Verdict.SUCCEEDED
        assert past[0].restarts == 1

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm"])
def test_after_the_counter_was_lost_the_same_id_comes_again(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, keep_finished=10.0)
        begin = world.clock.now()
        first = await world.asker.job_id("t00001-aaaaaaaa", "sleep 5\n")
        await asyncio.sleep(60.0)
        world.cluster.reset_counter()
        second = await world.asker.job_id("t00002-bbbbbbbb", "sleep 5\nexit 9\n")
        assert second == first
        await asyncio.sleep(60.0)
        found = await world.asker.find("t00002-bbbbbbbb", since=begin)
        assert [status.job_id for status in found.jobs["t00002-bbbbbbbb"]] == [second]
        status = await last_word(world, second)
        assert status.end is not None
        assert status.end.verdict is Verdict.FAILED

    play(body)


@pytest.mark.parametrize("kind", ["pbs-wrapped", "pjm-wrapped"])
def test_a_maintenance_banner_hides_no_job(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, stop=VirtualClock().now() + 5 * 86400.0)
        (none,) = await world.asker.query("1")
        assert none.answer is Answer.ABSENT
        job_id = await world.asker.job_id("t00001-aaaaaaaa")
        (status,) = await world.asker.query(job_id)
        assert status.answer is Answer.ALIVE
        printed = await world.transport.run(world.scheduler.query([job_id]))
        assert "scheduled stop time" in printed.stdout

    play(body)


@every
def test_limits_and_version_are_answered(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        for command in (world.scheduler.limits(), world.scheduler.version()):
            if command is not None:
                assert (await world.transport.run(command)).returncode == 0

    play(body)
