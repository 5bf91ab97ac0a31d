"""The real session on every emulated cluster, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from worlds import EVERY, World, job, play

from orchestrator.model import Verdict


@pytest.mark.parametrize("kind", EVERY)
def test_a_session_runs_jobs_on_every_flavour(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind)
        async with world.session() as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(12)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 12
        assert [outcome.metrics["m"] for outcome in outcomes] == [float(number**2) for number in range(12)]
        assert len(world.transport.executions) == 12
        assert {execution.how for execution in world.transport.executions} == {"finished"}

    play(body)
