"""Faults 43 to 53: drivers that die, meet, sleep, or come back to something else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_deaths import STEPS, Moment, killed
from fault_world import HOUR, THREE, TRIALS, FaultWorld, play, study

from orchestrator.errors import HeldByAnother, ResumeMismatch, SurveyError
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.clock import VirtualClock
from orchestrator.store import lease as leases

three = pytest.mark.parametrize("kind", THREE)
moments = pytest.mark.parametrize("moment", ["before", "after"])
POINTS = [(step, THREE[index % 3]) for index, step in enumerate(STEPS)]
KEPT = [(step, kind) for step in ("submit", "id store") for kind in THREE]


@moments
@pytest.mark.parametrize(("step", "kind"), sorted({*POINTS, *KEPT}))
def test_fault_43_a_driver_that_is_killed_at_a_step_loses_nothing_and_repeats_nothing(
    tmp_path: Path, kind: str, step: str, moment: Moment
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        assert await killed(world, step, moment, 3)
        await world.holds(await world.run())

    play(body)


@three
@pytest.mark.parametrize(
    "deaths",
    [
        [("submit", "after", 2), ("poll", "after", 1)],
        [("submit", "before", 2), ("revoke", "after", 1)],
        [("submit", "before", 2), ("revoke", "before", 1), ("id store", "before", 1)],
        [("intent", "after", 3), ("intent", "after", 1), ("submit", "after", 1)],
        [("tell", "before", 2), ("read result", "after", 1), ("tell", "after", 1)],
    ],
    ids=lambda deaths: ", ".join(f"{moment} {step}" for step, moment, _ in deaths),
)
def test_fault_44_drivers_killed_again_and_again_during_recovery_lose_nothing(
    tmp_path: Path, kind: str, deaths: list[tuple[str, Moment, int]]
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        died = [await killed(world, *death) for death in deaths]
        assert died[0]
        assert sum(died) > 1, "a second driver was to be killed too"
        await world.holds(await world.run())

    play(body)


@three
@pytest.mark.parametrize("way", ["drain", "leave"])
def test_fault_45_a_driver_that_is_asked_to_end_touches_no_job(tmp_path: Path, kind: str, way: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        driver = world.driver()
        task = asyncio.create_task(driver.run())
        await asyncio.sleep(200.0)
        getattr(driver, way)()
        record = await task
        assert record.state == "interrupted"
        assert world.calls("cancel") == 0
        if way == "drain":
            assert [trial.state for trial in record.trials] == ["complete"] * 3
        else:
            assert len(world.running()) == 3
        await world.holds(await world.run())

    play(body)


@three
def test_fault_46_of_two_drivers_at_once_one_is_sent_away_and_told_who_has_the_study(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)

        async def second() -> None:
            for pause in (0.0, 100.0, 400.0):
                await asyncio.sleep(pause)
                with pytest.raises(HeldByAnother, match=f"process {os.getpid()}") as caught:
                    await world.run()
                assert caught.value.exit_code == 5

        await world.holds(await world.run_while(second()))

    play(body)


class _Gate(VirtualClock):
    """The clock of a machine that can be stopped, and with it all that runs there."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.open.wait()

    async def blocking(self, function: Callable[[], Any]) -> Any:
        await self.open.wait()
        return await super().blocking(function)


def _elsewhere(world: FaultWorld, clock: VirtualClock) -> StudyDriver:
    """A driver on a login node of its own, whose clock is ``clock``."""
    return StudyDriver(world.study, world.site, world.root, origin=world.root, clock=clock, transport=world.transport)


def _grow_old(folder: Path) -> None:
    """The lease was last renewed an hour ago by the file server's clock, which is not virtual."""
    long_ago = time.time() - HOUR
    os.utime(folder / "driver.json", (long_ago, long_ago))


@three
@pytest.mark.parametrize("asleep", [300.0, 1200.0])
def test_fault_46_a_driver_that_slept_while_another_took_over_ends_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, asleep: float
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        gate = _Gate()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "login1")
            sleeper = asyncio.create_task(_elsewhere(world, gate).run())
            await asyncio.sleep(150.0)
        gate.open.clear()
        with pytest.raises(HeldByAnother, match="on login1"):
            await world.run()
        await asyncio.sleep(asleep)
        if asleep < leases.EXPIRY:
            gate.open.set()
            await world.holds(await sleeper)
            return
        _grow_old(world.folder)
        record = await world.run()
        before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
        gate.open.set()
        with pytest.raises(HeldByAnother):
            await sleeper
        assert {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()} == before
        await world.holds(record)

    play(body)


@three
def test_fault_47_the_lease_of_a_host_that_is_gone_is_taken_over_when_it_has_expired_and_not_before(
    tmp_path: Path, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        assert await killed(world, seconds=200.0)
        driver = world.folder / "driver.json"
        holder = json.loads(driver.read_text())
        driver.write_text(json.dumps({**holder, "host": "gone.example.org"}))
        await asyncio.sleep(300.0)
        with pytest.raises(HeldByAnother, match=r"gone\.example\.org") as caught:
            await world.run()
        assert "expires in" in caught.value.hint
        await asyncio.sleep(leases.EXPIRY)
        _grow_old(world.folder)
        await world.holds(await world.run())

    play(body)


@three
def test_fault_47_a_process_id_that_another_program_has_now_holds_nothing(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        assert await killed(world, seconds=200.0)
        holder = json.loads((world.folder / "driver.json").read_text())
        assert holder["pid"] == os.getpid(), "a process of that number runs: this one"
        await world.holds(await world.run())

    play(body)


CHANGED: dict[str, dict[str, Any]] = {
    "space.x.high": {"space": {"x": {"type": "float", "low": 0.0, "high": 2.0}}},
    "sampler.name": {"sampler": {"name": "tpe", "seed": 5}},
    "sampler.seed": {"sampler": {"name": "random", "seed": 6}},
    "trials": {"trials": 2},
    "command": {"command": ["train", "--other"]},
    "storage": {"storage": None},
}


@pytest.mark.parametrize("key", CHANGED)
def test_fault_48_another_definition_is_refused_with_what_differs_and_the_history_stays(
    tmp_path: Path, key: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path)
        await world.cut_short(700.0)
        with pytest.raises(ResumeMismatch, match=rf"{key}.*: .* -> ") as caught:
            await world.run(study(**CHANGED[key]))
        assert caught.value.exit_code == 6
        await world.holds(await world.run())

    play(body)


@three
def test_fault_49_a_finished_study_that_is_run_again_runs_nothing(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        first = await world.run()
        submits, now = world.calls("submit"), world.clock.now()
        again = await world.run()
        assert world.calls("submit") == submits
        assert world.clock.now() - now < 60.0
        assert [dataclasses.replace(trial) for trial in again.trials] == list(first.trials)
        await world.holds(again)

    play(body)


@three
def test_fault_50_more_trials_on_resume_run_exactly_the_difference(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        await world.run()
        world.study = study(trials=TRIALS + 2)
        record = await world.run()
        assert record.planned == TRIALS + 2
        assert world.calls("submit") == TRIALS + 2
        await world.holds(record)

    play(body)


@pytest.mark.parametrize("file", ["ledger/00001/attempt-1.json", "study.yaml"])
def test_fault_51_files_of_a_newer_program_are_refused_by_name_and_not_changed(tmp_path: Path, file: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path)
        await world.cut_short(700.0)
        path = world.folder / file
        text = path.read_text()
        newer = text.replace('"version":1', '"version":2').replace("schema_version: 1", "schema_version: 2")
        assert newer != text
        path.write_text(newer)
        with pytest.raises(SurveyError, match=r"version") as caught:
            await world.run()
        assert file.rpartition("/")[2] in str(caught.value)
        assert path.read_text() == newer
        path.write_text(text)
        await world.holds(await world.run())

    play(body)


@three
def test_fault_52_another_time_zone_and_the_end_of_summer_time_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, zone=9.0)

        async def travel() -> None:
            for zone in ("Asia/Tokyo", "America/St_Johns", "UTC"):
                await asyncio.sleep(250.0)
                monkeypatch.setenv("TZ", zone)
                time.tzset()

        record = await world.run_while(travel())
        await world.holds(record)
        assert not world.said("retry")
        # An hour that came twice would show in the waits and the run times.
        assert all(0 <= (trial.ended or 0) - (trial.started or 0) < HOUR for trial in record.trials)

    try:
        play(body)
    finally:
        monkeypatch.undo()
        time.tzset()


@three
def test_fault_53_a_study_whose_folder_was_moved_goes_on(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        driver = world.driver()
        task = asyncio.create_task(driver.run())
        await asyncio.sleep(700.0)
        driver.drain()
        await task
        moved = tmp_path / "elsewhere" / "deeper"
        moved.mkdir(parents=True)
        shutil.move(world.folder, moved / world.study.name)
        world.root = moved
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@three
def test_fault_53_jobs_that_ran_when_the_folder_was_moved_are_run_once_more(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        await world.cut_short(500.0)
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        files = world.transport.files
        for attempt in world.attempts():
            folder = f"{world.study.name}/trials/{attempt.key}/attempt-{attempt.number}"
            for name in files.names(f"{tmp_path}/{folder}"):
                files.write(f"{moved}/{folder}/{name}", files.read(f"{tmp_path}/{folder}/{name}") or b"")
        shutil.move(world.folder, moved / world.study.name)
        world.root = moved
        # What the jobs write, they write to the old place.
        await world.holds(await world.run(), once=False)
        assert [attempt.number for attempt in world.attempts()].count(2) == 3

    play(body)
