"""The judge of the fault tests finds what it is there to find."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_deaths import killed
from fault_world import FaultWorld, play

from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.simulate.batchjob import Wish
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord


def _first(record: StudyRecord, **changes: object) -> StudyRecord:
    return dataclasses.replace(record, trials=(dataclasses.replace(record.trials[0], **changes), *record.trials[1:]))  # type: ignore[arg-type]


def _never_ran(world: FaultWorld) -> None:
    ledger = Ledger(world.folder)
    ledger.save(dataclasses.replace(ledger.attempts("00000")[0], notes=(NEVER_RAN,)))


def _another_start(world: FaultWorld, **changes: str) -> None:
    world.executions.append(dataclasses.replace(world.executions[0], **changes))  # type: ignore[arg-type]


def _other_result(world: FaultWorld, record: StudyRecord) -> None:
    path = f"{record.trials[0].directory}/result.json"
    text = (world.transport.files.read(path) or b"").decode()
    world.transport.files.write(path, text.replace('"m": ', '"m": 1').encode())


HARM: dict[str, tuple[str, Callable[[FaultWorld, StudyRecord], object]]] = {
    "paused": ("INV1", lambda _, record: dataclasses.replace(record, state="paused")),
    "no reason": ("INV1", lambda _, record: _first(record, state="failed", reason="", values=None)),
    "other value": ("INV2", _other_result),
    "running": ("INV3", lambda _, record: _first(record, state="running")),
    "one too few": ("INV4", lambda _, record: dataclasses.replace(record, trials=record.trials[1:])),
    "an orphan": ("INV5", lambda world, _: world.cluster.submit(Wish(name="t00009-aaaaaaaa", hold=True))),
    "a stranger": ("INV5", lambda world, _: world.cluster.cancel(world.strangers[0])),
    "unrecorded": ("INV6", lambda world, _: _another_start(world, tag="t00000-another0")),
    "twice": ("INV6", lambda world, _: _another_start(world)),
    "denied": ("INV6", lambda world, _: _never_ran(world)),
    "database": ("INV7", lambda _, record: _first(record, values=(17.0,))),
    "other history": ("INV8", lambda _, record: _first(record, params={"x": 0.5})),
    "open to all": ("INV9", lambda world, _: os.chmod(world.folder / "snapshot.json", 0o644)),
    "busy": ("INV10", lambda world, _: world.transport.login.calls.update({"squeue": 10**5})),
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_found_by_the_invariant_that_it_breaks(tmp_path: Path, harm: str) -> None:
    invariant, act = HARM[harm]

    async def body() -> None:
        world = FaultWorld(tmp_path)
        record = await world.run()
        changed = act(world, record)
        with pytest.raises(AssertionError, match=rf"(?m)^{invariant}:"):
            await world.holds(changed if isinstance(changed, StudyRecord) else record)

    play(body)


def test_a_driver_that_is_killed_leaves_its_lease_its_jobs_and_nothing_that_it_wrote_afterwards(tmp_path: Path) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path)
        assert await killed(world, seconds=200.0)
        assert '"released":null' in (world.folder / "driver.json").read_text()
        assert len(world.running()) == 3
        before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
        await world.idle(2000.0)
        assert {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()} == before
        assert [attempt.outcome for attempt in world.attempts()] == [None] * 3

    play(body)
