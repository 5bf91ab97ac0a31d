"""Packed jobs: several attempts in one batch job, each with an end of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from orchestrator.config.site import BatchOptions, Queue
from orchestrator.jobs.early import Early, Wish
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.jobs.session import Session
from orchestrator.model import Answer, Job, Outcome, Resources, Verdict
from orchestrator.schedulers.base import Refused, Submitted, Unclear
from orchestrator.simulate.clock import VirtualClock
from orchestrator.store.ledger import Ledger

NODE = Queue(name="node", unit="node", gpus_per_unit=4, cores_per_unit=40)


def jobs(count: int, **resources: Any) -> list[Job]:
    needs = Resources(gpus=1, **resources)
    return [Job(key=f"j{n}", command=("true",), metrics=("m",), number=n, resources=needs) for n in range(count)]


def packed(w: World, pack: Any = "auto", **options: Any) -> Session:
    w.site = w.site.model_copy(update={"queues": (NODE,)})
    return w.session(batch=BatchOptions(pack=pack, pack_wait=60.0), **options)


def directories(w: World, submit: int) -> str:
    return w.transport.files[w.scheduler.submits[submit].script].decode()


def tags(w: World, count: int) -> list[str]:
    return [w.attempts(f"j{n}")[-1].tag for n in range(count)]


def test_a_full_node_goes_at_once_and_carries_every_attempt(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        begun = VirtualClock().now()

        def at_submit(_request: object) -> None:
            first = w.attempts("j0")[0].tag
            for n in range(4):
                (attempt,) = w.attempts(f"j{n}")
                assert (attempt.job_name, attempt.packed, attempt.job_id) == (first, 4, None)
                assert f"{w.directory(key=f'j{n}')}/job.json" in w.transport.files

        w.scheduler.on_submit = at_submit
        async with packed(w) as session:
            session.submit(*jobs(4))
            await asyncio.sleep(1.0)
            (request,) = w.scheduler.submits
            assert (request.tag, request.gpus, request.array) == (w.attempts("j0")[0].tag, 4, None)
            assert all(w.directory(key=f"j{n}") in directories(w, 0) for n in range(4))
            assert {w.attempts(f"j{n}")[0].job_id for n in range(4)} == {"1"}
        assert VirtualClock().now() - begun < 10.0

    world(tmp_path, body)


def test_a_node_that_is_not_filled_goes_when_the_wait_is_over(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            session.submit(*jobs(3))
            await asyncio.sleep(59.0)
            assert w.scheduler.submits == []
            await asyncio.sleep(2.0)
            (request,) = w.scheduler.submits
            assert request.gpus == 3
            assert w.attempts("j0")[0].packed == 3

    world(tmp_path, body)


def test_no_job_waits_for_more_attempts_than_may_be_in_flight(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w, limit=2) as session:
            session.submit(*jobs(3))
            await asyncio.sleep(1.0)
            assert [request.gpus for request in w.scheduler.submits] == [2]

    world(tmp_path, body)


def test_attempts_of_other_resources_do_not_share_a_job(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            longer = Job(key="x", command=("true",), resources=Resources(gpus=1, walltime=7200))
            session.submit(*jobs(2), longer)
            await asyncio.sleep(61.0)
            assert sorted(request.gpus for request in w.scheduler.submits) == [1, 2]

    world(tmp_path, body)


def test_each_attempt_is_told_as_it_ends_though_its_job_runs_on(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            tasks = session.submit(*jobs(4))
            await asyncio.sleep(10.0)
            w.ends(key="j2")
            await asyncio.sleep(10.0)
            assert [task.done() for task in tasks] == [False, False, True, False]
            assert tasks[2].result().succeeded

    world(tmp_path, body)


def test_a_query_names_the_job_of_several_attempts_once(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            session.submit(*jobs(8))
            await asyncio.sleep(120.0)
        queries = [argv for argv in w.transport.commands if argv[0] == "query"]
        assert all(len(argv) == len(set(argv)) for argv in queries)
        assert queries[-1] == ("query", "1", "2")

    world(tmp_path, body)


def test_the_attempts_of_a_job_that_is_gone_each_get_their_verdict(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            tasks = session.submit(*jobs(2))
            await asyncio.sleep(70.0)
            w.ends(key="j0")
            w.transport.claims[w.directory(key="j1")] = {"tag": w.attempts("j1")[0].tag, "by": "agent", "job_id": "1"}
            w.scheduler.set("1", Answer.ABSENT)
            assert (await tasks[0]).succeeded
            await asyncio.sleep(200.0)
            first, *_ = w.attempts("j1")
            assert first.outcome is not None
            assert first.outcome.verdict is Verdict.LOST

    world(tmp_path, body)


async def killed(w: World, count: int, seconds: float) -> None:
    async with packed(w) as session:
        session.submit(*jobs(count))
        await asyncio.sleep(seconds)


async def finished(w: World, count: int) -> list[Outcome]:
    """The next driver, on a site where every attempt that has a job ends after a while."""

    async def ending() -> None:
        while True:
            await asyncio.sleep(50.0)
            for n in range(count):
                if (last := w.attempts(f"j{n}")[-1]).job_id is not None and last.outcome is None:
                    w.ends(last.number, key=f"j{n}")

    async with packed(w) as session:
        script = asyncio.create_task(ending())
        outcomes = await asyncio.wait_for(asyncio.gather(*session.submit(*jobs(count))), 86400.0)
        script.cancel()
    return outcomes


def test_a_packed_job_that_runs_is_found_again_by_the_next_driver(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await killed(w, 4, 10.0)
        assert all(outcome.succeeded for outcome in await finished(w, 4))
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_bundle_whose_submit_was_taken_before_the_driver_died_is_adopted_by_its_job_s_name(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.on_submit = lambda request: w.scheduler.by_tag.update({request.tag: ("41",)})
        w.transport.takes["submit"] = 30.0
        await killed(w, 4, 10.0)
        assert [w.attempts(f"j{n}")[0].job_id for n in range(4)] == [None] * 4
        w.scheduler.by_tag[w.attempts("j0")[0].tag] = ("41",)
        assert all(outcome.succeeded and outcome.job_id == "41" for outcome in await finished(w, 4))
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_driver_that_died_before_the_submit_of_a_bundle_runs_each_attempt_once(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await killed(w, 3, 30.0)
        assert w.scheduler.submits == []
        assert all(outcome.succeeded for outcome in await finished(w, 3))
        (request,) = w.scheduler.submits
        assert request.gpus == 3
        assert all(NEVER_RAN in w.attempts(f"j{n}")[0].notes for n in range(3))

    world(tmp_path, body)


def test_an_unclear_submit_of_a_bundle_is_settled_for_all_its_attempts_by_shared_look_ups(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.scheduler.on_submit = lambda request: w.scheduler.by_tag.update({request.tag: ("41", "43")})
        assert all(outcome.succeeded and outcome.job_id == "41" for outcome in await finished(w, 4))
        assert len(w.scheduler.submits) == 1
        assert len([argv for argv in w.transport.commands if argv[0] == "find"]) == 1
        assert {argv for argv in w.transport.commands if argv[0] == "cancel"} == {("cancel", "43")}

    world(tmp_path, body)


def test_an_unclear_submit_that_was_not_taken_is_fenced_and_the_bundle_goes_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out"), Submitted(job_id="42")]
        assert all(outcome.succeeded and outcome.job_id == "42" for outcome in await finished(w, 4))
        assert all(w.transport.claims[w.directory(1, f"j{n}")]["by"] == "driver" for n in range(4))
        assert Counter(request.gpus for request in w.scheduler.submits) == {4: 2}

    world(tmp_path, body)


def test_a_queue_limit_throttles_a_bundle_as_a_whole(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        full = Refused(reason="job submit limit", later=True)
        w.scheduler.replies = [full, full, Submitted(job_id="9")]
        assert all(outcome.succeeded for outcome in await finished(w, 4))
        assert len({request.tag for request in w.scheduler.submits}) == 1
        assert all(len(w.attempts(f"j{n}")) == 1 for n in range(4))

    world(tmp_path, body)


@pytest.mark.parametrize("verb", ["abort", "cancel", "invalidate"])
def test_ending_one_attempt_of_a_running_job_leaves_its_neighbours_alone(tmp_path: Path, verb: str) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            tasks = session.submit(*jobs(4))
            await asyncio.sleep(10.0)
            directory = w.directory(key="j1")
            tag = w.attempts("j1")[0].tag
            w.transport.claims[directory] = {"tag": tag, "by": "agent", "job_id": "1"}

            stop = asyncio.create_task(getattr(session, verb)("j1"))
            await asyncio.sleep(3.0)
            assert f"{directory}/cancel" in w.transport.files
            w.transport.end(directory, tag, None, cause="signalled", signal=15)
            await stop
            assert tasks[1].result().verdict is Verdict.CANCELLED
            assert not any(argv[0] == "cancel" for argv in w.transport.commands)
            assert [task.done() for task in tasks] == [False, True, False, False]

    world(tmp_path, body)


def test_ending_one_attempt_of_a_queued_job_takes_its_claim_and_nothing_else(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            tasks = session.submit(*jobs(4))
            await asyncio.sleep(10.0)
            await session.abort("j3")
            assert tasks[3].result().verdict is Verdict.CANCELLED
            assert w.transport.claims[w.directory(key="j3")]["by"] == "driver"
            assert not any(argv[0] == "cancel" for argv in w.transport.commands)

    world(tmp_path, body)


def test_ending_all_attempts_of_a_job_cancels_the_job(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            session.submit(*jobs(4))
            await asyncio.sleep(10.0)
            stop = asyncio.create_task(session.abort(*(f"j{n}" for n in range(4))))
            await asyncio.sleep(1.0)
            assert [argv for argv in w.transport.commands if argv[0] == "cancel"] == [("cancel", "1")]
            stop.cancel()

    world(tmp_path, body)


def test_an_attempt_whose_neighbours_are_not_taken_up_yet_is_not_ended_by_its_job(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await killed(w, 4, 10.0)
        async with packed(w) as session:
            session.submit(jobs(1)[0])
            await asyncio.sleep(1.0)
            await session.abort("j0")
            assert not any(argv[0] == "cancel" for argv in w.transport.commands)

    world(tmp_path, body)


def test_an_attempt_that_waits_for_company_can_be_taken_back(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            tasks = session.submit(*jobs(2))
            await asyncio.sleep(10.0)
            await session.abort("j0")
            assert tasks[0].result().verdict is Verdict.CANCELLED
            await asyncio.sleep(60.0)
            (request,) = w.scheduler.submits
            assert request.tag == w.attempts("j1")[0].tag

    world(tmp_path, body)


def test_an_attempt_asked_to_stop_early_stops_alone(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with packed(w) as session:
            session.submit(*jobs(4))
            await asyncio.sleep(10.0)
            await session.ask_to_stop("j1", Wish(how=Early.PRUNE, words="at step 3: not good"))
        assert [path for path in w.transport.files if path.endswith("/stop")] == [f"{w.directory(key='j1')}/stop"]
        assert not any(argv[0] == "cancel" for argv in w.transport.commands)

    world(tmp_path, body)


def test_a_ledger_written_before_packing_is_read(tmp_path: Path) -> None:
    Ledger(tmp_path).plan("j0", tag="t00000-aaaaaaaa", fence="1", params={}, now=1.0)
    path = tmp_path / "ledger" / "j0" / "attempt-1.json"
    text = path.read_text()
    for field in ('"job_name":"",', '"job_index":null,', '"packed":1,'):
        assert field in text
        text = text.replace(field, "")
    path.write_text(text)
    (attempt,) = Ledger(tmp_path).attempts("j0")
    assert (attempt.job_name, attempt.job_index, attempt.packed) == ("", None, 1)
