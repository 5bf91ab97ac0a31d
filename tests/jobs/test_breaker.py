"""Failures in a row pause a study; what is no failure, or comes in between, does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import JOB, World, world

from orchestrator.errors import Paused
from orchestrator.jobs.breaker import INSTANT, Breaker
from orchestrator.model import Attempt, Outcome, Verdict
from orchestrator.schedulers.base import Refused, Unclear


def ended(breaker: Breaker, verdict: Verdict, *seconds: float | None) -> None:
    for each in seconds:
        started, over = (None, None) if each is None else (100.0, 100.0 + each)
        breaker.ended(Outcome(key="00007", verdict=verdict, reason="exit code 127", started=started, ended=over))


def trips(breaker: Breaker) -> str:
    try:
        breaker.check()
    except Paused as paused:
        return paused.message
    return ""


def test_deaths_in_a_row_pause_and_the_last_one_s_reason_is_told() -> None:
    breaker = Breaker(deaths=3)
    ended(breaker, Verdict.FAILED, 0.1, 0.1)
    assert not trips(breaker)
    ended(breaker, Verdict.FAILED, 9.0)
    assert trips(breaker).startswith(
        "3 attempts in a row died within 10 s of their start; the last one: 00007: exit code 127"
    )


@pytest.mark.parametrize("between", [(Verdict.SUCCEEDED, 1.0), (Verdict.STOPPED, 1.0), (Verdict.FAILED, INSTANT)])
def test_a_result_or_a_failure_that_took_its_time_begins_the_count_anew(between: tuple[Verdict, float]) -> None:
    breaker = Breaker(deaths=2)
    ended(breaker, Verdict.FAILED, 0.1)
    ended(breaker, *between)
    ended(breaker, Verdict.FAILED, 0.1)
    assert not trips(breaker)


@pytest.mark.parametrize("verdict", [Verdict.CANCELLED, Verdict.PREEMPTED, Verdict.REQUEUE_REQUESTED])
def test_what_is_nobody_s_failure_is_neither_counted_nor_believed_to_be_well(verdict: Verdict) -> None:
    breaker = Breaker(deaths=2)
    ended(breaker, verdict, 0.1, 0.1)
    assert not trips(breaker)
    ended(breaker, Verdict.FAILED, 0.1)
    ended(breaker, verdict, 0.1)
    ended(breaker, Verdict.FAILED, 0.1)
    assert trips(breaker)


def test_a_job_that_failed_before_its_agent_began_died_at_once_and_one_that_vanished_may_have_run_for_hours() -> None:
    breaker = Breaker(deaths=2)
    ended(breaker, Verdict.LOST, None, None)
    assert not trips(breaker)
    ended(breaker, Verdict.FAILED, None, None)
    assert trips(breaker)


def test_submits_that_were_under_way_together_fail_once() -> None:
    breaker = Breaker(submits=2)
    for number, planned in enumerate((0.0, 0.5, 1.0)):
        attempt = Attempt(key=f"0000{number}", number=1, tag=f"t{number}", fence="", planned=planned)
        breaker.in_vain(attempt, "sbatch: Socket timed out", 60.0 + number)
    assert not trips(breaker)
    again = Attempt(key="00000", number=2, tag="t9", fence="", planned=62.0)
    breaker.in_vain(again, "sbatch: Socket timed out", 120.0)
    assert trips(breaker) == "2 submits in a row came to nothing; the last one: sbatch: Socket timed out"


def test_nothing_trips_a_breaker_that_has_no_limits() -> None:
    breaker = Breaker(submits=0, deaths=0)
    ended(breaker, Verdict.FAILED, *[0.1] * 50)
    assert not trips(breaker)


def test_submits_that_come_to_nothing_pause_the_study_and_the_next_run_goes_on(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="sbatch: Socket timed out")] * 5
        with pytest.raises(Paused, match=r"5 submits in a row came to nothing; .* Socket timed out"):
            await w.run()
        assert len(w.scheduler.submits) == 5
        outcome = await w.run(acts={100.0: lambda: w.ends(6)})
        assert (outcome.succeeded, outcome.attempts) == (True, 6)

    world(tmp_path, body)


def test_a_submit_that_is_taken_in_between_begins_the_count_anew(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        unclear = Unclear(reason="timed out")
        w.scheduler.replies = [unclear] * 4
        await w.killed_after(600.0)
        assert len(w.attempts()) == 5
        assert w.attempts()[-1].job_id is not None

    world(tmp_path, body)


def test_a_full_queue_is_waited_for_however_long_that_takes(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Refused(reason="QOSMaxSubmitJobPerUserLimit", later=True)] * 30
        outcome = await w.run(acts={3000.0: w.ends})
        assert (outcome.succeeded, outcome.attempts) == (True, 1)
        assert len(w.scheduler.submits) == 31

    world(tmp_path, body)


def test_jobs_that_die_at_once_pause_a_session_that_minds_and_what_has_ended_stays_so(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.on_submit = lambda _request: w.transport.end(
            w.directory(len(w.attempts())), w.attempts()[-1].tag, None, exit_code=127
        )
        async with w.session(breaker=Breaker(deaths=1)) as session:
            outcome = await session.run(JOB)
            assert outcome.verdict is Verdict.FAILED
            assert await session.run(JOB) == outcome
            with pytest.raises(Paused, match="1 attempts in a row died"):
                await session.run(type(JOB)(key="00001", command=("true",), metrics=("m",)))

    world(tmp_path, body)
