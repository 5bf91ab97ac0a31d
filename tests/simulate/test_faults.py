"""Each named fault changes what the adaptors see, and what a session does about it, as it should."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from worlds import EVERY, World, job, machine, play, train

from orchestrator.errors import Paused, UsageError
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.model import Answer, Verdict
from orchestrator.schedulers.base import Refused, Submitted, Unclear
from orchestrator.simulate.batchjob import Partition, Phase
from orchestrator.simulate.faults import FAULTS, Fault, FaultPlan
from orchestrator.simulate.programs import Run

every = pytest.mark.parametrize("kind", EVERY)
ONE_OF_EACH = ["slurm", "pbs", "pjm", "gridengine"]
TAG = "t00001-aaaaaaaa"


# What the adaptors see


@every
@pytest.mark.parametrize(
    ("fault", "answer", "later", "taken"),
    [
        ("hang", Unclear, None, False),
        ("reply-lost", Unclear, None, True),
        ("lost-code", Unclear, None, True),
        ("timed-out", Unclear, None, True),
        ("silent", Unclear, None, True),
        ("garbage", Unclear, None, True),
        ("banner", Submitted, None, True),
        ("fails", Unclear, None, False),
        ("down", Refused, True, False),
        ("busy", Refused, True, False),
        ("limit", Refused, True, False),
        ("refused", Refused, False, False),
    ],
)
def test_a_submit_meets_the_fault_and_only_the_ones_that_say_so_leave_a_job(
    tmp_path: Path, kind: str, fault: str, answer: type, later: bool | None, taken: bool
) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="submit", kind=fault, calls=[1])])
        got = await world.asker.submit(TAG)
        assert isinstance(got, answer), got
        if isinstance(got, Refused):
            assert got.later is later
        assert len(list(world.cluster.live())) == int(taken)
        assert isinstance(await world.asker.submit("t00002-aaaaaaaa"), Submitted)
        assert world.plan.happened == Counter({("submit", fault): 1})

    play(body)


@every
@pytest.mark.parametrize(
    "fault", ["hang", "reply-lost", "lost-code", "silent", "garbage", "fails", "down", "timed-out"]
)
def test_a_query_that_met_a_fault_proves_nothing_of_any_job(tmp_path: Path, kind: str, fault: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind=fault, calls=[1])])
        job_id = await world.asker.job_id(TAG, "sleep 6000\n")
        answers = [status.answer for status in await world.asker.query(job_id, "999")]
        assert answers == [Answer.UNKNOWN] * 2
        (again,) = await world.asker.query(job_id)
        assert again.answer is Answer.ALIVE

    play(body)


@every
def test_a_state_word_that_no_manual_has_is_unknown(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="odd-word", calls=[1])])
        job_id = await world.asker.job_id(TAG)
        await asyncio.sleep(5.0)
        (status,) = await world.asker.query(job_id)
        assert status.answer is Answer.UNKNOWN

    play(body)


@every
def test_one_job_missing_from_one_list_is_absent_there_and_back_in_the_next(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="missing-job", calls=[1])])
        ids = [await world.asker.job_id(f"t0000{number}-aaaaaaaa") for number in range(2)]
        await asyncio.sleep(5.0)
        assert [status.answer for status in await world.asker.query(*ids)] == [Answer.ABSENT, Answer.ALIVE]
        assert [status.answer for status in await world.asker.query(*ids)] == [Answer.ALIVE] * 2

    play(body)


@pytest.mark.parametrize(("fault", "answer"), [("bad-json", Answer.ALIVE), ("torn-json", Answer.UNKNOWN)])
def test_pbs_json_as_it_is_deployed_is_mended_or_not_believed(tmp_path: Path, fault: str, answer: Answer) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs-json", faults=[Fault(command="query", kind=fault)])
        job_id = await world.asker.job_id(TAG)
        await asyncio.sleep(5.0)
        printed = await world.transport.run(world.scheduler.query([job_id]))
        with pytest.raises(ValueError, match="line"):
            json.loads(printed.stdout)
        (status,) = await world.asker.query(job_id)
        assert status.answer is answer

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
@pytest.mark.parametrize("fault", ["fails", "down", "hang", "garbage"])
def test_a_history_that_met_a_fault_proves_nothing(tmp_path: Path, kind: str, fault: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="history", kind=fault, calls=[1])], history_lag=0.0)
        job_id = await world.asker.job_id(TAG, "sleep 5\n")
        await asyncio.sleep(30.0)
        past = await world.asker.history(job_id)
        assert past is not None
        assert past[0].answer is Answer.UNKNOWN
        again = await world.asker.history(job_id)
        assert again is not None
        assert again[0].answer is Answer.ENDED

    play(body)


@every
def test_a_look_up_that_met_a_fault_is_not_trusted(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="any", kind="fails", since=10.0, until=20.0)])
        begin = world.clock.now()
        job_id = await world.asker.job_id(TAG)
        await asyncio.sleep(15.0)
        assert not (await world.asker.find(TAG, since=begin)).trusted
        await asyncio.sleep(15.0)
        assert [status.job_id for status in (await world.asker.find(TAG, since=begin)).jobs[TAG]] == [job_id]

    play(body)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_cancel_that_was_lost_is_told_and_the_job_lives(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="cancel", kind="down", calls=[1])])
        job_id = await world.asker.job_id(TAG)
        assert not await world.asker.cancel(job_id)
        (status,) = await world.asker.query(job_id)
        assert status.answer is Answer.ALIVE

    play(body)


def test_slurm_s_clients_give_up_on_a_dead_controller_only_after_a_while(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", faults=[Fault(command="any", kind="down")])
        begin = world.clock.now()
        await world.asker.submit(TAG)
        assert world.clock.now() - begin == 19.0
        await world.asker.query("1")
        assert world.clock.now() - begin == 57.0

    play(body)


@pytest.mark.parametrize("kind", ["pbs-json", "gridengine"])
def test_half_a_document_is_not_believed(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="cut", calls=[1])])
        job_id = await world.asker.job_id(TAG)
        (status,) = await world.asker.query(job_id)
        assert status.answer is Answer.UNKNOWN

    play(body)


@every
def test_half_a_list_may_hide_jobs_and_costs_none_of_them(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="cut", calls=[1, 3])])
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(4)))
        assert [(outcome.verdict, outcome.attempts) for outcome in outcomes] == [(Verdict.SUCCEEDED, 1)] * 4
        assert world.plan.happened["query", "cut"] == 2

    play(body)


# The plan itself


def test_a_fault_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'reply-lost'"):
        Fault(command="submit", kind="reply-lots")
    assert all(words for words in FAULTS.values())


def test_chance_is_drawn_from_the_seed_alone() -> None:
    def draws(seed: int) -> list[str | None]:
        plan = FaultPlan([Fault(command="submit", kind="busy", chance=0.3)], seed=seed)
        return [plan.pick("sbatch", ("submit",), 0.0) for _ in range(50)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert 5 < sum(fault is not None for fault in draws(1)) < 25


def test_calls_are_counted_by_program_and_by_role() -> None:
    plan = FaultPlan([Fault(command="qstat", kind="fails", calls=[2]), Fault(command="any", kind="hang", calls=[4])])
    got = [plan.pick(program, roles, 0.0) for program, roles in [("qstat", ("query",)), ("qsub", ("submit",))] * 2]
    assert got == [None, None, "fails", "hang"]
    assert (plan.calls("qstat"), plan.calls("submit"), plan.calls("any")) == (2, 2, 4)


# What a session makes of them: as many executions as there should be, and the right end


@every
@pytest.mark.parametrize(
    "fault", ["reply-lost", "timed-out", "silent", "garbage", "hang", "fails", "busy", "down", "limit"]
)
def test_whatever_happens_to_a_submit_the_program_runs_once(tmp_path: Path, kind: str, fault: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="submit", kind=fault, calls=[1, 3])])
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(4)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 4
        tags = Counter(execution.tag for execution in world.transport.executions)
        assert len(tags) == 4
        assert set(tags.values()) == {1}
        assert sum(world.plan.happened.values()) == 2

    play(body)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_refusal_for_good_pauses_and_is_not_asked_again(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="submit", kind="refused")])
        async with world.session() as session:
            with pytest.raises(Paused):
                await session.run(job())
        assert world.plan.calls("submit") == 1
        assert world.transport.executions == []

    play(body)


@every
@pytest.mark.parametrize("visible_after", [90.0])
def test_a_lost_reply_and_a_job_that_shows_up_late_make_one_execution_and_not_two(
    tmp_path: Path, kind: str, visible_after: float
) -> None:
    async def body() -> None:
        lost = Fault(command="submit", kind="reply-lost", calls=[1])
        world = World(tmp_path, kind, faults=[lost], visible_after=visible_after, queue_wait=lambda _job: 400.0)
        async with world.session() as session:
            outcome = await session.run(job())
        assert outcome.verdict is Verdict.SUCCEEDED
        assert len(world.transport.executions) == 1

    play(body)


@every
def test_two_hours_without_an_answer_change_nothing(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        deaf = [Fault(command="any", kind=fault, since=100.0, until=7300.0, chance=0.4) for fault in ("hang", "fails")]
        down = Fault(command="any", kind="down", since=100.0, until=7300.0)
        world = World(tmp_path, kind, lambda *_: Run(duration=9000.0, metrics={"m": 1.0}), faults=[*deaf, down])
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number, walltime=14400)) for number in range(3)))
        assert [(outcome.verdict, outcome.attempts) for outcome in outcomes] == [(Verdict.SUCCEEDED, 1)] * 3
        assert not world.said("suspect")

    play(body)


@every
def test_one_missing_job_in_one_list_is_no_loss(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="query", kind="missing-job", calls=[2])])
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(2)))
        assert [(outcome.verdict, outcome.attempts) for outcome in outcomes] == [(Verdict.SUCCEEDED, 1)] * 2

    play(body)


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, "slurm-noacct", "pbs-wrapped"])
@pytest.mark.parametrize("lag", [5.0, 60.0, 200.0])
def test_a_result_that_becomes_visible_late_is_collected(tmp_path: Path, kind: str, lag: float) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, files_lag=lag, keep_finished=0.0)
        async with world.session() as session:
            outcome = await session.run(job(3))
        assert (outcome.verdict, outcome.metrics, outcome.attempts) == (Verdict.SUCCEEDED, {"m": 9.0}, 1)

    play(body)


@every
def test_an_agent_that_dies_is_lost_or_failed_and_never_a_success(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        dies = Run(duration=600.0, metrics={"m": 1.0}, agent_dies=300.0)
        world = World(tmp_path, kind, lambda *_: dies)
        async with world.session(retry=RetryPolicy(limits={})) as session:
            outcome = await session.run(job())
        assert outcome.verdict in {Verdict.LOST, Verdict.FAILED}, outcome
        assert [execution.how for execution in world.transport.executions] == ["killed"]

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pbs-json", "pjm", "gridengine"])
def test_memory_that_ran_out_is_told_by_the_scheduler(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        greedy = Run(duration=600.0, metrics={"m": 1.0}, out_of_memory=300.0)
        world = World(tmp_path, kind, lambda *_: greedy)
        async with world.session() as session:
            outcome = await session.run(job())
        assert outcome.verdict is Verdict.OUT_OF_MEMORY, outcome

    play(body)


@every
def test_a_node_that_fails_costs_an_attempt_and_not_the_job(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)

        async def fail() -> None:
            await asyncio.sleep(200.0)
            (running,) = (one for one in world.cluster.live() if one.phase is Phase.RUNNING)
            world.cluster.fail_node(running.nodes[0], back_after=600.0)

        async with world.session() as session:
            outcome, _ = await asyncio.gather(session.run(job(2)), fail())
        assert (outcome.verdict, outcome.attempts, outcome.metrics) == (Verdict.SUCCEEDED, 2, {"m": 4.0})
        assert [execution.how for execution in world.transport.executions] == ["lost", "finished"]

    play(body)


@every
def test_a_program_that_takes_too_long_is_told_to_stop_and_then_times_out(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        def deaf(*_: object) -> Run:
            return Run(duration=9000.0, metrics={"m": 1.0}, progress=[(1, 0.5)] * 20, heeds_stop=False)

        world = World(tmp_path, kind, deaf)
        async with world.session() as session:
            outcome = await session.run(job(walltime=3600))
        assert outcome.verdict is Verdict.TIMEOUT
        assert outcome.ended is not None
        assert outcome.started is not None
        assert 3000.0 < outcome.ended - outcome.started < 3600.0

    play(body)


def test_a_program_that_heeds_the_stop_file_ends_with_its_result(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", lambda *_: Run(duration=9000.0, metrics={"m": 1.0}, progress=[(1, 0.5)] * 200))
        async with world.session() as session:
            outcome = await session.run(job(walltime=3600))
        assert outcome.verdict is Verdict.SUCCEEDED
        assert [execution.how for execution in world.transport.executions] == ["stopped"]

    play(body)


@every
def test_a_driver_that_is_killed_finds_its_jobs_again(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, faults=[Fault(command="submit", kind="hang", calls=[2])])
        for moment in (0.0, 30.0, 100.0, 400.0):
            async with world.session() as session:
                tasks = session.submit(*(job(number) for number in range(3)))
                await asyncio.sleep(moment)
                for task in tasks:
                    task.cancel()
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(3)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 3
        tags = Counter(execution.tag for execution in world.transport.executions)
        assert set(tags.values()) == {1}
        assert len(tags) == 3

    play(body)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_full_queue_holds_back_submits_and_all_jobs_run_in_the_end(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        queue = Partition(name="main", default_walltime=3600.0, queued=2)
        world = World(tmp_path, kind, partitions=(queue,), nodes=machine(2))
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(6)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 6
        assert len(world.transport.executions) == 6

    play(body)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_an_attempt_that_its_scheduler_runs_twice_has_one_result(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, requeue_wait=60.0, overrules_no_rerun=True)

        async def fail() -> None:
            await asyncio.sleep(200.0)
            (running,) = (one for one in world.cluster.live() if one.phase is Phase.RUNNING)
            world.cluster.fail_node(running.nodes[0], back_after=30.0)

        async with world.session() as session:
            outcome, _ = await asyncio.gather(session.run(job(2)), fail())
        assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 1)
        assert [execution.how for execution in world.transport.executions] == ["lost", "finished"]
        assert len({execution.tag for execution in world.transport.executions}) == 1

    play(body)


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, "slurm-noacct", "pbs-nohistory", "pjm-wrapped"])
def test_forty_jobs_through_a_bad_week_end_well_and_run_once(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        faults = [
            Fault(command="submit", kind="reply-lost", chance=0.05),
            Fault(command="submit", kind="timed-out", chance=0.05),
            Fault(command="submit", kind="silent", chance=0.05),
            Fault(command="submit", kind="busy", chance=0.1),
            Fault(command="query", kind="missing-job", chance=0.1),
            Fault(command="any", kind="hang", chance=0.03),
            Fault(command="any", kind="fails", chance=0.05),
            Fault(command="any", kind="down", since=3000.0, until=6000.0),
        ]
        world = World(tmp_path, kind, train, faults=faults, visible_after=20.0, history_lag=20.0, files_lag=15.0)
        async with world.session(limit=20) as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(40)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 40
        assert set(Counter(execution.tag for execution in world.transport.executions).values()) == {1}
        assert len(world.transport.executions) == 40

    play(body)
