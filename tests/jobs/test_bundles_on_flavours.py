"""Packed and array jobs on every emulated cluster: through crashes, lost replies and cancels, each attempt runs once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.site import BatchOptions, Queue
from orchestrator.jobs.session import Session
from orchestrator.model import Job, Outcome, Resources, Verdict
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger

KINDS = list(FLAVOURS)
NODE = Queue(name="main", unit="node", gpus_per_unit=2, cores_per_unit=8)
COUNT = 6


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    return Run(duration=600.0 + 60.0 * float(params["x"]), metrics={"m": float(params["x"])})


class Cluster:
    """One emulated cluster, and drivers that come and go."""

    def __init__(self, root: Path, kind: str, way: str, *faults: Fault) -> None:
        self.root = root
        self.clock = VirtualClock()
        flavour = FLAVOURS[kind]
        changes: dict[str, Any] = {"array_allowed": way == "array", "limits": {"submits_per_minute": 600}}
        self.site = flavour.site(**changes)
        if way == "packed":
            self.site = self.site.model_copy(update={"queues": (NODE,)})
        self.batch = BatchOptions(pack="auto" if way == "packed" else 1, array=way == "array")
        self.transport = SimulatedTransport(self.clock, train, kind=kind, faults=FaultPlan(faults))
        self.jobs = [
            Job(
                key=f"{n:05d}",
                number=n,
                command=("train",),
                params={"x": n},
                metrics=("m",),
                resources=Resources(gpus=1),
            )
            for n in range(COUNT)
        ]

    def session(self) -> Session:
        return Session(
            self.root, name="s", site=self.site, batch=self.batch, transport=self.transport, clock=self.clock
        )

    async def killed_after(self, seconds: float) -> None:
        async with self.session() as session:
            session.submit_array(*self.jobs)
            await asyncio.sleep(seconds)

    async def finished(self) -> list[Outcome]:
        async with self.session() as session:
            return await asyncio.wait_for(asyncio.gather(*session.submit_array(*self.jobs)), 86400.0)

    def check(self, outcomes: list[Outcome]) -> None:
        assert [(outcome.verdict, outcome.metrics) for outcome in outcomes] == [
            (Verdict.SUCCEEDED, {"m": float(n)}) for n in range(COUNT)
        ]
        assert len(self.transport.executions) == COUNT


def play(root: Path, kind: str, way: str, body: Any, *faults: Fault) -> None:
    async def act() -> None:
        await body(Cluster(root, kind, way, *faults))

    run_virtual(act())


@pytest.mark.parametrize("way", ["packed", "array"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_attempt_runs_once_and_jobs_are_shared(tmp_path: Path, kind: str, way: str) -> None:
    async def body(c: Cluster) -> None:
        outcomes = await c.finished()
        c.check(outcomes)
        if way == "array" and kind == "pjm-wrapped":  # it refuses arrays
            assert len({outcome.job_id for outcome in outcomes}) == COUNT
        elif way == "packed":
            assert len({outcome.job_id for outcome in outcomes}) == COUNT // 2
        else:
            names = {Ledger(tmp_path).attempts(job.key)[0].job_name for job in c.jobs}
            assert len(names) == 1

    play(tmp_path, kind, way, body)


@pytest.mark.parametrize("seconds", [0.5, 61.0, 700.0])
@pytest.mark.parametrize("way", ["packed", "array"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_driver_that_dies_at_any_time_leaves_jobs_that_the_next_one_finds(
    tmp_path: Path, kind: str, way: str, seconds: float
) -> None:
    async def body(c: Cluster) -> None:
        await c.killed_after(seconds)
        c.check(await c.finished())

    play(tmp_path, kind, way, body)


@pytest.mark.parametrize("fault", ["reply-lost", "timed-out", "silent", "hang"])
@pytest.mark.parametrize("way", ["packed", "array"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_submit_without_a_clear_answer_is_settled_for_each_of_its_attempts(
    tmp_path: Path, kind: str, way: str, fault: str
) -> None:
    async def body(c: Cluster) -> None:
        c.check(await c.finished())

    play(tmp_path, kind, way, body, Fault(command="submit", kind=fault, calls=[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_element_of_an_array_can_be_ended_without_the_others(tmp_path: Path, kind: str) -> None:
    async def body(c: Cluster) -> None:
        async with c.session() as session:
            tasks = session.submit_array(*c.jobs)
            await asyncio.sleep(200.0)
            await asyncio.wait_for(session.abort("00003"), 3600.0)
            assert tasks[3].result().verdict is Verdict.CANCELLED
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks[:3], *tasks[4:]), 86400.0)
        assert all(outcome.succeeded for outcome in outcomes)

    play(tmp_path, kind, "array", body)
