"""The judges judged: each invariant finds what it is there for, and crash points find drivers that are careless."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos_crash import Gate, Killed, Point
from chaos_invariants import INVARIANTS, Evidence, Ran, violations
from chaos_world import CANARY, World

from orchestrator.jobs import submission
from orchestrator.jobs.submission import NotThere
from orchestrator.search import asking
from orchestrator.simulate.clock import run_virtual
from orchestrator.store import lease

pytestmark = pytest.mark.usefixtures("each_driver_is_a_process_of_its_own")

SMALL = {"trials": 4, "parallel": 2}


def left_by(place: Path, *deaths: Point) -> Evidence:
    async def body() -> Evidence:
        world = World(place, study=SMALL)
        for death in deaths:
            await world.live(death)
        await world.finish()
        return await world.evidence(world.history())

    return run_virtual(body())


def broken(evidence: Evidence) -> set[str]:
    return {words.partition(":")[0] for words in violations(evidence)}


def in_database(evidence: Evidence, statement: str) -> None:
    with sqlite3.connect(evidence.root / "study.db") as connection:
        connection.execute(statement)
    connection.close()


def in_ledger(evidence: Evidence, number: int, change: Callable[[dict[str, Any]], None], attempt: int = 1) -> None:
    folder = evidence.root / "ledger" / f"{number:05d}"
    data = json.loads((folder / "attempt-1.json").read_text())
    change(data)
    (folder / f"attempt-{attempt}.json").touch(0o600)
    (folder / f"attempt-{attempt}.json").write_text(json.dumps(data))


def test_a_sound_study_breaks_no_invariant(place: Path) -> None:
    assert violations(left_by(place)) == []


def test_every_invariant_is_judged() -> None:
    assert list(INVARIANTS) == [f"INV{number}" for number in range(1, 11)]


def failed_without_a_reason(evidence: Evidence) -> Evidence:
    in_database(evidence, "UPDATE trials SET state = 'FAIL' WHERE number = 1")
    in_database(evidence, "DELETE FROM trial_values WHERE trial_id = 2")
    in_database(evidence, "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'outcome' AND trial_id = 2")
    return evidence


def another_value(evidence: Evidence) -> Evidence:
    in_database(evidence, "UPDATE trial_values SET value = value + 1 WHERE trial_id = 3")
    return evidence


def left_running(evidence: Evidence) -> Evidence:
    in_database(evidence, "UPDATE trials SET state = 'RUNNING' WHERE number = 2")
    return evidence


def one_too_many(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, trials=3)


def an_orphan(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, queue=["t00003-k3j9x2q8"])


def a_job_of_others(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, harmed=["t00001"])


def an_execution_more(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, executions=[*evidence.executions, evidence.executions[0]])


def an_execution_that_is_not_in_the_ledger(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, executions=[*evidence.executions, Ran("t00009-zzzzzzzz", "99")])


def a_retry_that_was_not_due(evidence: Evidence) -> Evidence:
    in_ledger(evidence, 0, lambda data: data.update(number=2, tag="t00000-zzzzzzzz"), attempt=2)
    return evidence


def no_database_any_more(evidence: Evidence) -> Evidence:
    (evidence.root / "study.db").write_bytes(b"this is no database")
    return evidence


def another_history(evidence: Evidence) -> Evidence:
    assert evidence.undisturbed is not None
    (number, state, _, values), *rest = evidence.undisturbed
    return dataclasses.replace(evidence, undisturbed=[(number, state, {"x": 0.5}, values), *rest])


def a_secret(evidence: Evidence) -> Evidence:
    with (evidence.root / "events.jsonl").open("a") as file:
        file.write(f"connecting to postgresql://me:{CANARY}@server/db\n")
    return evidence


def an_open_door(evidence: Evidence) -> Evidence:
    (evidence.root / "ledger").chmod(0o755)
    return evidence


def an_endless_question(evidence: Evidence) -> Evidence:
    return dataclasses.replace(evidence, commands=100_000)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (failed_without_a_reason, {"INV1", "INV2", "INV8"}),
        (another_value, {"INV2", "INV8"}),
        (left_running, {"INV1", "INV2", "INV3", "INV8"}),
        (one_too_many, {"INV4"}),
        (an_orphan, {"INV5"}),
        (a_job_of_others, {"INV5"}),
        (an_execution_more, {"INV6"}),
        (an_execution_that_is_not_in_the_ledger, {"INV6"}),
        (a_retry_that_was_not_due, {"INV2", "INV6"}),
        (no_database_any_more, {"INV7"}),
        (another_history, {"INV8"}),
        (a_secret, {"INV9"}),
        (an_open_door, {"INV9"}),
        (an_endless_question, {"INV10"}),
    ],
)
def test_harm_is_found_by_the_invariant_that_it_breaks(
    place: Path, harm: Callable[[Evidence], Evidence], found: set[str]
) -> None:
    assert broken(harm(left_by(place))) >= found


def test_a_driver_that_submits_again_without_looking_is_caught(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blindly(_submitter: object, _attempt: object) -> NotThere:
        return NotThere(evidence="")

    monkeypatch.setattr(submission.Submitter, "recover", blindly)
    assert "INV6" in broken(left_by(place, Point("submit", "after", 2)))


def test_a_driver_that_forgets_what_it_has_asked_for_is_caught(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.Asker, "_ask_now", _forgetful(asking.Asker._ask_now))
    assert "INV4" in broken(left_by(place))


def _forgetful(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def ask(self: Any) -> Any:
        number, params = original(self)
        self.planned = min(self.planned, number)
        return number, params

    return ask


def test_the_lease_of_a_driver_that_died_while_it_took_it_is_in_nobody_s_way(place: Path) -> None:
    evidence = left_by(place, Point("lease: shown", "before"), Point("lease: token", "within"))
    assert violations(evidence) == []
    assert (evidence.root / lease.DRIVER).exists()


def test_nothing_passes_a_closed_gate() -> None:
    gate = Gate(Point("ledger: plan", "after"))
    with pytest.raises(Killed), gate.step("ledger: plan"):
        pass
    with pytest.raises(Killed), gate.step("database: trial"):
        raise AssertionError
    assert gate.reached["database: trial", "before"] == 0


def test_a_killed_driver_leaves_what_a_killed_process_leaves(place: Path) -> None:
    async def body() -> World:
        world = World(place, study=SMALL)
        life = await world.live(Point("ledger: plan", "within"))
        assert life.end == "killed"
        await asyncio.sleep(600.0)
        return world

    world = run_virtual(body())
    left = [path.name for path in (world.folder / "ledger" / "00000").iterdir()]
    assert [name.endswith(".tmp") for name in left] == [True], "a temporary file, and no attempt under its own name"
    assert json.loads((world.folder / lease.DRIVER).read_text())["released"] is None
    assert world.transport.executions == []
