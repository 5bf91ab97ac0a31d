"""Faults 14 to 23: what a scheduler says of jobs, and what it does not. Only proofs change anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_deaths import killed
from fault_world import HOUR, PARALLEL, THREE, TRIALS, FaultWorld, after, emptied, of_trial, play, train

from orchestrator.model import Verdict
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.batchjob import Phase
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.programs import Run
from orchestrator.store.ledger import Ledger

three = pytest.mark.parametrize("kind", THREE)
LONG = {"resources": {"gpus": 1, "walltime": 14400}}
RARELY = {"poll": {"look": 30.0}}


def long(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    """The same as `train`, for more than two hours."""
    return Run(duration=9000.0, metrics=train(order, params, attempt).metrics)


@three
@pytest.mark.parametrize(
    "silence",
    [
        Fault(command="query", kind="fails", calls=[2]),
        Fault(command="query", kind="fails", calls=range(2, 12)),
        Fault(command="any", kind="down", since=100.0, until=7300.0),
    ],
    ids=["once", "ten times", "two hours"],
)
def test_fault_14_queries_that_fail_change_nothing_however_long(tmp_path: Path, kind: str, silence: Fault) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, long, faults=[silence], changes=LONG, site=RARELY)
        await world.holds(await world.run())
        assert sum(world.plan.happened.values())
        assert not world.said("suspect")
        assert not world.said("retry")

    play(body)


@three
def test_fault_15_a_scheduler_that_has_forgotten_every_job_is_an_outage(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, long, changes=LONG, site=RARELY)

        async def forget() -> None:
            await asyncio.sleep(200.0)
            with emptied(world):
                await asyncio.sleep(700.0)

        await world.holds(await world.run_while(forget()))
        assert len(world.said("suspect")) == len(world.said("back")) == PARALLEL
        assert len(world.attempts()) == TRIALS

    play(body)


@three
def test_fault_15_a_single_job_that_a_scheduler_has_forgotten_is_run_again_and_its_first_result_does_not_count(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, long, changes={**LONG, "parallel": 1, "trials": 2}, site=RARELY)

        async def forget() -> None:
            await asyncio.sleep(200.0)
            with emptied(world):
                await asyncio.sleep(700.0)

        await world.holds(await world.run_while(forget()), once=False)
        assert [each.number for each in world.attempts()] == [1, 2, 1]

    play(body)


@three
def test_fault_16_a_job_that_is_unknown_once_and_back_in_the_next_list_is_no_loss(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="query", kind="missing-job", calls=[2, 4])])
        await world.holds(await world.run())
        assert world.plan.happened["query", "missing-job"] == 2
        assert len(world.attempts()) == TRIALS

    play(body)


@pytest.mark.parametrize("kind", [*THREE, "slurm-noacct", "pbs-nohistory"])
def test_fault_17_a_job_that_ended_and_was_purged_between_two_polls_is_complete(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, keep_finished=0.0)
        assert await killed(world, seconds=200.0)
        await world.idle(2 * HOUR)
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@three
@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        ("out of memory", Verdict.OUT_OF_MEMORY),
        ("node lost", Verdict.NODE_FAILURE),
        ("killed", Verdict.FAILED),
        ("cancelled", Verdict.CANCELLED),
    ],
)
def test_fault_18_of_a_purged_job_without_a_result_history_tells_why(
    tmp_path: Path, kind: str, end: str, verdict: Verdict
) -> None:
    runs = {
        "out of memory": Run(duration=900.0, out_of_memory=400.0),
        "killed": Run(duration=900.0, agent_dies=400.0),
    }

    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        first = order["number"] == 0 and attempt == 1
        return runs.get(end, train(order, params, attempt)) if first else train(order, params, attempt)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, program, keep_finished=0.0)
        assert await killed(world, seconds=300.0)
        (job,) = [job for job in world.running() if job.wish.name == Ledger(world.folder).attempts("00000")[0].tag]
        if end == "node lost":
            world.cluster.fail_node(job.nodes[0], back_after=600.0)
        elif end == "cancelled":
            assert world.cluster.cancel(job)
        await world.idle(2 * HOUR)
        record = await world.run()
        outcome = Ledger(world.folder).attempts("00000")[0].outcome
        assert outcome is not None
        assert outcome.verdict is verdict, outcome.reason
        assert outcome.reason
        await world.holds(record, once=False, failed=[each.number for each in record.trials if each.state == "failed"])
        assert record.trials[0].state == ("complete" if verdict is Verdict.NODE_FAILURE else "failed")

    play(body)


@pytest.mark.parametrize("kind", ["slurm-noacct", "pbs-nohistory", "pbs-wrapped"])
@pytest.mark.parametrize("deaths", [1, 3])
def test_fault_19_without_result_and_history_a_job_is_lost_after_the_grace_and_never_a_success(
    tmp_path: Path, kind: str, deaths: int
) -> None:
    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        dies = order["number"] == 1 and attempt <= deaths
        return Run(duration=900.0, agent_dies=400.0) if dies else train(order, params, attempt)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, program, keep_finished=0.0)
        record = await world.run()
        # `retry: lost` allows two further attempts.
        await world.holds(record, once=False, failed=[1] if deaths == 3 else [])
        verdicts = [each.outcome.verdict for each in Ledger(world.folder).attempts("00001") if each.outcome]
        assert verdicts[:deaths] == [Verdict.LOST] * deaths
        assert "neither a result nor a report" in (record.trials[1].reason if deaths == 3 else world.said("retry")[0])

    play(body)


@pytest.mark.parametrize("kind", ["pbs", "pbs-json"])
def test_fault_20_a_pbs_job_that_has_finished_is_found_in_the_history(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        killed_outright = of_trial(2, Run(duration=400.0, agent_dies=300.0))
        world = FaultWorld(tmp_path, kind, killed_outright, keep_finished=0.0)
        record = await world.run()
        await world.holds(record, failed=[2])
        assert record.trials[2].reason.startswith("failed (scheduler: Job run at")

    play(body)


@three
@pytest.mark.parametrize("spoilt", ["odd-word", "cut", "garbage", "half-list", "banner"])
def test_fault_21_lists_that_cannot_be_read_prove_nothing(tmp_path: Path, kind: str, spoilt: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="query", kind=spoilt, calls=[2, 4])])
        await world.holds(await world.run())
        assert world.plan.happened["query", spoilt]
        assert len(world.attempts()) == TRIALS

    play(body)


@three
def test_fault_22_a_job_that_is_held_for_hours_is_told_in_the_schedulers_words_and_not_given_up(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, queue_wait=lambda _job: 100.0)
        driver: StudyDriver = world.driver()
        shown: list[str] = []

        async def hold() -> None:
            await asyncio.sleep(50.0)
            job = next(job for job in world.cluster.live() if job.phase is Phase.QUEUED)
            world.cluster.hold(job)
            await asyncio.sleep(2 * HOUR)
            shown.extend(trial.reason for trial in driver.record.trials if trial.state == "running")
            world.cluster.release(job)

        record, _ = await asyncio.gather(driver.run(), hold())
        await world.holds(record)
        assert any("hold" in words.lower() or "hld" in words.lower() or "held" in words.lower() for words in shown)
        assert len(world.attempts()) == TRIALS

    play(body)


@three
@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.QUEUED])
def test_fault_23_a_job_that_somebody_cancels_fails_its_trial_and_frees_the_slot(
    tmp_path: Path, kind: str, phase: Phase
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, queue_wait=lambda _job: 300.0 if phase is Phase.QUEUED else 0.0)

        def cancel() -> None:
            tag = Ledger(world.folder).attempts("00001")[0].tag
            (job,) = world.cluster.named(tag)
            assert job.phase is phase
            assert world.cluster.cancel(job)

        record = await world.run_while(after(200.0, cancel))
        await world.holds(record, failed=[1])
        assert record.trials[1].verdict == "cancelled"

    play(body)


@three
def test_fault_23_all_jobs_cancelled_at_once_cost_these_trials_and_no_others(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)

        def cancel() -> None:
            for job in world.running():
                assert world.cluster.cancel(job)

        record = await world.run_while(after(200.0, cancel))
        await world.holds(record, failed=range(PARALLEL))

    play(body)
