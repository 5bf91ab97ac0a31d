"""Faults 1 to 13: a submit and all that can become of it. Nothing is lost, and no program runs twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_deaths import killed
from fault_world import HOUR, PARALLEL, THREE, TRIALS, FaultWorld, after, play, train

from orchestrator.errors import Paused
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.model import Verdict
from orchestrator.simulate.batchjob import BatchJob, Partition, Wish
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.programs import Run

three = pytest.mark.parametrize("kind", THREE)


@three
def test_fault_1_a_driver_that_dies_before_its_submit_submits_once_when_it_comes_back(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        assert await killed(world, "submit", "before", 2)
        record = await world.run()
        await world.holds(record)
        assert world.calls("submit") == TRIALS
        assert any(NEVER_RAN in attempt.notes for attempt in world.attempts())

    play(body)


@three
def test_fault_2_a_submit_that_times_out_after_it_was_accepted_is_adopted(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind="timed-out", calls=[1, 4])])
        record = await world.run()
        await world.holds(record)
        assert world.plan.happened["submit", "timed-out"] == 2
        assert len(world.attempts()) == TRIALS
        assert any("looking the job up by its name" in words for words in world.said("waiting"))

    play(body)


@three
def test_fault_3_a_job_whose_driver_died_before_its_id_was_stored_is_adopted(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        assert await killed(world, "submit", "after", 2)
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@three
@pytest.mark.parametrize("late", [30.0, 120.0])
def test_fault_4_a_job_that_shows_up_late_after_an_unclear_submit_is_not_submitted_again(
    tmp_path: Path, kind: str, late: float
) -> None:
    async def body() -> None:
        lost = Fault(command="submit", kind="reply-lost", calls=[1])
        world = FaultWorld(tmp_path, kind, faults=[lost], visible_after=late, queue_wait=lambda _job: 400.0)
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@three
def test_fault_4_a_job_that_shows_up_after_the_settle_time_finds_that_it_may_not_run(tmp_path: Path, kind: str) -> None:
    def first_comes_late(job: BatchJob) -> float:
        if len(world_of) == 0 and not job.wish.hold:
            world_of.append(job)
            job.visible = job.submitted + 1500.0
            return 1500.0
        return 0.0

    world_of: list[BatchJob] = []

    async def body() -> None:
        lost = Fault(command="submit", kind="reply-lost", calls=[1])
        world = FaultWorld(tmp_path, kind, faults=[lost], queue_wait=first_comes_late)
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS + 1
        assert world_of[0].started is not None, "it was to start, and to do nothing"

    play(body)


@pytest.mark.parametrize("kind", [*THREE, "slurm-noacct", "pbs-nohistory"])
def test_fault_5_a_job_that_ended_and_was_purged_before_anyone_knew_its_id_is_collected(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, keep_finished=0.0)
        assert await killed(world, "submit", "after", 2)
        await world.idle(2 * HOUR)
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [*((kind, "banner") for kind in THREE), *zip(THREE, ["silent", "garbage", "silent"], strict=True)],
)
def test_fault_6_noise_around_the_id_or_in_its_place_never_becomes_an_id(tmp_path: Path, kind: str, fault: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind=fault, calls=[1, 5])])
        await world.holds(await world.run())
        assert world.plan.happened["submit", fault] == 2
        known = {str(execution.key[0]) for execution in world.executions}
        assert {(attempt.job_id or "").partition(".")[0] for attempt in world.attempts()} == known

    play(body)


@three
def test_fault_7_a_refusal_for_now_is_met_with_patience_and_no_pause(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind="busy", calls=range(1, 5))])
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS + 4
        assert len(world.attempts()) == TRIALS
        assert any("takes no more now" in words for words in world.said("waiting"))

    play(body)


@three
def test_fault_8_a_refusal_for_good_pauses_in_the_schedulers_words_and_is_not_asked_again(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind="refused")])
        with pytest.raises(Paused, match="refuses") as caught:
            await world.run()
        assert caught.value.exit_code == 4
        assert caught.value.hint
        assert world.calls("submit") <= 3
        assert world.executions == []
        world.plan.faults = ()
        await world.holds(await world.run())

    play(body)


@three
def test_fault_9_a_limit_of_jobs_in_the_queue_throttles_and_is_no_failure(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        # One of the user's other jobs is in the queue too.
        world = FaultWorld(tmp_path, kind, partitions=(Partition(name="main", default_walltime=HOUR, queued=3),))
        await world.holds(await world.run())
        assert any("takes no more now" in words for words in world.said("waiting"))
        assert len(world.attempts()) == TRIALS

    play(body)


@three
@pytest.mark.parametrize("fault", ["fails", "hang"])
def test_fault_10_submits_in_a_row_that_come_to_nothing_pause_the_study_until_somebody_runs_it_again(
    tmp_path: Path, kind: str, fault: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind=fault)])
        with pytest.raises(Paused, match="submits in a row came to nothing") as caught:
            await world.run()
        assert caught.value.exit_code == 4
        assert "survey run" in caught.value.hint
        assert world.calls("submit") < 20
        assert world.executions == []
        world.plan.faults = ()
        await world.holds(await world.run())

    play(body)


@three
def test_fault_10_programs_that_die_at_once_pause_the_study_before_its_budget_is_gone(
    tmp_path: Path, kind: str
) -> None:
    broken = [True]

    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        return Run(duration=1.0, exit_code=127) if broken else train(order, params, attempt)

    async def body() -> None:
        patience = {"failures": {"instant_deaths": 2, "most": 1.0}, "parallel": 1}
        world = FaultWorld(tmp_path, kind, program, changes=patience)
        with pytest.raises(Paused, match="attempts in a row died within"):
            await world.run()
        assert len(world.executions) == 2
        broken.clear()
        await world.holds(await world.run(), failed=[0, 1])

    play(body)


@three
def test_fault_11_a_submit_command_that_hangs_is_ended_and_its_job_is_looked_for(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="submit", kind="hang", calls=[1, 3])])
        await world.holds(await world.run())
        assert world.plan.happened["submit", "hang"] == 2
        assert any("no answer within" in words for words in world.said("waiting"))

    play(body)


@three
@pytest.mark.parametrize("way", ["requeued", "preempted", "node lost"])
def test_fault_12_a_job_that_its_scheduler_starts_again_goes_on_as_the_same_attempt(
    tmp_path: Path, kind: str, way: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, overrules_no_rerun=True, requeue_wait=60.0)

        def happen() -> None:
            job = world.running()[0]
            if way == "requeued":
                assert world.cluster.requeue(job)
            elif way == "preempted":
                world.cluster.preempt(job)
            else:
                world.cluster.fail_node(job.nodes[0], back_after=600.0)

        await world.holds(await world.run_while(after(200.0, happen)), once=False)
        assert len(world.attempts()) == TRIALS
        twice = {key for key, count in world.starts.items() if count == 2}
        assert twice
        assert set(world.starts.values()) == {1, 2}
        assert {each.key for each in world.attempts() if world.restarts(each) == 1} == twice

    play(body)


@pytest.mark.parametrize(("kind", "verdict"), [("slurm", "preempted"), ("pbs-wrapped", "cancelled")])
def test_fault_12_a_preemption_for_good_is_run_again_where_the_scheduler_says_that_it_was_one(
    tmp_path: Path, kind: str, verdict: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        record = await world.run_while(after(200.0, lambda: world.cluster.preempt(world.running()[0])))
        await world.holds(record, once=False, failed=[] if verdict == "preempted" else [0])
        first = world.attempts()[0]
        assert first.outcome is not None
        assert first.outcome.verdict == verdict

    play(body)


def three_die_at_first(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    dies = order["number"] < PARALLEL and attempt == 1
    return Run(duration=600.0, agent_dies=300.0) if dies else train(order, params, attempt)


@three
def test_fault_13_another_job_under_the_same_number_is_not_taken_for_ours(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, three_die_at_first, keep_finished=0.0)
        assert await killed(world, seconds=200.0)
        ours = world.running()
        await world.idle(HOUR)
        world.cluster.reset_counter(ours[0].number)
        theirs = [world.cluster.submit(Wish(name="their-job", text="sleep 30\n"), "neighbour") for _ in ours]
        assert [job.number for job in theirs] == [job.number for job in ours]
        await world.idle(100.0)
        record = await world.run()
        await world.holds(record, once=False, failed=[each.number for each in record.trials if each.state == "failed"])
        first = [attempt.outcome for attempt in world.attempts() if attempt.number == 1][:PARALLEL]
        assert {each.verdict for each in first if each} <= {Verdict.LOST, Verdict.FAILED}

    play(body)
