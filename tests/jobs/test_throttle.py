"""Limits over all of a user's drivers: how often, how many, and whose counts still hold."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from world import World, world

from orchestrator import resources
from orchestrator.config.site import Limits, load_site
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


def test_a_query_that_could_not_wait_is_made_up_for_by_the_next_ones(tmp_path: Path) -> None:
    async def body() -> None:
        limits = Limits(queries_per_minute=2)
        one, other = (Throttle(limits, VirtualClock(), folder=tmp_path / "t") for _ in range(2))
        assert await one.query() == 0.0
        await one.spent(commands=2)
        assert await other.query() == pytest.approx(60.0)
        await asyncio.sleep(61.0)
        assert await other.query() == 0.0

    play(body)


TAKER = """
import asyncio, sys
from pathlib import Path
from orchestrator.clock import SystemClock
from orchestrator.config.site import load_site
from orchestrator.jobs.throttle import Throttle, shared_folder

async def main():
    site = load_site("shared")
    throttle = Throttle(site.limits, SystemClock(), folder=shared_folder(site))
    print("ready", flush=True)
    sys.stdin.readline()
    got = {"submits": 0, "queries": 0}
    while not (await throttle.submit({}))[0]:
        got["submits"] += 1
    while not await throttle.query():
        got["queries"] += 1
    print(got["submits"], got["queries"], flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def test_two_processes_of_a_user_share_what_a_site_file_allows(clean_environment: Path) -> None:
    sites = clean_environment / ".config" / "survey-orchestrator" / "sites"
    sites.mkdir(parents=True)
    text = "name: shared\nscheduler: slurm\nlimits: {submits_per_minute: 30, queries_per_minute: 7}\n"
    (sites / "shared.yaml").write_text(text)
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    shares = []
    try:
        for taker in takers:
            assert taker.stdout is not None
            assert taker.stdout.readline() == "ready\n"
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        for taker in takers:
            assert taker.stdout is not None
            shares.append([int(count) for count in taker.stdout.readline().split()])
    finally:
        for taker in takers:
            taker.communicate("over\n")
    assert [sum(counts) for counts in zip(*shares, strict=True)] == [30, 7]


def test_the_system_s_site_file_sets_the_caps_of_all_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = resources.folders("sites")[-1]
    system = tmp_path / "etc"
    system.mkdir()
    caps = "limits: {queued: 4, submits_per_minute: 3, queries_per_minute: 1.5}\n"
    (system / "slurm.yaml").write_text(f"name: slurm\nscheduler: slurm\nextends: slurm\n{caps}")
    monkeypatch.setattr(resources, "folders", lambda _kind: (tmp_path / "own", system, shipped))
    site = load_site("slurm")
    assert site.limits == Limits(queued=4, submits_per_minute=3, queries_per_minute=1.5)
    assert site.gpu_syntax == "--gpus-per-node={gpus}"

    async def body() -> None:
        throttle = Throttle(site.limits, VirtualClock(), folder=tmp_path / "t")
        assert await grants(throttle, 120) == 6
        tags = {f"job{number}": [f"t{number}"] for number in range(4)}
        assert (await throttle.submit({"one": ["t"]}))[0] == 0.0
        assert (await throttle.submit(tags))[1] == "1 job of yours is in the queue, the site takes 4"

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
