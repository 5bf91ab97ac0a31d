"""An agent that was ended by a signal: by what the scheduler says its attempt has ended, or goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from world import JOB, World, world

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Outcome, Verdict

HOUR = 3600.0
FAILED = JobEnd(verdict=Verdict.FAILED, reason="FAILED (NonZeroExitCode)")


def signalled(w: World) -> None:
    """The agent has passed a SIGTERM on, and reported."""
    w.transport.end(
        w.directory(), w.attempts()[0].tag, None, cause="signalled", signal=15, exit_code=None, message="got SIGTERM"
    )


def said(w: World, answer: Answer, state: JobState, *, end: JobEnd | None = None) -> None:
    """What the scheduler's list says of the job from now on."""
    w.scheduler.answers["1"] = JobStatus(job_id="1", answer=answer, state=state, word=str(state), end=end)


def remembered(w: World, *, exit_code: int, restarts: int) -> None:
    """What history says of the job from now on."""
    end = JobEnd(verdict=Verdict.FAILED, exit_code=exit_code, reason=f"FAILED {exit_code}:0")
    w.scheduler.past["1"] = JobStatus(job_id="1", answer=Answer.ENDED, state=JobState.ENDED, end=end, restarts=restarts)


def starts_again(w: World) -> None:
    """The second start's agent takes the claim over, and removes the report of the first."""
    said(w, Answer.ALIVE, JobState.RUNNING)
    del w.transport.seen[w.directory()]


async def after(w: World, *scenes: tuple[float, Callable[[], None]]) -> Outcome:
    return await w.run(acts=dict(scenes))


def test_a_signalled_job_that_ends_and_waits_for_hours_goes_on_as_the_same_attempt(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        def requeued() -> None:
            signalled(w)
            said(w, Answer.ALIVE, JobState.ENDING)

        outcome = await after(
            w,
            (10.0, requeued),
            (600.0, lambda: said(w, Answer.ALIVE, JobState.QUEUED)),
            (3 * HOUR, lambda: starts_again(w)),
            (4 * HOUR, w.ends),
        )
        assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 1)
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_requeued_job_that_waits_is_asked_after_no_more_often_than_any_other(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with w.session() as session:
            task = asyncio.create_task(session.run(JOB))
            await asyncio.sleep(60.0)
            signalled(w)
            said(w, Answer.ALIVE, JobState.QUEUED)
            await asyncio.sleep(HOUR)
            queries = sum(argv[0] == "query" for argv in w.transport.commands)
            assert queries <= (HOUR + 60.0) / w.site.poll.query_max + 20
            task.cancel()

    world(tmp_path, body)


def test_a_signal_is_not_explained_while_the_scheduler_cannot_be_asked(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        def outage() -> None:
            signalled(w)
            said(w, Answer.UNKNOWN, JobState.UNKNOWN)

        preempted = JobEnd(verdict=Verdict.PREEMPTED, reason="PREEMPTED")
        outcome = await after(
            w,
            (10.0, outage),
            (HOUR, lambda: said(w, Answer.ENDED, JobState.ENDED, end=preempted)),
            (2 * HOUR, lambda: w.ends(2)),
        )
        first, _ = w.attempts()
        assert first.outcome is not None
        assert first.outcome.verdict is Verdict.PREEMPTED
        assert outcome.succeeded

    world(tmp_path, body)


@pytest.mark.parametrize("lag", [0.1, 3.0])
def test_a_job_that_could_not_be_launched_again_is_lost_and_not_cancelled(tmp_path: Path, lag: float) -> None:
    async def body(w: World) -> None:
        def launch_failed() -> None:
            signalled(w)
            said(w, Answer.ENDED, JobState.ENDED, end=FAILED)

        outcome = await after(
            w,
            (10.0, launch_failed),
            (10.0 + lag, lambda: remembered(w, exit_code=1, restarts=1)),
            (HOUR, lambda: w.ends(2)),
        )
        first, _ = w.attempts()
        assert first.outcome is not None
        assert first.outcome.verdict is Verdict.LOST
        assert "started the job again" in first.outcome.reason
        assert "FAILED 1:0" in first.outcome.reason
        assert outcome.succeeded

    world(tmp_path, body)


def test_a_job_whose_agent_was_signalled_by_hand_is_cancelled_and_not_run_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        def killed() -> None:
            signalled(w)
            said(w, Answer.ENDED, JobState.ENDED, end=FAILED)
            remembered(w, exit_code=143, restarts=0)

        outcome = await after(w, (10.0, killed))
        assert outcome.verdict is Verdict.CANCELLED
        assert "SIGTERM" in outcome.reason
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


@pytest.mark.parametrize("answer", [Answer.ENDED, Answer.ABSENT])
def test_without_history_a_signal_is_believed_when_the_job_has_been_gone_for_long(
    tmp_path: Path, answer: Answer
) -> None:
    async def body(w: World) -> None:
        w.scheduler.keeps_history = False

        def gone() -> None:
            signalled(w)
            said(w, answer, JobState.ENDED, end=FAILED if answer is Answer.ENDED else None)

        outcome = await after(w, (10.0, gone))
        assert outcome.verdict is Verdict.CANCELLED
        assert "SIGTERM" in outcome.reason

    world(tmp_path, body)


def test_a_job_that_runs_on_without_its_agent_keeps_no_slot_for_ever(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        outcome = await after(w, (10.0, lambda: signalled(w)))
        assert outcome.verdict is Verdict.CANCELLED

    world(tmp_path, body)
