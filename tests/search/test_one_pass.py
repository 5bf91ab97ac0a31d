"""A driver that is there for one pass at a time, as cron starts it: nothing lost, nothing twice, no waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_driver_in_virtual_time import TRIALS, Scene, study

from orchestrator.simulate.clock import run_virtual
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.store.record import StudyRecord


async def one_pass(scene: Scene, patience: float = 300.0, **changes: Any) -> tuple[StudyRecord, float]:
    """Let a driver pass over the study; its record, and how long it took."""
    driver = scene.driver(study(**changes))
    driver.pass_once(patience)
    begun = scene.clock.now()
    record = await driver.run()
    return record, scene.clock.now() - begun


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm"])
def test_passes_now_and_then_take_a_study_to_its_end(tmp_path: Path, kind: str) -> None:
    async def passes() -> tuple[list[StudyRecord], list[float], Scene]:
        scene = Scene(tmp_path, kind)
        records: list[StudyRecord] = []
        spans: list[float] = []
        while not records or records[-1].state != "done":
            record, seconds = await one_pass(scene)
            records.append(record)
            spans.append(seconds)
            assert len(records) < 50
            await scene.clock.sleep(600.0)
        return records, spans, scene

    records, spans, scene = run_virtual(passes())
    assert [len(record.trials) for record in records][:1] == [4]  # the slots are full when the first pass ends
    assert records[0].state == "interrupted"
    assert len(records[-1].complete) == TRIALS
    assert scene.runs_per_tag.total() == TRIALS
    assert max(scene.runs_per_tag.values()) == 1
    # A pass waits for answers, never for jobs, the shortest of which takes 300 s.
    assert max(spans) < 200.0


def test_a_pass_collects_what_has_ended_and_fills_its_slot(tmp_path: Path) -> None:
    async def passes() -> tuple[StudyRecord, StudyRecord]:
        scene = Scene(tmp_path)
        await one_pass(scene)
        await scene.clock.sleep(3600.0)
        second, _ = await one_pass(scene)
        third, _ = await one_pass(scene)
        return second, third

    second, third = run_virtual(passes())
    assert [trial.state for trial in second.trials] == ["complete"] * 4 + ["running"] * 4
    # Nothing has ended since: nothing is begun.
    assert [trial.number for trial in third.trials] == [trial.number for trial in second.trials]
    assert {trial.attempts for trial in third.complete} == {1}


def test_a_pass_ends_even_where_the_scheduler_does_not_answer(tmp_path: Path) -> None:
    async def passes() -> tuple[StudyRecord, float]:
        scene = Scene(tmp_path)
        await one_pass(scene)
        scene.transport.login.faults = FaultPlan(faults=[Fault(command="query", kind="hang")])
        return await one_pass(scene, patience=20.0)

    record, seconds = run_virtual(passes())
    assert seconds < 30.0
    assert [trial.state for trial in record.trials] == ["running"] * 4
