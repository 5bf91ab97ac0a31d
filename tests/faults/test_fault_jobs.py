"""Faults 24 to 34: what goes wrong on the node. What is no sound result is never one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_world import THREE, TRIALS, FaultWorld, emptied, of_trial, play, study, train

from orchestrator.agent import RESULT_LIMIT
from orchestrator.model import Verdict
from orchestrator.simulate.batchjob import BatchJob, Phase
from orchestrator.simulate.clock import VirtualClock
from orchestrator.simulate.programs import Run

three = pytest.mark.parametrize("kind", THREE)


@three
@pytest.mark.parametrize(
    ("run", "words"),
    [
        (Run(duration=300.0, exit_code=1), "exit code 1"),
        (Run(duration=300.0, signal=11), "signal 11"),
        (Run(duration=300.0, out_of_memory=200.0), "memory"),
    ],
    ids=["exit 1", "segfault", "out of memory"],
)
def test_fault_24_a_program_that_fails_fails_its_trial_with_the_reason_and_the_search_goes_on(
    tmp_path: Path, kind: str, run: Run, words: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, of_trial(2, run))
        record = await world.run()
        await world.holds(record, once=run.out_of_memory is None, failed=[2])
        assert words in record.trials[2].reason

    play(body)


@three
@pytest.mark.parametrize("heeds", [True, False])
def test_fault_25_a_program_over_its_walltime_times_out_and_half_a_result_is_none(
    tmp_path: Path, kind: str, heeds: bool
) -> None:
    endless = Run(duration=1e6, result='{"metrics": {"m": 0.1', result_at=100.0, heeds_signals=heeds, heeds_stop=False)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, of_trial(1, endless))
        record = await world.run()
        await world.holds(record, failed=[1])
        assert record.trials[1].verdict == "timeout"

    play(body)


BAD = {
    '{"metrics": {"m": NaN}}': "not a finite number",
    '{"metrics": {"m": Infinity}}': "not a finite number",
    '{"metrics": {"m": "0.5"}}': "not a finite number",
    '{"metrics": {"m": [0.1, 0.2]}}': "not a finite number",
    '{"metrics": {"m": null}}': "not a finite number",
    '{"metrics": {"n": 0.5}}': "no metric 'm'",
    '{"m": 0.5}': 'no "metrics"',
    '{"metrics": {"m": 0.5, "m": 0.1}}': "twice",
    '{"metrics": {"m": 0.5}, "info": "' + "x" * RESULT_LIMIT + '"}': "too long",
}


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=[text[:32] for text in BAD])
def test_fault_26_a_result_that_is_no_finite_number_fails_the_trial_by_name(
    tmp_path: Path, text: str, words: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, "slurm", of_trial(2, Run(duration=300.0, result=text)))
        record = await world.run()
        await world.holds(record, failed=[2])
        assert words in record.trials[2].reason

    play(body)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"metrics": {"m": 0.5', "not whole JSON"),
        ("", "empty"),
        ('{"tag": "t00002-another0", "metrics": {"m": 0.5}}', "of another attempt"),
    ],
    ids=["truncated", "empty", "another's"],
)
@pytest.mark.parametrize(("kind", "reported"), [("slurm", True), *((kind, False) for kind in THREE)])
def test_fault_27_a_torn_or_foreign_result_is_no_result(
    tmp_path: Path, kind: str, text: str, words: str, reported: bool
) -> None:
    torn = Run(duration=900.0, result=text, result_at=200.0, agent_dies=None if reported else 300.0)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, of_trial(2, torn))
        record = await world.run()
        await world.holds(record, once=reported, failed=[2])
        assert words in record.trials[2].reason or not reported

    play(body)


@three
@pytest.mark.parametrize("lag", [5.0, 60.0, 200.0])
def test_fault_28_a_result_that_shows_up_after_its_job_has_left_the_queue_is_complete(
    tmp_path: Path, kind: str, lag: float
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, files_lag=lag, keep_finished=0.0)
        await world.holds(await world.run())
        assert len(world.attempts()) == TRIALS

    play(body)


@three
def test_fault_29_a_program_that_ends_well_without_a_result_has_failed(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, of_trial(2, Run(duration=300.0)))
        record = await world.run()
        await world.holds(record, failed=[2])
        assert record.trials[2].reason == "the program ended with exit code 0, but the program wrote no result.json"

    play(body)


@three
@pytest.mark.parametrize(("exit_code", "signal", "words"), [(3, 0, "exit code 3"), (0, 11, "signal 11")])
def test_fault_30_a_whole_result_counts_though_the_program_crashed_afterwards_and_the_record_says_so(
    tmp_path: Path, kind: str, exit_code: int, signal: int, words: str
) -> None:
    def crashes(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        return Run(duration=300.0, exit_code=exit_code, signal=signal, metrics=train(order, params, attempt).metrics)

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, crashes)
        record = await world.run()
        await world.holds(record)
        assert all(words in trial.reason and "afterwards" in trial.reason for trial in record.trials)

    play(body)


def first_is_slow_and_wrong(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    again = train(order, params, attempt)
    return Run(duration=6000.0, metrics={"m": -1.0}) if attempt == 1 and order["number"] < 3 else again


@three
def test_fault_31_an_attempt_that_was_given_up_and_ends_after_its_successor_counts_for_nothing(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, first_is_slow_and_wrong)

        async def forget() -> None:
            await asyncio.sleep(200.0)
            with emptied(world):
                await asyncio.sleep(1200.0)

        record = await world.run_while(forget())
        await world.holds(record, once=False)
        given_up = [each for each in world.attempts() if each.outcome and each.outcome.verdict is Verdict.LOST]
        assert len(given_up) == 3
        late = [one for one in world.executions if one.tag in {each.tag for each in given_up}]
        assert [one.how for one in late] == ["finished"] * 3

    play(body)


@three
def test_fault_32_of_two_copies_of_one_job_only_one_runs_the_program(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, queue_wait=lambda _job: 100.0)
        copies: list[BatchJob] = []

        async def double() -> None:
            await asyncio.sleep(50.0)
            waiting = [job for job in world.cluster.live() if job.phase is Phase.QUEUED]
            copies.extend(world.cluster.submit(copy.copy(job.wish)) for job in waiting)

        await world.holds(await world.run_while(double()))
        assert len(copies) == 3
        assert all(job.started is not None and job.fate is not None for job in copies)

    play(body)


class _Wrong(VirtualClock):
    """A machine whose clock can be set."""

    offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset


@three
@pytest.mark.parametrize("skew", [-600.0, 600.0])
def test_fault_33_clocks_of_site_and_driver_may_differ(tmp_path: Path, kind: str, skew: float) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, skew=skew)
        await world.holds(await world.run())
        assert not world.said("retry")

    play(body)


@three
@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_fault_33_a_driver_whose_clock_is_set_in_mid_study_ends_nothing_too_early(
    tmp_path: Path, kind: str, step: float
) -> None:
    async def body() -> None:
        clock = _Wrong()
        world = FaultWorld(tmp_path, kind, clock=clock)

        async def set_the_clock() -> None:
            await asyncio.sleep(300.0)
            clock.offset = step
            world.transport._skew = -step  # the site's clock is right, as it was

        await world.holds(await world.run_while(set_the_clock()))
        assert not world.said("retry")
        assert len(world.attempts()) == TRIALS

    play(body)


@three
def test_fault_34_folders_of_finished_trials_that_a_purge_took_are_not_missed(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        await world.run(study(trials=4))
        for number in range(4):
            world.transport.files.remove(f"{world.folder}/trials/{number:05d}")
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)
