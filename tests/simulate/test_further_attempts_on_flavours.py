"""Which attempt follows which end, on every scheduler that is emulated, by the defaults of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worlds import World, job, play

from orchestrator.errors import Paused
from orchestrator.jobs.breaker import Breaker
from orchestrator.model import Verdict
from orchestrator.simulate.programs import Run
from orchestrator.store.ledger import Ledger

each = pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
HALF = 1800.0


def goes_on(order: Mapping[str, Any], _params: Mapping[str, Any], attempt: int) -> Run:
    """Two hours of work where an hour is given, with a checkpoint: the third attempt comes to the end."""
    assert order["checkpoint"] == "../checkpoint"
    return Run(duration=7200.0 if attempt < 3 else HALF, metrics={"m": float(attempt)}, checkpoint=True)


@each
def test_a_program_with_checkpoints_goes_on_for_as_many_walltimes_as_it_takes(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, goes_on)
        async with world.session() as session:
            outcome = await session.run(job())
        assert (outcome.verdict, outcome.metrics, outcome.attempts) == (Verdict.SUCCEEDED, {"m": 3.0}, 3)
        assert [end["verdict"] for end in world.said("ended")] == ["timeout", "timeout", "succeeded"]
        assert len(world.transport.executions) == 3

    play(body)


@each
def test_a_timeout_without_a_checkpoint_is_the_end_and_costs_one_walltime(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, lambda *_: Run(duration=7200.0, metrics={"m": 1.0}))
        async with world.session() as session:
            outcome = await session.run(job())
        assert (outcome.verdict, outcome.attempts) == (Verdict.TIMEOUT, 1)
        assert len(world.transport.executions) == 1
        assert world.said("given-up")[0]["why"].startswith("no checkpoint was written")

    play(body)


@each
def test_a_program_that_asks_for_another_attempt_gets_it(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        def program(_order: Mapping[str, Any], _params: Mapping[str, Any], attempt: int) -> Run:
            return Run(duration=HALF, exit_code=85) if attempt < 3 else Run(duration=HALF, metrics={"m": 1.0})

        world = World(tmp_path, kind, program)
        async with world.session() as session:
            outcome = await session.run(job())
        assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 3)

    play(body)


@each
def test_memory_that_ran_out_is_asked_for_twice_over_where_jobs_ask_for_memory(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        def program(_order: Mapping[str, Any], _params: Mapping[str, Any], attempt: int) -> Run:
            return Run(duration=HALF, metrics={"m": 1.0}, out_of_memory=300.0 if attempt == 1 else None)

        syntax = {"slurm": "--mem={memory}M", "pbs": "mem={memory}mb"}.get(kind, "# {memory} MiB")
        world = World(tmp_path, kind, program, site={"memory_syntax": syntax})
        needy = replace(job(), resources=replace(job().resources, memory=2048))
        async with world.session() as session:
            outcome = await session.run(needy)
        first, second = Ledger(tmp_path).attempts(needy.key)
        assert (first.memory, second.memory) == (None, 4096)
        assert outcome.succeeded

    play(body)


@each
def test_a_program_that_dies_at_once_pauses_a_study_that_minds(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, lambda *_: Run(duration=0.5, exit_code=127))
        breaker = Breaker(deaths=2)
        async with world.session(breaker=breaker) as session:
            for number in range(2):
                assert (await session.run(job(number))).verdict is Verdict.FAILED
            with pytest.raises(Paused, match="2 attempts in a row died"):
                await session.run(job(2))
        assert len(world.transport.executions) == 2

    play(body)


@each
def test_a_program_hears_of_its_walltime_as_long_before_as_the_study_says(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        by_the_minute = [(step, 0.5) for step in range(1, 120)]
        world = World(tmp_path, kind, lambda *_: Run(duration=7200.0, metrics={"m": 1.0}, progress=by_the_minute))
        async with world.session() as session:
            outcome = await session.run(replace(job(), warn_ahead=900.0))
        assert outcome.succeeded
        [execution] = world.transport.executions
        assert execution.ended is not None
        assert 2700.0 <= execution.ended - execution.started <= 2760.0

    play(body)
