"""One study, one bad day, on every flavour: single jobs, packed jobs and arrays; each trial is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from worlds import EVERY, machine, play

from orchestrator.config.site import Queue
from orchestrator.config.study import Study
from orchestrator.model import Attempt
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.batchjob import BatchJob, Phase
from orchestrator.simulate.clock import VirtualClock
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.programs import Execution, Run
from orchestrator.simulate.queue_model import lognormal_wait
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord

TRIALS, PARALLEL = 16, 6
WALLTIME = 3600
NOTICED = 90.0  # seconds in which the end of an attempt is told: a look at the files, and an answer that takes its time
ENDLESS = 5  # the trial that would never end
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # What is changed of the site, and the study's batch section.
    "single": ({}, {"array": False}),
    "packed": (
        {"queues": [Queue(name="main", unit="node", gpus_per_unit=2, cores_per_unit=8).model_dump()]},
        {"pack": "auto", "array": False},
    ),
    "array": ({"array_allowed": True}, {"array": True}),
}


def train(order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    x = float(params["x"])
    if order["number"] == ENDLESS:
        return Run(duration=1e6, metrics={"m": x})
    return Run(duration=400.0 + 500.0 * x, metrics={"m": x * x})


class Day:
    """A cluster, the drivers that come and go on it, and what happened when."""

    def __init__(self, root: Path, kind: str, way: str, *faults: Fault, skew: float = 0.0) -> None:
        self.root = root
        self.clock = VirtualClock()
        site, batch = WAYS[way]
        self.site = flavour(kind).site(**site)
        self.study = Study.model_validate(
            {
                "name": "day",
                "objective": {"metric": "m", "direction": "minimize"},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
                "sampler": {"name": "random", "seed": 7},
                "trials": TRIALS,
                "parallel": PARALLEL,
                "command": ["train"],
                "resources": {"gpus": 1, "walltime": WALLTIME},
                "batch": batch,
                "failures": {"stop_after": None, "most": 1.0},
            }
        )
        self.plan = FaultPlan(faults)
        rules = flavour(kind).make_rules(
            nodes=machine(4, gpus=2, cpus=8), queue_wait=lognormal_wait(60.0, 0.7, seed=3), requeue_wait=60.0
        )
        self.transport = SimulatedTransport(self.clock, train, kind=kind, rules=rules, faults=self.plan, skew=skew)
        self.cluster = self.transport.cluster
        self.began, self.skew = self.clock.now(), skew
        self.events: list[dict[str, Any]] = []
        self.driven: list[tuple[float, float]] = []

    async def drive(self) -> StudyRecord:
        driver = StudyDriver(
            self.study,
            self.site,
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=lambda event: self.events.append(dict(event)),
        )
        begin = self.clock.now()
        try:
            return await driver.run()
        finally:
            self.driven.append((begin, self.clock.now()))

    async def drive_until_killed(self, seconds: float) -> None:
        task = asyncio.create_task(self.drive())
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def until(self, seconds: float) -> None:
        """Wait until so many seconds after the day's beginning."""
        await asyncio.sleep(self.began + seconds - self.clock.now())

    def youngest(self) -> BatchJob:
        """Of the jobs that run without the endless trial, the one that began last."""
        endless = {execution.key for execution in self.executions(ENDLESS)}
        return max(
            (job for job in self.cluster.live() if job.phase is Phase.RUNNING and job.key not in endless),
            key=lambda job: (job.started or 0.0, job.key),
        )

    def numbers(self, job: BatchJob) -> set[int]:
        """The trials that a running job carries."""
        tags = {one.tag for one in self.transport.executions if one.key == job.key and one.ended is None}
        return {int(attempt.key) for attempt in self.attempts() if attempt.tag in tags}

    def attempts(self, *numbers: int) -> list[Attempt]:
        ledger = Ledger(self.root / "day")
        return [one for number in numbers or range(TRIALS) for one in ledger.attempts(f"{number:05d}")]

    def executions(self, number: int) -> list[Execution]:
        tags = {attempt.tag for attempt in self.attempts(number)}
        return [execution for execution in self.transport.executions if execution.tag in tags]

    def delay(self, execution: Execution, told: float) -> float:
        """For how long drivers were there and did not tell that an attempt had ended."""
        assert execution.ended is not None
        ended = execution.ended - self.skew
        assert ended <= told
        return sum(max(0.0, min(end, told) - max(begin, ended)) for begin, end in self.driven)

    def check(self, record: StudyRecord, *, may_fail: set[int]) -> None:
        """What holds whatever has happened."""
        assert record.state == "done"
        assert [trial.number for trial in record.trials] == list(range(TRIALS))
        assert [event["number"] for event in self.events if event["event"] == "asked"] == list(range(TRIALS))
        told = {event["number"]: event["time"] for event in self.events if event["event"] == "told"}
        assert sorted(told) == list(range(TRIALS))
        runs: dict[str, list[Execution]] = {}
        for execution in self.transport.executions:
            runs.setdefault(execution.tag, []).append(execution)
        assert runs.keys() <= {attempt.tag for attempt in self.attempts()}
        for executions in runs.values():
            # Only what was lost with its node is executed again, and by its scheduler, as the same job.
            assert [one.how for one in executions[:-1]] == ["lost"] * (len(executions) - 1)
            assert len({one.key for one in executions}) == 1
        for trial in record.trials:
            executions = self.executions(trial.number)
            # What has ended with its result is not run again, and counts.
            assert [one.how for one in executions].count("finished") == int(trial.state == "complete"), trial
            assert trial.state == "complete" or trial.number in may_fail, trial
            if trial.state == "complete":
                x = trial.params["x"]
                assert isinstance(x, float)
                assert trial.values == (x * x,)
                assert executions[-1].how == "finished"
                assert self.delay(executions[-1], told[trial.number]) <= NOTICED, trial
        assert not [job for job in self.cluster.live() if job.phase is not Phase.ENDED]


ways = pytest.mark.parametrize("way", list(WAYS))
every = pytest.mark.parametrize("kind", EVERY)


@every
@ways
def test_a_study_comes_through_a_bad_day_with_each_trial_accounted_for(tmp_path: Path, kind: str, way: str) -> None:
    async def body() -> None:
        day = Day(
            tmp_path,
            kind,
            way,
            Fault(command="any", kind="down", since=1500.0, until=2400.0),
            Fault(command="submit", kind="reply-lost", calls=[2, 9]),
            Fault(command="query", kind="half-list", chance=0.1),
            Fault(command="any", kind="banner", chance=0.1),
            skew=-600.0,
        )
        cancelled: set[int] = set()

        async def mishaps() -> None:
            await day.until(300.0)
            job = day.youngest()
            cancelled.update(day.numbers(job))
            day.cluster.cancel(job)
            await day.until(1300.0)
            day.cluster.fail_node(day.youngest().nodes[0], back_after=200.0)

        trouble = asyncio.create_task(mishaps())
        await day.drive_until_killed(600.0)
        await day.until(900.0)
        record = await day.drive()
        await trouble
        assert cancelled
        assert {"lost", "killed"} <= {execution.how for execution in day.transport.executions}
        assert day.plan.happened["any", "down"]
        day.check(record, may_fail={ENDLESS, *cancelled})
        assert record.trials[ENDLESS].state == "failed"
        assert record.trials[ENDLESS].verdict == "timeout"

    play(body)
