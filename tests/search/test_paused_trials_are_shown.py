"""Every reader of a study knows trials that are set aside: status, explain, report, doctor, a rebuilt database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_pruning import Scene, scene, states, study

from orchestrator.cli.app import main
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.store.record import StudyRecord
from orchestrator.studies.reader import read_study


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose driver has drained with trials set aside."""
    root = tmp_path_factory.mktemp("drained")

    async def body(s: Scene) -> None:
        await s.cut_short(450.0)
        driver = StudyDriver(
            study(), FLAVOURS["slurm"].site(), s.root, origin=s.root, clock=s.clock, transport=s.transport
        )
        driver.drain()
        await driver.run()

    scene(root, body)
    return root / "pruned"


@pytest.fixture
def place(drained: Path, tmp_path: Path) -> Path:
    shutil.copytree(drained, tmp_path / "pruned")
    return tmp_path / "pruned"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(list(words))
    captured = capsys.readouterr()
    return captured.out + captured.err


def paused(record: StudyRecord) -> list[int]:
    return [trial.number for trial in record.trials if trial.state == "paused"]


def test_status_and_explain_tell_of_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = paused(read_study(place))
    assert len(numbers) >= 3
    status = said(capsys, "status", str(place))
    assert f"{len(numbers)} paused" in status
    assert f"paused, to go on if they turn out to be among the best: {numbers[0]} (step 2: " in status
    explained = said(capsys, "explain", "--study", str(place))
    assert f"Set aside by the pruner: {', '.join(map(str, numbers[:8]))}" in explained
    one = said(capsys, "explain", str(numbers[0]), "--study", str(place))
    assert "as paused: paused at step 1: " in one
    assert "Next: it goes on from its checkpoint as soon as a slot is free and it is among the best" in one


def test_the_doctor_finds_nothing_wrong_with_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "doctor", str(place))
    assert f"{len(paused(read_study(place)))} paused" in found
    assert "the database was not told" not in found


def test_a_database_that_was_lost_is_made_again_with_them_to_be_taken_up(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = states(read_study(place))
    (place / "study.db").unlink()
    said(capsys, "doctor", str(place), "--rebuild")
    (place / "snapshot.json").unlink()
    after = states(read_study(place))
    assert after["running"] == before["paused"]
    assert sum(after.values()) == sum(before.values())
