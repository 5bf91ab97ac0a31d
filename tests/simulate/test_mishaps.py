"""What happens to jobs on real clusters, on every flavour: requeues, one of several cancelled, a controller's crash."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from worlds import EVERY, World, job, machine, play

from orchestrator import agent
from orchestrator.config.site import BatchOptions, Queue
from orchestrator.jobs.session import Session
from orchestrator.model import Answer, Verdict
from orchestrator.simulate.batchjob import Phase
from orchestrator.simulate.faults import Fault

every = pytest.mark.parametrize("kind", EVERY)
NODE = Queue(name="main", unit="node", gpus_per_unit=2, cores_per_unit=8)
ORDER = {"version": 1, "tag": "t00000-aaaaaaaa", "key": "00000", "attempt": 1, "command": ["true"], "metrics": ["m"]}


def packing(world: World) -> Session:
    """A driver that puts two attempts on a node."""
    return Session(
        world.root,
        name="s",
        site=world.site.model_copy(update={"queues": (NODE,)}),
        batch=BatchOptions(pack="auto"),
        transport=world.transport,
        clock=world.clock,
    )


@every
def test_one_attempt_of_a_packed_job_is_cancelled_and_the_other_goes_on(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(2, gpus=2))
        async with packing(world) as session:
            tasks = session.submit(*(job(number) for number in range(4)))
            await asyncio.sleep(200.0)
            await session.abort("00002")
            assert tasks[2].result().verdict is Verdict.CANCELLED
            outcomes = await asyncio.gather(*tasks[:2], tasks[3])
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 3
        cancelled = world.transport.executions[2]
        assert [execution.how for execution in world.transport.executions] == [
            "finished",
            "finished",
            "killed",
            "finished",
        ]
        assert cancelled.ended is not None
        assert 0.0 < cancelled.ended - cancelled.started - 200.0 <= agent.CANCEL_PERIOD

    play(body)


@every
def test_an_attempt_that_is_cancelled_before_its_packed_job_starts_never_runs(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(2, gpus=2), queue_wait=lambda _job: 600.0)
        async with packing(world) as session:
            tasks = session.submit(*(job(number) for number in range(2)))
            await asyncio.sleep(200.0)
            await session.abort("00001")
            (outcome,) = await asyncio.gather(tasks[0])
        assert outcome.succeeded
        assert len(world.transport.executions) == 1

    play(body)


@every
def test_a_running_job_that_is_put_back_runs_again_under_its_id_and_has_one_result(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, requeue_wait=60.0, overrules_no_rerun=True)

        async def put_back() -> None:
            await asyncio.sleep(200.0)
            (running,) = (one for one in world.cluster.live() if one.phase is Phase.RUNNING)
            assert world.cluster.requeue(running)

        async with world.session() as session:
            outcome, _ = await asyncio.gather(session.run(job(2)), put_back())
        assert (outcome.verdict, outcome.attempts, outcome.metrics) == (Verdict.SUCCEEDED, 1, {"m": 4.0})
        executions = world.transport.executions
        assert [execution.how for execution in executions] == ["killed", "finished"]
        assert len({(execution.tag, execution.key) for execution in executions}) == 1
        names = world.transport.files.names(outcome.directory)
        assert "claim-1" in names
        assert "restarts.jsonl" in names

    play(body)


def test_a_restart_leaves_the_files_that_the_real_agent_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({**ORDER, "command": ["sleep", "60"]}))
    environment = {**os.environ, "SLURM_JOB_ID": "1"}
    first = subprocess.Popen([sys.executable, "-I", agent.__file__, "run", str(folder)], env=environment)
    while not (folder / "stdout").exists():
        assert first.poll() is None
    first.terminate()
    first.wait()
    (folder / "job.json").write_text(json.dumps(ORDER))
    again = {**environment, "SLURM_RESTART_COUNT": "1"}
    subprocess.run([sys.executable, "-I", agent.__file__, "run", str(folder)], env=again, check=True)
    real = {path.name: path for path in folder.iterdir() if path.name.startswith(("claim", "restarts"))}
    made: dict[str, bytes] = {}

    async def body() -> None:
        world = World(tmp_path / "study", "slurm", requeue_wait=60.0, overrules_no_rerun=True)
        async with world.session() as session:
            task = asyncio.create_task(session.run(job(2)))
            await asyncio.sleep(200.0)
            (running,) = world.cluster.live()
            world.cluster.requeue(running)
            outcome = await task
        for name in world.transport.files.names(outcome.directory):
            if name.startswith(("claim", "restarts")):
                made[name] = world.transport.files.read(f"{outcome.directory}/{name}") or b""

    play(body)
    assert made.keys() == real.keys()
    for name, content in made.items():
        mine, theirs = json.loads(content), json.loads(real[name].read_text())
        assert mine.keys() == theirs.keys()
        if name == "restarts.jsonl":
            assert mine["exit"].keys() == theirs["exit"].keys()
            assert (mine["exit"]["cause"], mine["exit"]["signal"]) == (
                theirs["exit"]["cause"],
                theirs["exit"]["signal"],
            )


@every
def test_a_job_that_the_controller_lost_with_its_memory_is_run_once_more_though_its_number_comes_again(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, queue_wait=lambda _job: 300.0)
        async with world.session() as session:
            first = asyncio.create_task(session.run(job(1)))
            await asyncio.sleep(60.0)
            (lost,) = world.cluster.crash(unsaved=90.0)
            other = asyncio.create_task(session.run(job(2)))
            outcomes = await asyncio.gather(first, other)
        assert [(outcome.verdict, outcome.metrics["m"]) for outcome in outcomes] == [
            (Verdict.SUCCEEDED, 1.0),
            (Verdict.SUCCEEDED, 4.0),
        ]
        assert outcomes[1].job_id.partition(".")[0] == str(lost.number)
        assert set(Counter(execution.tag for execution in world.transport.executions).values()) == {1}
        assert len(world.transport.executions) == 2

    play(body)


def test_a_crash_loses_what_was_submitted_since_the_last_save_and_nothing_else(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm")
        old = await world.asker.job_id("t00001-aaaaaaaa", "sleep 600\n")
        await asyncio.sleep(100.0)
        new = await world.asker.job_id("t00002-aaaaaaaa", "sleep 600\n")
        await asyncio.sleep(5.0)
        world.cluster.crash(unsaved=50.0)
        assert [status.answer for status in await world.asker.query(old, new)] == [Answer.ALIVE, Answer.ABSENT]
        assert await world.asker.job_id("t00003-aaaaaaaa", "sleep 5\n") == new
        await asyncio.sleep(700.0)
        await world.asker.query(old)
        assert not [one for one in world.cluster.live() if one.phase is not Phase.ENDED]

    play(body)


@every
@pytest.mark.parametrize("skew", [-1800.0, 1800.0])
def test_clocks_that_differ_between_the_driver_s_machine_and_the_site_change_nothing(
    tmp_path: Path, kind: str, skew: float
) -> None:
    async def body() -> None:
        lost = Fault(command="submit", kind="reply-lost", calls=[1])
        world = World(tmp_path, kind, faults=[lost], skew=skew)
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(2)))
        assert [(outcome.verdict, outcome.attempts) for outcome in outcomes] == [(Verdict.SUCCEEDED, 1)] * 2
        assert len(world.transport.executions) == 2

    play(body)


@every
def test_a_list_that_lacks_every_second_job_is_made_up_for_by_the_next(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="half-list", calls=[1])])
        ids = [await world.asker.job_id(f"t0000{number}-aaaaaaaa") for number in range(4)]
        await asyncio.sleep(5.0)
        absent, alive = Answer.ABSENT, Answer.ALIVE
        assert [status.answer for status in await world.asker.query(*ids)] == [alive, absent, alive, absent]
        assert [status.answer for status in await world.asker.query(*ids)] == [alive] * 4

    play(body)


@every
def test_notices_on_both_streams_make_no_answer_wrong(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="any", kind="banner")], history_lag=0.0)
        begin = world.clock.now()
        job_id = await world.asker.job_id("t00001-aaaaaaaa", "sleep 60\n")
        await asyncio.sleep(5.0)
        (status,) = await world.asker.query(job_id)
        assert status.answer in {Answer.ALIVE, Answer.UNKNOWN}, status
        found = await world.asker.find("t00001-aaaaaaaa", since=begin)
        assert [one.job_id for one in found.jobs["t00001-aaaaaaaa"]] == [job_id] or not found.trusted
        assert await world.asker.cancel(job_id)

    play(body)
