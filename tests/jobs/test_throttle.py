"""Limits over all of a user's drivers: how often, how many, and whose counts still hold."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from world import World, world

from orchestrator.config.site import Limits
from orchestrator.jobs.throttle import Throttle, shared_folder
from orchestrator.model import Job
from orchestrator.simulate.clock import VirtualClock, run_virtual


def play(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await body()

    run_virtual(run())


async def grants(throttle: Throttle, seconds: int) -> int:
    """How many submits an eager driver gets through."""
    count = 0
    for _ in range(seconds):
        while not (await throttle.submit({}))[0]:
            count += 1
        await asyncio.sleep(1.0)
    return count


@pytest.mark.parametrize(("rate", "seconds", "most"), [(20.0, 60, 20), (20.0, 180, 60), (0.5, 240, 2)])
def test_no_minute_sees_more_submits_than_the_site_bears(tmp_path: Path, rate: float, seconds: int, most: int) -> None:
    async def body() -> None:
        throttle = Throttle(Limits(submits_per_minute=rate), VirtualClock(), folder=tmp_path / "t")
        assert await grants(throttle, seconds) == most

    play(body)


def test_two_drivers_share_the_rate(tmp_path: Path) -> None:
    async def body() -> None:
        limits = Limits(submits_per_minute=20)
        drivers = [Throttle(limits, VirtualClock(), folder=tmp_path / "t") for _ in range(2)]
        assert sum(await asyncio.gather(*(grants(driver, 60) for driver in drivers))) == 20

    play(body)


def test_a_look_up_of_many_commands_counts_as_many_queries(tmp_path: Path) -> None:
    async def body() -> None:
        throttle = Throttle(Limits(queries_per_minute=4), VirtualClock(), folder=tmp_path / "t")
        assert await throttle.query(commands=4) == 0.0
        assert await throttle.query() == pytest.approx(60.0)
        await asyncio.sleep(60.0)
        assert await throttle.query() == 0.0

    play(body)


def test_jobs_of_all_drivers_fill_the_queue_and_leaving_makes_room(tmp_path: Path) -> None:
    async def body() -> None:
        limits = Limits(queued=3, submits_per_minute=600)
        one, other = (Throttle(limits, VirtualClock(), folder=tmp_path / "t") for _ in range(2))
        assert (await one.submit({"a": ["t1", "t2"], "b": ["t3"]}))[0] == 0.0
        assert (await other.submit({"c": ["t4"]}))[0] == 0.0
        pause, why = await other.submit({"d": ["t5"]})
        assert pause > 0
        assert why == "3 jobs of yours are in the queue, the site takes 3"
        one.leave("a", "t1")
        assert (await other.submit({"d": ["t5"]}))[0] > 0
        one.leave("a", "t2")
        await one.query()
        assert (await other.submit({"d": ["t5"]}))[0] == 0.0

    play(body)


def test_a_driver_that_has_ended_counts_no_more(tmp_path: Path) -> None:
    async def body() -> None:
        limits = Limits(queued=1)
        one, other = (Throttle(limits, VirtualClock(), folder=tmp_path / "t") for _ in range(2))
        assert (await one.submit({"a": ["t1"]}))[0] == 0.0
        assert (await other.submit({"b": ["t2"]}))[0] > 0.0
        await one.close()
        assert (await other.submit({"b": ["t2"]}))[0] == 0.0

    play(body)


def test_a_driver_that_was_killed_counts_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    process = subprocess.Popen(["true"])
    process.wait()
    dead = process.pid

    async def body() -> None:
        limits = Limits(queued=1)
        one, other = (Throttle(limits, VirtualClock(), folder=folder) for _ in range(2))
        assert (await one.submit({"a": ["t1"]}))[0] == 0.0
        state = json.loads((folder / "limits.json").read_text())
        (entry,) = state["drivers"].values()
        entry["holder"]["pid"] = dead
        (folder / "limits.json").write_text(json.dumps(state))
        assert (await other.submit({"b": ["t2"]}))[0] == 0.0

    play(body)


def test_a_driver_on_another_machine_counts_until_it_has_been_silent_for_long(tmp_path: Path) -> None:
    async def body() -> None:
        folder = tmp_path / "t"
        one, other = (Throttle(Limits(queued=1), VirtualClock(), folder=folder) for _ in range(2))
        assert (await one.submit({"a": ["t1"]}))[0] == 0.0
        state = json.loads((folder / "limits.json").read_text())
        (entry,) = state["drivers"].values()
        entry["holder"]["host"] = "login7"
        (folder / "limits.json").write_text(json.dumps(state))
        assert (await other.submit({"b": ["t2"]}))[0] > 0.0
        await asyncio.sleep(3600.0)
        assert (await other.submit({"b": ["t2"]}))[0] == 0.0

    play(body)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"submits": [9e99], "drivers": {"x": 1}}'])
def test_a_shared_file_that_is_torn_or_from_another_clock_stops_nobody(tmp_path: Path, content: str) -> None:
    async def body() -> None:
        (tmp_path / "limits.json").write_text(content)
        throttle = Throttle(Limits(submits_per_minute=1), VirtualClock(), folder=tmp_path)
        assert (await throttle.submit({}))[0] == 0.0
        assert (await throttle.submit({}))[0] > 0.0

    play(body)


def test_where_nothing_can_be_shared_each_driver_keeps_the_limits_itself(tmp_path: Path) -> None:
    async def body() -> None:
        (tmp_path / "file").write_text("")
        throttle = Throttle(Limits(submits_per_minute=20), VirtualClock(), folder=tmp_path / "file" / "t")
        assert await grants(throttle, 60) == 20

    play(body)


def test_the_shared_folder_is_the_user_s_own(tmp_path: Path, clean_environment: Path) -> None:
    async def body() -> None:
        w = World(tmp_path)
        folder = shared_folder(w.site)
        assert folder.is_relative_to(clean_environment)
        await Throttle(w.site.limits, VirtualClock(), folder=folder).query()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "limits.json").stat().st_mode) == 0o600

    play(body)


def test_a_session_waits_for_room_in_the_queue_says_so_and_fails_nothing(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        limits = Limits(queued=2, submits_per_minute=600, queries_per_minute=60)
        w.site = w.site.model_copy(update={"limits": limits})
        work = [Job(key=f"j{n}", command=("true",), metrics=("m",)) for n in range(3)]
        async with w.session() as session:
            tasks = session.submit(*work)
            await asyncio.sleep(30.0)
            assert len(w.scheduler.submits) == 2
            assert w.told("waiting") == ["2 jobs of yours are in the queue, the site takes 2"]
            w.ends(key="j0")
            await asyncio.sleep(30.0)
            assert len(w.scheduler.submits) == 3
            for key in ("j1", "j2"):
                w.ends(key=key)
            assert all(outcome.succeeded for outcome in await asyncio.gather(*tasks))

    world(tmp_path, body)


def test_a_job_that_waits_for_room_can_be_taken_back(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        w.site = w.site.model_copy(update={"limits": Limits(queued=1)})
        async with w.session() as session:
            session.submit(*(Job(key=f"j{n}", command=("true",)) for n in range(2)))
            await asyncio.sleep(30.0)
            await session.abort("j1")
            assert len(w.scheduler.submits) == 1

    world(tmp_path, body)
