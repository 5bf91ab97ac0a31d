"""A driver that is asked to end, on each kind of cluster in virtual time: what it leaves, and how the study goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_driver_in_virtual_time import TRIALS, Scene

from orchestrator.search.requests import Stop, ask_to_stop
from orchestrator.simulate.clock import run_virtual
from orchestrator.store.lease import read_holder
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord

KINDS = ["slurm", "pbs", "pjm", "gridengine"]


async def asked(scene: Scene, how: Stop, after: float) -> StudyRecord:
    """Let a driver run, and ask it to end after so many seconds."""
    running = asyncio.create_task(scene.run())
    await scene.clock.sleep(after)
    holder, alive = read_holder(scene.root / "virtual", now=scene.clock.now())
    assert holder is not None
    assert alive
    ask_to_stop(scene.root / "virtual", how, holder.token, now=scene.clock.now())
    return await running


def in_flight(scene: Scene) -> int:
    ledger = Ledger(scene.root / "virtual")
    latest = [ledger.latest(key) for key in ledger.keys()]  # noqa: SIM118  a ledger is no dict
    return sum(attempt is not None and attempt.outcome is None for attempt in latest)


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_empties_the_queue_and_the_study_goes_on_to_its_whole_budget(tmp_path: Path, kind: str) -> None:
    async def story() -> tuple[StudyRecord, int, int, StudyRecord, Scene]:
        scene = Scene(tmp_path, kind)
        stopped = await asked(scene, Stop.CANCEL, 700.0)
        left, ran = in_flight(scene), scene.runs_per_tag.total()
        await scene.clock.sleep(7200.0)
        assert scene.runs_per_tag.total() == ran  # nothing of ours started after its driver had ended
        return stopped, left, ran, await scene.run(), scene

    stopped, left, _, done, scene = run_virtual(story())
    assert (stopped.state, left) == ("interrupted", 0)
    unfinished = [trial.number for trial in stopped.trials if trial.state == "running"]
    assert len(unfinished) == 4
    assert [trial.job_id for trial in stopped.trials if trial.state == "running"] == [""] * 4
    assert [trial.state for trial in done.trials] == ["complete"] * TRIALS
    assert max(scene.runs_per_tag.values()) == 1
    # What was cancelled is no failure, and was run again; nothing else was.
    again = [trial.number for trial in done.trials if trial.attempts > 1]
    assert again == unfinished
    words = [event for event in scene.events if event["event"] == "stopping"]
    assert [event["how"] for event in words] == ["cancel"]


def test_drain_begins_no_trial_and_collects_those_in_flight(tmp_path: Path) -> None:
    async def story() -> tuple[StudyRecord, Scene]:
        scene = Scene(tmp_path)
        return await asked(scene, Stop.DRAIN, 30.0), scene

    record, scene = run_virtual(story())
    assert record.state == "interrupted"
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    assert in_flight(scene) == 0


def test_leave_ends_the_driver_while_its_jobs_run_on_and_the_next_one_finds_them(tmp_path: Path) -> None:
    async def story() -> tuple[StudyRecord, int, StudyRecord, Scene]:
        scene = Scene(tmp_path)
        left = await asked(scene, Stop.LEAVE, 100.0)
        flying = in_flight(scene)
        return left, flying, await scene.run(), scene

    left, flying, done, scene = run_virtual(story())
    assert (left.state, flying) == ("interrupted", 4)
    assert len(done.complete) == TRIALS
    assert {trial.attempts for trial in done.trials} == {1}
    assert scene.runs_per_tag.total() == TRIALS


def test_a_request_to_a_driver_that_has_ended_means_nothing_to_the_next(tmp_path: Path) -> None:
    async def story() -> StudyRecord:
        scene = Scene(tmp_path)
        await asked(scene, Stop.LEAVE, 100.0)
        ask_to_stop(scene.root / "virtual", Stop.CANCEL, 1, now=scene.clock.now())
        return await scene.run()

    record = run_virtual(story())
    assert record.state == "done"
    assert not (tmp_path / "virtual/stop").exists()


def test_a_driver_that_only_cancels_begins_nothing(tmp_path: Path) -> None:
    async def story() -> tuple[StudyRecord, int, Scene]:
        scene = Scene(tmp_path)
        await asked(scene, Stop.LEAVE, 100.0)
        driver = scene.driver()
        driver.cancel()
        return await driver.run(), in_flight(scene), scene

    record, flying, scene = run_virtual(story())
    assert (record.state, flying) == ("interrupted", 0)
    assert len(record.trials) == 4
    assert scene.events[-1]["event"] == "interrupted"
