"""One job's life in the session: submits that are unclear, drivers that end, attempts that follow."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from world import JOB, World, world

from orchestrator.config.site import BatchOptions
from orchestrator.errors import Paused
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.model import Answer, Job, JobEnd, Verdict
from orchestrator.schedulers.base import Refused, Submitted, Unclear
from orchestrator.simulate.clock import VirtualClock
from orchestrator.store.ledger import Ledger


def test_the_intent_is_on_disk_before_anything_is_submitted(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        def at_submit(_request: object) -> None:
            (attempt,) = w.attempts()
            assert attempt.job_id is None
            assert json.loads(w.transport.files[f"{w.directory()}/params.json"]) == {"lr": 0.5}
            assert json.loads(w.transport.files[f"{w.directory()}/job.json"])["tag"] == attempt.tag

        w.scheduler.on_submit = at_submit
        outcome = await w.run(acts={5.0: w.ends})
        assert outcome.succeeded
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_job_that_has_ended_is_not_run_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        first = await w.run(acts={5.0: w.ends})
        assert await w.run() == first
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_running_job_is_found_again_by_the_next_driver(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await w.killed_after(10.0)
        assert (await w.run(acts={5.0: w.ends})).succeeded
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_job_that_ended_while_no_driver_ran_is_collected(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await w.killed_after(10.0)
        w.ends()
        w.scheduler.set("1", Answer.ABSENT)
        assert (await w.run()).succeeded
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_an_unclear_submit_that_was_taken_is_adopted_by_its_name(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.scheduler.on_submit = lambda request: w.scheduler.by_tag.update({request.tag: ("41",)})
        outcome = await w.run(acts={30.0: w.ends})
        assert outcome.succeeded
        assert outcome.job_id == "41"
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_an_unclear_submit_whose_job_shows_up_late_is_adopted_all_the_same(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        tags: list[str] = []
        w.scheduler.on_submit = lambda request: tags.append(request.tag)
        outcome = await w.run(acts={1.2: lambda: w.scheduler.by_tag.update({tags[0]: ("41",)}), 30.0: w.ends})
        assert outcome.job_id == "41"
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_an_unclear_submit_that_was_not_taken_is_fenced_and_followed_by_one_attempt(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out"), Submitted(job_id="42")]
        outcome = await w.run(acts={60.0: lambda: w.ends(2)})
        assert outcome.succeeded
        first, second = w.attempts()
        assert NEVER_RAN in first.notes
        assert w.transport.claims[w.directory(1)]["by"] == "driver"
        assert first.tag != second.tag

    world(tmp_path, body)


def test_a_look_up_that_fails_proves_nothing_and_submits_nothing(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.scheduler.trusted = False
        with pytest.raises(TimeoutError):
            await w.run()
        assert len(w.scheduler.submits) == 1
        assert w.transport.claims == {}

    world(tmp_path, body)


def test_a_submit_that_was_taken_twice_leaves_one_job(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.scheduler.on_submit = lambda request: w.scheduler.by_tag.update({request.tag: ("41", "43")})
        assert (await w.run(acts={30.0: w.ends})).job_id == "41"
        assert ("cancel", "43") in w.transport.commands

    world(tmp_path, body)


def test_a_driver_that_died_between_plan_and_submit_runs_the_trial_once(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        Ledger(tmp_path).plan("00000", tag="t00000-aaaaaaaa", fence="1", params={"lr": 0.5}, now=VirtualClock().now())
        assert (await w.run(acts={60.0: lambda: w.ends(2)})).succeeded
        assert [attempt.notes for attempt in w.attempts()] == [(NEVER_RAN,), ()]
        assert [request.tag for request in w.scheduler.submits] == [w.attempts()[1].tag]

    world(tmp_path, body)


def test_a_job_found_only_by_its_claim_is_watched_by_its_files(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        Ledger(tmp_path).plan("00000", tag="t00000-aaaaaaaa", fence="1", params={}, now=VirtualClock().now())
        w.transport.claims[w.directory()] = {"tag": "t00000-aaaaaaaa", "by": "agent", "job_id": ""}
        assert (await w.run(acts={60.0: w.ends})).succeeded
        assert w.scheduler.submits == []

    world(tmp_path, body)


def test_a_queue_limit_throttles_and_is_no_failure(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        full = Refused(reason="job submit limit", later=True)
        w.scheduler.replies = [full, full, full, Submitted(job_id="9")]
        assert (await w.run(acts={300.0: w.ends})).succeeded
        assert len(w.attempts()) == 1
        assert len({request.tag for request in w.scheduler.submits}) == 1

    world(tmp_path, body)


def test_a_refusal_pauses_with_the_schedulers_words_and_the_next_run_tries_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Refused(reason="invalid partition specified: gup")]
        with pytest.raises(Paused, match="invalid partition specified: gup"):
            await w.run()
        assert (await w.run(acts={30.0: lambda: w.ends(2)})).succeeded

    world(tmp_path, body)


@pytest.mark.parametrize(
    ("end", "attempts"),
    [(Verdict.NODE_FAILURE, 4), (Verdict.PREEMPTED, 6), (Verdict.CANCELLED, 1), (Verdict.TIMEOUT, 1)],
)
def test_the_verdict_decides_how_often_an_attempt_is_followed_by_another(
    tmp_path: Path, end: Verdict, attempts: int
) -> None:
    async def body(w: World) -> None:
        for number in range(1, 12):
            w.scheduler.set(str(number), Answer.ENDED, end=JobEnd(verdict=end, reason=str(end)))
        outcome = await w.run()
        assert outcome.verdict is end
        assert len(w.attempts()) == attempts
        assert len(w.scheduler.submits) == attempts

    world(tmp_path, body)


def test_a_failing_program_is_not_run_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        outcome = await w.run(acts={5.0: w.fails})
        assert outcome.verdict is Verdict.FAILED
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_an_attempt_that_is_given_up_unclaimed_can_never_start_late(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        for number in range(1, 12):
            w.scheduler.set(str(number), Answer.ABSENT)
        outcome = await w.run()
        assert outcome.verdict is Verdict.LOST
        assert all(w.transport.claims[w.directory(n)]["by"] == "driver" for n in range(1, len(w.attempts()) + 1))

    world(tmp_path, body)


@pytest.mark.parametrize(("verb", "runs_again"), [("abort", True), ("cancel", True), ("invalidate", False)])
def test_abort_and_cancel_run_again_next_time_and_invalidate_never(tmp_path: Path, verb: str, runs_again: bool) -> None:
    async def body(w: World) -> None:
        async with w.session() as session:
            (task,) = session.submit(JOB)
            await asyncio.sleep(5.0)

            def cancelled() -> None:
                if ("cancel", "1") in w.transport.commands:
                    w.transport.end(w.directory(), w.attempts()[0].tag, None, cause="signalled", signal=15)

            asyncio.get_running_loop().call_later(1.0, cancelled)
            await getattr(session, verb)("00000")
            assert (await task).verdict is Verdict.CANCELLED
        if runs_again:
            assert (await w.run(acts={5.0: lambda: w.ends(2)})).succeeded
        else:
            assert (await w.run()).verdict is Verdict.CANCELLED
        assert len(w.scheduler.submits) == 1 + runs_again

    world(tmp_path, body)


def test_cancel_forgets_a_job_that_has_succeeded_and_abort_does_not(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await w.run(acts={5.0: w.ends})
        async with w.session() as session:
            await session.abort("00000")
        await w.run()
        assert len(w.scheduler.submits) == 1
        async with w.session() as session:
            await session.cancel("00000")
        await w.run(acts={5.0: lambda: w.ends(2)})
        assert len(w.scheduler.submits) == 2

    world(tmp_path, body)


def test_no_more_jobs_than_the_limit_are_in_flight(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        jobs = [Job(key=f"j{number}", command=("true",), metrics=("m",), number=number) for number in range(10)]
        most = 0

        async def end_one_by_one() -> None:
            nonlocal most
            for number in range(10):
                await asyncio.sleep(5.0)
                most = max(most, len(w.scheduler.submits) - number)
                w.ends(key=f"j{number}")

        async with w.session(limit=3) as session:
            script = asyncio.create_task(end_one_by_one())
            ended = [job.key async for job, _ in session.as_completed(jobs)]
            await script
        assert most == 3
        assert ended == [f"j{number}" for number in range(10)]

    world(tmp_path, body)


def test_a_look_up_that_stays_untrusted_tells_its_reason_once(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.scheduler.trusted = False
        with pytest.raises(TimeoutError):
            await w.run()
        told = [words for words in w.told("waiting") if "cannot be looked up" in words]
        assert len(told) == 1
        assert "slurm_load_jobs error" in told[0]

    world(tmp_path, body)


def test_a_driver_that_comes_back_to_many_jobs_looks_them_all_up_at_once(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        for n in range(20):
            Ledger(tmp_path).plan(f"j{n}", tag=f"t{n:05d}-aaaaaaaa", fence="1", params={}, now=VirtualClock().now())
            w.scheduler.by_tag[f"t{n:05d}-aaaaaaaa"] = (str(n),)
        async with w.session() as session:
            session.submit(*(Job(key=f"j{n}", command=("true",)) for n in range(20)))
            await asyncio.sleep(10.0)
        finds = [argv for argv in w.transport.commands if argv[0] == "find"]
        assert len(finds) <= 2
        assert w.scheduler.submits == []
        assert [w.attempts(f"j{n}")[0].job_id for n in range(20)] == [str(n) for n in range(20)]

    world(tmp_path, body)


def test_a_job_that_is_stuck_is_known_with_the_scheduler_s_words_until_it_moves(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.set("1", Answer.ALIVE, word="PENDING", reason="BadConstraints", stuck=True)
        async with w.session() as session:
            session.submit(JOB)
            await asyncio.sleep(30.0)
            assert session.stuck == {"00000": "PENDING: BadConstraints"}
            assert [event["stuck"] for event in w.events if event["event"] == "state"] == [True]
            w.scheduler.set("1", Answer.UNKNOWN)
            await asyncio.sleep(60.0)
            assert "00000" in session.stuck
            w.scheduler.set("1", Answer.ALIVE, word="RUNNING")
            await asyncio.sleep(60.0)
            assert session.stuck == {}

    world(tmp_path, body)


def test_a_template_of_the_study_lies_beside_study_yaml(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        (tmp_path / "origin" / "my").mkdir(parents=True)
        (tmp_path / "origin" / "my" / "job.sh.j2").write_text("#!/bin/sh\n# of the study\n")
        batch = BatchOptions(template="my/job.sh.j2")
        async with w.session(batch=batch, origin=tmp_path / "origin") as session:
            session.submit(JOB)
            await asyncio.sleep(5.0)
        assert b"# of the study" in w.transport.files[f"{w.directory()}/job.sh"]

    world(tmp_path, body)
