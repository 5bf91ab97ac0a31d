"""Checkpoints of a training without a framework: kept bit by bit, taken up by the same training alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from orchestrator import trial
from workloads.training.checkpoint import Checkpoints, State, random_state, set_random_state

IDENTITY = {"rate": 0.1, "seed": 3, "patch": [12, 12, 12]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SURVEY_CHECKPOINT", str(tmp_path / "checkpoint"))
    return tmp_path / "checkpoint"


def state(step: int) -> State:
    arrays = {"w": np.array([0.1, np.nan, -0.0, 5e-324]), "n": np.array(step, dtype=np.int64)}
    return State(step=step, arrays=arrays, facts={"losses": [0.5] * step})


def test_a_state_comes_back_bit_by_bit(folder: Path) -> None:
    Checkpoints(IDENTITY).save(state(2))
    Checkpoints(IDENTITY).save(state(3))
    found = Checkpoints({**IDENTITY, "patch": (12, 12, 12)}).load()
    assert found is not None
    assert (found.step, found.facts) == (3, {"losses": [0.5] * 3})
    assert found.arrays["w"].tobytes() == state(3).arrays["w"].tobytes()
    assert found.arrays["n"].dtype == np.int64
    assert found.arrays["n"].shape == ()


def test_a_checkpoint_of_another_training_is_not_taken_up_and_that_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(IDENTITY).save(state(2))
    assert Checkpoints({**IDENTITY, "seed": 4}).load() is None
    assert "is of another training: training from the beginning" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["facts.json", "arrays.npz"])
def test_a_checkpoint_that_cannot_be_read_costs_the_work_but_not_the_trial(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Checkpoints(IDENTITY).save(state(2))
    found = trial.latest_checkpoint()
    assert found is not None
    Path(found[1], name).write_text("{")
    assert Checkpoints(IDENTITY).load() is None
    assert "cannot be read" in capsys.readouterr().err


def test_outside_a_survey_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_hand = Checkpoints(IDENTITY, every=0.0)
    assert not by_hand.due
    by_hand.save(state(1))
    assert by_hand.load() is None
    assert not list(tmp_path.iterdir())


def test_a_short_training_writes_none_and_an_impatient_one_after_every_epoch(folder: Path) -> None:
    assert not Checkpoints(IDENTITY).due
    assert Checkpoints(IDENTITY, every=0.0).due


def test_the_global_generators_go_on_where_they_were(folder: Path) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the generator that is tested
    np.random.normal()  # noqa: NPY002 - leaves the second of a pair in memory
    random.gauss(0.0, 1.0)
    kept = json.loads(json.dumps(random_state()))
    first = [random.gauss(0.0, 1.0), random.random(), *np.random.normal(size=700)]  # noqa: NPY002
    set_random_state(kept)
    again = [random.gauss(0.0, 1.0), random.random(), *np.random.normal(size=700)]  # noqa: NPY002
    assert first == again
