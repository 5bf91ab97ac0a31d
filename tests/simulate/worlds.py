"""What the tests of the emulated cluster share: programs, sessions and direct questions, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.clock import Clock
from orchestrator.config.site import BatchOptions, Site
from orchestrator.jobs.breaker import Breaker
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.jobs.script import scheduler_options
from orchestrator.jobs.session import Session
from orchestrator.model import Job, JobStatus, Resources
from orchestrator.schedulers.base import Found, Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.simulate.batchjob import Node, Rules
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Program, Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.transports.base import Transport

EVERY = list(FLAVOURS)


def job(number: int = 0, *, gpus: int = 1, walltime: int | None = 3600, **params: Any) -> Job:
    return Job(
        key=f"{number:05d}",
        number=number,
        command=("train",),
        params={"x": number, **params},
        metrics=("m",),
        resources=Resources(gpus=gpus, walltime=walltime),
    )


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    """Ten minutes and a bit, and the square of x."""
    return Run(duration=600.0 + float(params["x"]), metrics={"m": float(params["x"]) ** 2})


class World:
    """One emulated site, the adaptor that is made for it, and drivers that come and go."""

    def __init__(
        self,
        root: Path,
        kind: str,
        program: Program = train,
        *,
        faults: Sequence[Fault] = (),
        site: Mapping[str, Any] | None = None,
        files_lag: float = 0.0,
        skew: float = 0.0,
        **rules: Any,
    ) -> None:
        self.root = root
        self.clock: Clock = VirtualClock()
        self.flavour = FLAVOURS[kind]
        self.plan = FaultPlan(faults)
        made: Rules = self.flavour.make_rules(**rules)
        self.transport = SimulatedTransport(
            self.clock, program, kind=kind, rules=made, faults=self.plan, files_lag=files_lag, skew=skew
        )
        self.cluster = self.transport.cluster
        self.site: Site = self.flavour.site(**(site or {}))
        self.scheduler = make_scheduler(self.site.scheduler, scheduler_options(self.site, BatchOptions()))
        self.asker = Asker(self.transport, self.scheduler)
        self.events: list[dict[str, Any]] = []

    def session(
        self, *, retry: RetryPolicy | None = None, breaker: Breaker | None = None, limit: int | None = None
    ) -> Session:
        return Session(
            self.root,
            name="s",
            site=self.site,
            transport=self.transport,
            clock=self.clock,
            retry=retry,
            breaker=breaker,
            limit=limit,
            on_event=lambda event: self.events.append(dict(event)),
        )

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]


class Asker:
    """The adaptor's questions, one by one, through any transport."""

    def __init__(self, transport: Transport, scheduler: Scheduler, folder: str = "/work") -> None:
        self.transport = transport
        self.scheduler = scheduler
        self.folder = folder

    async def submit(
        self, tag: str, body: str = "sleep 60\n", *, directives: str = "", array: int | None = None
    ) -> Submitted | Refused | Unclear:
        path = f"{self.folder}/{tag}.sh"
        text = f"#!/bin/bash\n{directives}\n{body}"
        await self.transport.put({path: text.encode()}, executable=(path,))
        request = SubmitRequest(script=path, tag=tag, directory=self.folder, array=array)
        return self.scheduler.parse_submit(await self.transport.run(self.scheduler.submit(request)))

    async def job_id(self, tag: str, body: str = "sleep 60\n", **options: Any) -> str:
        answer = await self.submit(tag, body, **options)
        assert isinstance(answer, Submitted), answer
        return answer.job_id

    async def query(self, *job_ids: str) -> list[JobStatus]:
        answers = self.scheduler.parse_query(await self.transport.run(self.scheduler.query(job_ids)), job_ids)
        return [answers[job_id] for job_id in job_ids]

    async def history(self, *job_ids: str, since: float = 0.0) -> list[JobStatus] | None:
        command = self.scheduler.history(job_ids, since)
        if command is None:
            return None
        answers = self.scheduler.parse_history(await self.transport.run(command), job_ids)
        return [answers[job_id] for job_id in job_ids]

    async def find(self, *tags: str, since: float = 0.0) -> Found:
        commands = self.scheduler.find(tags, since)
        return self.scheduler.parse_find([await self.transport.run(command) for command in commands], tags)

    async def cancel(self, *job_ids: str) -> bool:
        return self.scheduler.cancelled(await self.transport.run(self.scheduler.cancel(job_ids)))


def play(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body in virtual time."""

    async def act() -> None:
        await body()

    run_virtual(act())


def machine(nodes: int, *, gpus: int = 4, cpus: int = 8) -> tuple[Node, ...]:
    return tuple(Node(name=f"n{number}", gpus=gpus, cpus=cpus) for number in range(1, nodes + 1))
