"""Faults 61 to 63: many trials, a slow scheduler, many ends at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_world import THREE, FaultWorld, play, train

from orchestrator.simulate.batchjob import Node
from orchestrator.simulate.programs import Run
from orchestrator.transports.base import Command, Completion

three = pytest.mark.parametrize("kind", THREE)
SLOTS = 24
MACHINE = tuple(Node(name=f"n{number}", gpus=4, cpus=8) for number in range(1, SLOTS // 4 + 1))
MANY = {"trials": 2 * SLOTS, "parallel": SLOTS}


def all_alike(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    return Run(duration=1800.0, metrics=train(order, params, attempt).metrics)


@three
def test_fault_61_many_jobs_in_flight_cost_one_query_a_cycle_and_not_one_each(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, changes=MANY, nodes=MACHINE)
        record = await world.run()
        cycles = (world.clock.now() - world.began) / world.site.poll.query_min
        assert world.calls("query") <= cycles + 2
        await world.holds(record)

    play(body)


@three
def test_fault_62_a_scheduler_that_takes_its_time_is_never_asked_twice_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, latency=30.0)
        asking: Counter[bool] = Counter()
        overlaps = []
        run = world.transport.run

        async def counted(command: Command) -> Completion:
            submit = any(word.endswith("job.sh") for word in command.argv)
            asking[submit] += 1
            overlaps.append(asking[submit])
            try:
                return await run(command)
            finally:
                asking[submit] -= 1

        monkeypatch.setattr(world.transport, "run", counted)
        await world.holds(await world.run())
        assert max(overlaps) == 1
        assert len(world.attempts()) == 6
        # What ends meanwhile is noticed at a look, not at the end of a query.
        told = [event["time"] for event in world.events if event["event"] == "told"]
        ended = sorted(execution.ended or 0.0 for execution in world.executions)
        assert all(time - end < 120.0 for time, end in zip(told, ended, strict=True))

    play(body)


@three
def test_fault_63_when_all_jobs_end_at_once_each_is_told_once_and_the_refills_keep_to_the_sites_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, all_alike, changes=MANY, nodes=MACHINE)
        sent: list[float] = []
        run = world.transport.run

        async def noted(command: Command) -> Completion:
            if any(word.endswith("job.sh") for word in command.argv):
                sent.append(world.clock.now())
            return await run(command)

        monkeypatch.setattr(world.transport, "run", noted)
        record = await world.run()
        told = Counter(event["number"] for event in world.events if event["event"] == "told")
        assert told == dict.fromkeys(range(2 * SLOTS), 1)
        most = int(world.site.limits.submits_per_minute)
        assert all(late - early >= 60.0 for early, late in zip(sent, sent[most:], strict=False))
        assert len(sent) > most
        await world.holds(record)

    play(body)
