"""The watcher's patience: what is a proof, what is not, and how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from scripted import ScriptedScheduler, ScriptedTransport

from orchestrator.errors import HeldByAnother
from orchestrator.jobs.collect import Remains
from orchestrator.jobs.watched import Cadence, Watched
from orchestrator.jobs.watcher import Watcher
from orchestrator.model import Answer, JobEnd, JobStatus, Verdict
from orchestrator.simulate.clock import VirtualClock, run_virtual

GRACE = 90.0
Act = Callable[[], None]


class Scene:
    """One watcher over scripted jobs, and what happens when."""

    def __init__(self) -> None:
        self.transport = ScriptedTransport()
        self.scheduler = ScriptedScheduler()
        self.clock = VirtualClock()
        self.troubles: list[str] = []
        self.suspects: list[float | None] = []
        self.states: list[JobStatus] = []
        self.progress: list[tuple[int, float]] = []
        self.watcher = Watcher(
            self.transport,
            self.scheduler,
            self.clock,
            Cadence(look=5.0, query_min=10.0, query_max=60.0, grace=GRACE),
            on_trouble=self.troubles.append,
        )

    def watched(self, job_id: str | None = "1", suspect_since: float | None = None) -> Watched:
        return Watched(
            tag=f"t-{job_id}",
            directory=f"/w/{job_id}",
            name=f"t-{job_id}",
            job_id=job_id,
            submitted=0.0,
            suspect_since=suspect_since,
            on_suspect=self.suspects.append,
            on_state=self.states.append,
            on_progress=lambda step, value: self.progress.append((step, value)),
        )

    async def play(
        self, *jobs: Watched, acts: dict[float, Act] | None = None, until: float = 3600.0
    ) -> list[Remains | None]:
        self.watcher.start()
        tasks = [asyncio.create_task(self.watcher.watch(job)) for job in jobs]

        async def act(at: float, what: Act) -> None:
            await asyncio.sleep(at)
            what()

        script = [asyncio.create_task(act(at, what)) for at, what in (acts or {}).items()]
        await asyncio.wait(tasks, timeout=until)
        results = [task.result() if task.done() else None for task in tasks]
        for task in (*tasks, *script):
            task.cancel()
        await self.watcher.stop()
        return results


def scene(body: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        await body(Scene())

    run_virtual(play())


def test_a_report_ends_the_watch_before_the_scheduler_says_anything() -> None:
    async def body(s: Scene) -> None:
        (remains,) = await s.play(s.watched(), acts={7.0: lambda: s.transport.end("/w/1", "t-1", {"m": 1.0})})
        assert remains is not None
        assert remains.report is not None
        assert remains.end is None
        assert all(argv[0] != "history" for argv in s.transport.commands)

    scene(body)


@pytest.mark.parametrize("answer", [Answer.UNKNOWN, Answer.ALIVE])
def test_unknown_and_alive_never_end_an_attempt(answer: Answer) -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", answer)
        assert await s.play(s.watched(), until=86400.0) == [None]
        assert s.suspects == []

    scene(body)


def test_an_absent_job_is_believed_gone_only_after_the_grace() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        begun = s.clock.now()
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.report is None
        assert len(s.suspects) == 1
        assert s.clock.now() - (s.suspects[0] or 0.0) >= GRACE
        assert s.clock.now() - begun < 3 * GRACE

    scene(body)


def test_a_job_that_comes_back_within_the_grace_is_not_lost() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        acts = {40.0: lambda: s.scheduler.set("1", Answer.ALIVE)}
        assert await s.play(s.watched(), acts=acts, until=7200.0) == [None]
        assert s.suspects[-1] is None

    scene(body)


def test_the_grace_that_a_former_driver_began_is_not_begun_again() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        begun = s.clock.now()
        (remains,) = await s.play(s.watched(suspect_since=begun - GRACE + 1.0))
        assert remains is not None
        assert s.clock.now() - begun < GRACE / 2

    scene(body)


def test_a_report_that_becomes_visible_late_is_still_taken() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ENDED, end=JobEnd(verdict=Verdict.SUCCEEDED))
        (remains,) = await s.play(s.watched(), acts={60.0: lambda: s.transport.end("/w/1", "t-1", {"m": 1.0})})
        assert remains is not None
        assert remains.report is not None

    scene(body)


def test_a_result_without_a_report_is_kept_for_the_end_of_the_grace() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        s.transport.seen["/w/1"] = {"result": '{"metrics": {"m": 1.0}}', "claim": {"by": "agent", "job_id": "1"}}
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.result == '{"metrics": {"m": 1.0}}'
        assert remains.claimed

    scene(body)


def test_history_answers_for_a_job_that_the_queue_has_forgotten() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        end = JobEnd(verdict=Verdict.NODE_FAILURE, reason="NODE_FAIL")
        s.scheduler.past["1"] = JobStatus(job_id="1", answer=Answer.ENDED, end=end)
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.end == end

    scene(body)


def test_all_jobs_gone_at_once_looks_like_an_outage_and_must_last_longer() -> None:
    async def body(s: Scene) -> None:
        for job_id in "12":
            s.scheduler.set(job_id, Answer.ABSENT)
        begun = s.clock.now()
        await s.play(s.watched("1"), s.watched("2"))
        assert s.clock.now() - begun >= 3 * GRACE

    scene(body)


def test_one_query_a_cycle_serves_any_number_of_jobs_and_grows_rarer() -> None:
    async def body(s: Scene) -> None:
        await s.play(*(s.watched(str(number)) for number in range(50)), until=3600.0)
        queries = [argv for argv in s.transport.commands if argv[0] == "query"]
        assert all(len(argv) == 51 for argv in queries)
        assert 3600 / 66 <= len(queries) <= 3600 / 50

    scene(body)


def test_an_attempt_without_a_job_id_learns_it_from_the_claim() -> None:
    async def body(s: Scene) -> None:
        job = s.watched(None)
        s.transport.claims["/w/None"] = {"by": "agent", "job_id": "77"}
        await s.play(job, until=30.0)
        assert job.job_id == "77"

    scene(body)


def test_progress_of_another_form_is_passed_over() -> None:
    async def body(s: Scene) -> None:
        lines = '{"step": 1, "value": 0.5}\nnot json\n{"step": "x", "value": 1}\n{"step": 2, "value": true}\n[1]\n{"step": 3, "value": 2}\n'
        s.transport.seen["/w/1"] = {"progress": lines}
        await s.play(s.watched(), until=2.0)
        assert s.progress == [(1, 0.5), (3, 2.0)]

    scene(body)


def test_an_odd_cycle_is_told_and_proves_nothing() -> None:
    async def body(s: Scene) -> None:
        faults = iter([OSError(5, "Input/output error")] * 3)
        s.transport.fault = lambda: next(faults, None)
        (remains,) = await s.play(s.watched(), acts={100.0: lambda: s.transport.end("/w/1", "t-1", {"m": 1.0})})
        assert remains is not None
        assert len(s.troubles) == 3

    scene(body)


def test_a_lost_lease_reaches_every_slot() -> None:
    async def body(s: Scene) -> None:
        s.transport.fault = lambda: HeldByAnother("held by another driver")
        s.watcher.start()
        with pytest.raises(HeldByAnother):
            await s.watcher.watch(s.watched())
        await s.watcher.stop()

    scene(body)


def test_a_program_whose_result_is_absurdly_long_gets_a_reason() -> None:
    async def body(s: Scene) -> None:
        s.transport.end("/w/1", "t-1", {})
        s.transport.seen["/w/1"]["result"] = {"too_long": 99_000_000}
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.result is None
        assert "too long" in remains.trouble

    scene(body)


@pytest.mark.parametrize("name", ["another-job", "t"])
def test_an_id_that_was_given_anew_is_not_our_job(name: str) -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ALIVE, name=name)
        (remains,) = await s.play(s.watched())
        ours = "t-1".startswith(name)
        assert (remains is None) is ours
        assert bool(s.suspects) is not ours

    scene(body)


def test_history_of_another_job_under_our_id_says_nothing_of_ours() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        end = JobEnd(verdict=Verdict.SUCCEEDED)
        s.scheduler.past["1"] = JobStatus(job_id="1", answer=Answer.ENDED, end=end, name="another-job")
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.end is None

    scene(body)


def test_history_is_asked_how_a_job_ended_where_the_queue_does_not_say() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ENDED, end=JobEnd(reason="EXT"))
        end = JobEnd(verdict=Verdict.OUT_OF_MEMORY, reason="OOM killer")
        s.scheduler.past["1"] = JobStatus(job_id="1", answer=Answer.ENDED, end=end)
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert remains.end == end

    scene(body)


def test_why_an_answer_proves_nothing_is_told_once_for_each_reason() -> None:
    async def body(s: Scene) -> None:
        for job_id in "12":
            s.scheduler.set(job_id, Answer.UNKNOWN, evidence="exit code 1: slurm_load_jobs error")

        def other() -> None:
            s.scheduler.set("1", Answer.UNKNOWN, evidence="no answer within the time limit")

        await s.play(s.watched("1"), s.watched("2"), acts={600.0: other}, until=1200.0)
        assert [words.partition(": ")[2] for words in s.troubles] == [
            "exit code 1: slurm_load_jobs error",
            "no answer within the time limit",
        ]

    scene(body)


def test_a_scheduler_that_is_slow_to_answer_does_not_hold_up_the_news_of_an_end() -> None:
    async def body(s: Scene) -> None:
        s.transport.takes["query"] = 50.0
        begun = s.clock.now()
        (remains,) = await s.play(s.watched(), acts={17.0: lambda: s.transport.end("/w/1", "t-1", {"m": 1.0})})
        assert remains is not None
        assert s.clock.now() - begun < 17.0 + 2.5 * 5.0 + 0.1

    scene(body)


def test_queries_never_overlap() -> None:
    async def body(s: Scene) -> None:
        s.transport.takes["query"] = 500.0
        await s.play(s.watched(), until=3600.0)
        queries = [argv for argv in s.transport.commands if argv[0] == "query"]
        assert 3600 / 560 <= len(queries) <= 3600 / 500 + 1

    scene(body)


def test_an_answer_is_weighed_only_after_a_look_that_came_after_it() -> None:
    async def body(s: Scene) -> None:
        s.scheduler.set("1", Answer.ABSENT)
        begun = s.clock.now()
        broken = [OSError(5, "Input/output error")]
        s.transport.fault = lambda: broken[0] if broken and s.clock.now() - begun > 1.0 else None

        def mended() -> None:
            s.transport.end("/w/1", "t-1", {"m": 1.0})
            broken.clear()

        (remains,) = await s.play(s.watched(), acts={4000.0: mended}, until=8000.0)
        assert remains is not None
        assert remains.report is not None

    scene(body)


def test_over_a_connection_for_one_command_the_query_travels_with_the_look() -> None:
    async def body(s: Scene) -> None:
        s.transport.one_exec = True
        s.watcher = Watcher(
            s.transport, s.scheduler, s.clock, Cadence(look=5.0, query_min=10.0, query_max=60.0, grace=GRACE)
        )
        s.scheduler.set("1", Answer.ABSENT)
        s.scheduler.keeps_history = False
        (remains,) = await s.play(s.watched())
        assert remains is not None
        assert s.transport.travelled == len([argv for argv in s.transport.commands if argv[0] == "query"]) > 0

    scene(body)


def test_a_query_waits_for_leave_and_is_not_counted_before() -> None:
    async def body(s: Scene) -> None:
        asked: list[float] = []

        async def may_query() -> float:
            asked.append(s.clock.now())
            return 0.0 if len(asked) > 2 else 40.0

        cadence = Cadence(look=5.0, query_min=10.0, query_max=60.0, grace=GRACE)
        s.watcher = Watcher(s.transport, s.scheduler, s.clock, cadence, may_query=may_query)
        await s.play(s.watched(), until=89.0)
        assert s.watcher.queries == 1
        assert asked[1] - asked[0] >= 40.0

    scene(body)
