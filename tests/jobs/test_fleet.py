"""Several sites at once: where a job goes, when it moves, and that nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ResumeMismatch
from orchestrator.jobs.fleet import Berth, Fleet, delay
from orchestrator.jobs.life import MOVED
from orchestrator.jobs.session import Session
from orchestrator.model import Job, Outcome, Resources, Verdict
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger

HOUR = 3600.0


def train(_order: Mapping[str, Any], _params: Mapping[str, Any], _attempt: int) -> Run:
    return Run(duration=600.0, metrics={"m": 1.0})


class Sites:
    """Two emulated clusters that outlive drivers; on each a job of ours waits as long as is said here."""

    def __init__(self, root: Path, *, waits: Mapping[str, float]) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.waits = dict(waits)
        self.there = {kind: self._cluster(kind) for kind in waits}
        self.events: list[Mapping[str, Any]] = []

    def _cluster(self, kind: str) -> SimulatedTransport:
        rules = FLAVOURS[kind].make_rules(queue_wait=lambda _job: self.waits[kind])
        return SimulatedTransport(self.clock, train, kind=kind, rules=rules)

    def fleet(self, *, limit: int, shares: Mapping[str, int]) -> Fleet:
        berths = [
            Berth(
                session=Session(
                    self.root,
                    name="s",
                    site=FLAVOURS[kind].site(name=kind),
                    clock=self.clock,
                    transport=self.there[kind],
                    limit=share,
                    on_event=self.events.append,
                ),
                share=share,
            )
            for kind, share in shares.items()
        ]
        return Fleet(berths, limit=limit, clock=self.clock)

    def ran_on(self, kind: str) -> Counter[str]:
        return Counter(execution.tag for execution in self.there[kind].executions)

    @property
    def ran(self) -> int:
        everywhere = self.ran_on("slurm") + self.ran_on("pbs")
        assert set(everywhere.values()) <= {1}
        return everywhere.total()


def jobs(count: int) -> list[Job]:
    return [
        Job(
            key=f"{number:05d}",
            number=number,
            command=("train",),
            params={"x": 0.5},
            metrics=("m",),
            resources=Resources(gpus=1, walltime=7200),
        )
        for number in range(count)
    ]


async def run_all(fleet: Fleet, count: int) -> list[Outcome]:
    return list(await asyncio.gather(*(fleet.run(job) for job in jobs(count))))


def scene(body: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await body()

    run_virtual(play())


def test_an_idle_fleet_is_filled_in_proportion_to_the_shares(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": 0.0, "pbs": 0.0})
        async with sites.fleet(limit=6, shares={"slurm": 4, "pbs": 2}) as fleet:
            outcomes = await run_all(fleet, 6)
        assert {outcome.verdict for outcome in outcomes} == {Verdict.SUCCEEDED}
        assert (sites.ran_on("slurm").total(), sites.ran_on("pbs").total()) == (4, 2)

    scene(body)


def test_slots_are_filled_where_jobs_start_first(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": 5 * HOUR, "pbs": 0.0})
        async with sites.fleet(limit=4, shares={"slurm": 4, "pbs": 4}) as fleet:
            await run_all(fleet, 24)
        # Those that had gone into the long queue at the start were taken back from it.
        assert sites.ran_on("pbs").total() == 24
        assert sites.ran == 24

    scene(body)


def test_a_share_is_never_exceeded(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": HOUR, "pbs": 0.0})
        async with sites.fleet(limit=6, shares={"slurm": 4, "pbs": 2}) as fleet:
            await run_all(fleet, 12)
        assert sites.ran == 12
        moments = [
            (at, step) for each in sites.there["pbs"].executions for at, step in ((each.started, 1), (each.ended, -1))
        ]
        running = highest = 0
        for _, step in sorted(moments):
            running += step
            highest = max(highest, running)
        assert highest == 2

    scene(body)


def test_a_job_that_has_begun_is_not_taken_back(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": 0.0, "pbs": 0.0})
        session = sites.fleet(limit=1, shares={"slurm": 1})
        async with session as fleet:
            task = asyncio.create_task(fleet.run(jobs(1)[0]))
            await asyncio.sleep(120.0)
            (berth,) = fleet._berths
            assert not await berth.session.withdraw("00000")
            assert (await task).verdict is Verdict.SUCCEEDED
        (attempt,) = Ledger(tmp_path).attempts("00000")
        assert MOVED not in attempt.notes
        assert sites.ran == 1

    scene(body)


def test_a_moved_job_leaves_nothing_in_the_queue_that_it_left(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": 50 * HOUR, "pbs": 0.0})
        async with sites.fleet(limit=2, shares={"slurm": 2, "pbs": 1}) as fleet:
            await run_all(fleet, 2)
            await asyncio.sleep(60 * HOUR)
        attempts = [attempt for number in range(2) for attempt in Ledger(tmp_path).attempts(f"{number:05d}")]
        moved = [attempt for attempt in attempts if MOVED in attempt.notes]
        assert moved
        assert {attempt.site for attempt in moved} == {"slurm"}
        assert all(attempt.outcome and attempt.outcome.verdict is Verdict.CANCELLED for attempt in moved)
        assert not sites.ran_on("slurm")

    scene(body)


@pytest.mark.parametrize("moment", [0.0, 0.5, 100.0, 130.0, 140.0, 400.0, 700.0, 1000.0])
def test_drivers_that_end_in_the_middle_of_it_run_nothing_twice(tmp_path: Path, moment: float) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": 2 * HOUR, "pbs": 60.0})
        for _ in range(3):
            async with sites.fleet(limit=3, shares={"slurm": 3, "pbs": 2}) as fleet:
                task = asyncio.create_task(run_all(fleet, 8))
                await asyncio.wait({task}, timeout=moment)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        async with sites.fleet(limit=3, shares={"slurm": 3, "pbs": 2}) as fleet:
            outcomes = await run_all(fleet, 8)
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 8
        assert sites.ran == 8

    scene(body)


def test_a_job_in_flight_on_a_site_that_is_named_no_more_is_not_run_again(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, waits={"slurm": HOUR, "pbs": 0.0})
        async with sites.fleet(limit=1, shares={"slurm": 1}) as fleet:
            task = asyncio.create_task(fleet.run(jobs(1)[0]))
            await asyncio.sleep(60.0)
            task.cancel()
        async with sites.fleet(limit=1, shares={"pbs": 1, "slurm": 1}) as fleet:
            fleet._berths = fleet._berths[:1]
            fleet._berths += (
                Berth(session=Session(tmp_path, name="s", site=FLAVOURS["pjm"].site(name="pjm")), share=1),
            )
            with pytest.raises(ResumeMismatch, match="in flight on site 'slurm'"):
                await fleet.run(jobs(1)[0])

    scene(body)


@pytest.mark.parametrize(
    ("waiting", "waits", "expected"),
    [
        ((), (), 0.0),
        ((90.0,), (), 10.0),
        ((), ((50.0, 7.0), (60.0, 9.0), (70.0, 800.0)), 9.0),
        ((20.0, 90.0), ((50.0, 7.0),), 80.0),
        ((), ((100.0 - 2 * 86400.0, 500.0),), 0.0),
    ],
)
def test_the_likely_wait_is_that_of_the_latest_starts_or_of_who_waits_longest(
    waiting: tuple[float, ...], waits: tuple[tuple[float, float], ...], expected: float
) -> None:
    assert delay(waiting, waits, 100.0) == pytest.approx(expected)
