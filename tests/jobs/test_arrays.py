"""Array jobs: one submit for many attempts, each an element with an id and an end of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from orchestrator.config.site import BatchOptions, Limits, Queue
from orchestrator.errors import UsageError
from orchestrator.jobs.plain import Survey
from orchestrator.jobs.session import Session
from orchestrator.model import Answer, Job, Outcome, Resources
from orchestrator.schedulers.base import Refused, Scheduler, SchedulerOptions, Unclear
from orchestrator.schedulers.gridengine import GridEngine
from orchestrator.schedulers.local import Local
from orchestrator.schedulers.pbs import PBS
from orchestrator.schedulers.pjm import PJM
from orchestrator.schedulers.slurm import Slurm
from orchestrator.simulate.clock import VirtualClock
from orchestrator.transports.base import Completion

NODE = Queue(name="node", unit="node", gpus_per_unit=4, cores_per_unit=40)


def jobs(count: int) -> list[Job]:
    needs = Resources(gpus=1)
    return [Job(key=f"j{n}", command=("true",), metrics=("m",), number=n, resources=needs) for n in range(count)]


def opened(w: World, *, allowed: bool = True, limits: Limits | None = None, **options: Any) -> Session:
    changes: dict[str, Any] = {"array_allowed": allowed, "template": "slurm.sh.j2"}
    if limits is not None:
        changes["limits"] = limits
    w.site = w.site.model_copy(update=changes)
    return w.session(**options)


async def finished(w: World, count: int, session: Session) -> list[Outcome]:
    async def ending() -> None:
        while True:
            await asyncio.sleep(20.0)
            for n in range(count):
                last = (w.attempts(f"j{n}") or (None,))[-1]
                if last is not None and last.job_id is not None and last.outcome is None:
                    w.ends(last.number, key=f"j{n}")

    async with session:
        script = asyncio.create_task(ending())
        outcomes = await asyncio.wait_for(asyncio.gather(*session.submit_array(*jobs(count))), 86400.0)
        script.cancel()
    return outcomes


def test_jobs_that_are_ready_together_go_as_one_array_with_an_id_for_each(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        outcomes = await finished(w, 5, opened(w))
        (request,) = w.scheduler.submits
        assert request.array == 5
        assert [outcome.job_id for outcome in outcomes] == [f"1_{n}" for n in range(5)]
        name = w.attempts("j0")[0].tag
        assert [(w.attempts(f"j{n}")[0].job_name, w.attempts(f"j{n}")[0].job_index) for n in range(5)] == [
            (name, n) for n in range(5)
        ]
        assert "4) set -- " in w.transport.files[request.script].decode()

    world(tmp_path, body)


@pytest.mark.parametrize(("count", "allowed", "array"), [(5, False, "auto"), (3, True, "auto"), (5, True, False)])
def test_where_an_array_is_not_allowed_wanted_or_worth_it_jobs_go_one_by_one_silently(
    tmp_path: Path, count: int, allowed: bool, array: Any
) -> None:
    async def body(w: World) -> None:
        await finished(w, count, opened(w, allowed=allowed, batch=BatchOptions(array=array)))
        assert [request.array for request in w.scheduler.submits] == [None] * count
        assert w.told("waiting") == []

    world(tmp_path, body)


def test_two_jobs_are_enough_where_arrays_are_asked_for(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await finished(w, 2, opened(w, batch=BatchOptions(array=True)))
        assert [request.array for request in w.scheduler.submits] == [2]

    world(tmp_path, body)


def test_an_array_holds_no_more_elements_than_the_site_takes(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        limits = Limits(array_size=4, submits_per_minute=60, queries_per_minute=60)
        await finished(w, 10, opened(w, limits=limits))
        assert Counter(request.array for request in w.scheduler.submits) == {4: 2, None: 2}

    world(tmp_path, body)


def test_a_site_that_refuses_arrays_after_all_gets_single_jobs_and_is_not_asked_again(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Refused(reason="PJM 0070 No execute permission")]
        session = opened(w)
        outcomes = await finished(w, 4, session)
        assert all(outcome.succeeded for outcome in outcomes)
        assert [request.array for request in w.scheduler.submits] == [4, None, None, None, None]
        assert w.attempts("j3")[0].job_index is None
        assert session.expect_array(*[Job(key=f"k{n}", command=("true",)) for n in range(4)]) == 0

    world(tmp_path, body)


def test_elements_of_an_array_of_a_driver_that_died_are_found_by_the_array_s_name(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.scheduler.replies = [Unclear(reason="Socket timed out")]
        w.transport.takes["submit"] = 30.0
        async with opened(w) as session:
            session.submit_array(*jobs(4))
            await asyncio.sleep(10.0)
        name = w.attempts("j0")[0].tag
        w.scheduler.by_tag[name] = ("36_3", "36_[0-2]")
        outcomes = await finished(w, 4, opened(w))
        assert [outcome.job_id for outcome in outcomes] == [f"36_{n}" for n in range(4)]
        assert len(w.scheduler.submits) == 1
        assert not any(argv[0] == "cancel" for argv in w.transport.commands)

    world(tmp_path, body)


def test_one_element_is_cancelled_by_its_own_id(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with opened(w) as session:
            session.submit_array(*jobs(4))
            await asyncio.sleep(10.0)
            stop = asyncio.create_task(session.abort("j2"))
            await asyncio.sleep(1.0)
            assert [argv for argv in w.transport.commands if argv[0] == "cancel"] == [("cancel", "1_2")]
            stop.cancel()

    world(tmp_path, body)


def test_on_whole_nodes_each_element_is_a_packed_job(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.site = w.site.model_copy(update={"queues": (NODE,)})
        outcomes = await finished(w, 10, opened(w, batch=BatchOptions(pack="auto")))
        assert Counter((request.array, request.gpus) for request in w.scheduler.submits) == {(2, 4): 1, (None, 2): 1}
        assert [outcome.job_id for outcome in outcomes] == ["1_0"] * 4 + ["1_1"] * 4 + ["2"] * 2
        assert w.attempts("j5")[0].packed == 4

    world(tmp_path, body)


def test_an_array_does_not_wait_for_ever_for_a_job_that_never_comes(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        async with opened(w) as session:
            session.expect_array(*jobs(5))
            session.submit(*jobs(4))
            await asyncio.sleep(61.0)
            assert [request.array for request in w.scheduler.submits] == [4]

    world(tmp_path, body)


def test_a_plain_survey_sends_its_independent_jobs_as_an_array(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        changes = {"array_allowed": True, "template": "slurm.sh.j2"}
        site = w.site.model_copy(update=changes)
        inside = {"site": site, "transport": w.transport, "scheduler": w.scheduler, "clock": VirtualClock()}
        async with Survey(tmp_path, name="s", **inside) as survey:
            first = survey.prepare("a", command=["true"], params=[{"x": n} for n in range(4)])
            last = survey.prepare("b", command=["true"], depend_on=first)
            survey.submit_planned(*first, *last)
            await asyncio.sleep(5.0)
            assert [request.array for request in w.scheduler.submits] == [4]

    world(tmp_path, body)


@pytest.mark.parametrize(
    ("scheduler", "submitted", "element", "whole"),
    [
        (Slurm(), "36", "36_1", "36"),
        (PBS(), "16[]", "16[1]", "16[]"),
        (PJM(), "12345", "12345[1]", "12345"),
        (GridEngine(), "2", "2.2", "2"),
    ],
)
def test_each_scheduler_has_its_own_form_for_an_element(
    scheduler: Scheduler, submitted: str, element: str, whole: str
) -> None:
    assert scheduler.element(submitted, 1) == element
    assert scheduler.whole(element) == whole
    assert scheduler.whole(submitted) == submitted


@pytest.mark.parametrize("listed", ["16[]", "16[].pbs01", "16"])
def test_an_element_is_alive_as_long_as_a_list_that_shows_arrays_as_one_line_has_its_array(listed: str) -> None:
    scheduler = PBS(SchedulerOptions(extra={"dialect": "wrapped"}))
    said = f"JOB_ID JOB_NAME STATUS\n{listed} t00000-aaaaaaaa RUNNING\n"
    completion = Completion(argv=("qstat",), returncode=0, stdout=said)
    answers = scheduler.parse_query(completion, ["16[2]", "17[2]"])
    assert [status.answer for status in answers.values()] == [Answer.ALIVE, Answer.ABSENT]


def test_a_single_job_is_its_own_whole_and_the_local_scheduler_has_no_elements() -> None:
    assert [scheduler().whole("77") for scheduler in (Slurm, PBS, PJM, GridEngine, Local)] == ["77"] * 5
    with pytest.raises(UsageError, match="no array jobs"):
        Local().element("local-1-2-abcdef01", 0)
