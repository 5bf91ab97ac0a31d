"""The driver with earlier trials, in virtual time: whole studies, cut off and resumed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import ResumeMismatch
from orchestrator.search.driver import StudyDriver
from orchestrator.search.warm_start import FILE
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.record import StudyRecord


def study(**changes: Any) -> Study:
    data = {
        "name": "large",
        "objective": {"metric": "m", "direction": "minimize"},
        "space": {
            "x": {"type": "float", "low": 0.0, "high": 1.0},
            "k": {"type": "categorical", "choices": ["a", "b"]},
        },
        "sampler": {"name": "bo", "seed": 3},
        "warm_start": "earlier.jsonl",
        "trials": 8,
        "parallel": 2,
        "command": ["train"],
        "resources": {"gpus": 1, "walltime": 7200},
    }
    return Study.model_validate({**data, **changes})


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    x = float(params["x"])
    return Run(duration=300.0 + 900.0 * x, metrics={"m": (x - 0.3) ** 2 + (params["k"] == "b")})


def write_source(folder: Path) -> Path:
    path = folder / "earlier.jsonl"
    rows = [{"params": {"x": n / 20, "k": "ab"[n % 2]}, "metrics": {"m": (n / 20 - 0.35) ** 2}} for n in range(21)]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


class Scene:
    """A cluster that outlives its drivers."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, VirtualClock()
        self.transport = SimulatedTransport(self.clock, train, kind="slurm")
        self.events: list[Mapping[str, Any]] = []

    async def run(self, what: Study) -> StudyRecord:
        driver = StudyDriver(
            what,
            FLAVOURS["slurm"].site(),
            self.root / "runs",
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=self.events.append,
        )
        return await driver.run()

    async def cut_short(self, what: Study, seconds: float) -> None:
        task = asyncio.create_task(self.run(what))
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def whole(root: Path, what: Study, *moments: float, without_source: bool = False) -> tuple[StudyRecord, Scene]:
    """Run a study, cut off after each of the moments; perhaps without its source from the second driver on."""

    root.mkdir(exist_ok=True)
    source = write_source(root)

    async def play() -> tuple[StudyRecord, Scene]:
        s = Scene(root)
        for moment in moments:
            await s.cut_short(what, moment)
            if without_source:
                source.unlink(missing_ok=True)
        return await s.run(what), s

    return run_virtual(play())


def test_a_study_says_what_it_begins_with_and_keeps_it(tmp_path: Path) -> None:
    record, scene = whole(tmp_path, study())
    said = [event["message"] for event in scene.events if event["event"] == "warm-start"]
    assert said == [f"21 trials of {tmp_path}/earlier.jsonl, by their m"]
    kept = json.loads((tmp_path / "runs/large" / FILE).read_text())
    assert kept["trials"][7] == {"params": {"x": 0.35, "k": "b"}, "value": 0.0}
    assert record.provenance["warm_start"] == {"source": kept["source"], "trials": 21, "sha256": kept["sha256"]}
    assert [trial.state for trial in record.trials] == ["complete"] * 8


def test_bo_begins_with_the_best_of_the_source_and_random_values_by_turns(tmp_path: Path) -> None:
    warm, _ = whole(tmp_path / "warm", study())
    cold, _ = whole(tmp_path / "cold", study(warm_start=None))
    assert warm.trials[0].params["x"] == pytest.approx(0.35, abs=0.05)
    assert warm.trials[1].params == cold.trials[1].params


def test_a_study_that_is_cut_off_goes_on_as_it_would_have_without_its_source(tmp_path: Path) -> None:
    straight, _ = whole(tmp_path / "straight", study())
    cut, _ = whole(tmp_path / "cut", study(), 0.01, 700.0, 900.0, without_source=True)
    assert [trial.params for trial in cut.trials] == [trial.params for trial in straight.trials]


def test_other_samplers_run_the_best_configurations_first_within_the_budget(tmp_path: Path) -> None:
    what = study(sampler={"name": "random", "seed": 3}, warm_start={"table": "earlier.jsonl", "best": 2}, trials=5)
    record, _ = whole(tmp_path, what, 0.0, 0.01, 100.0)
    assert [dict(trial.params) for trial in record.trials[:2]] == [{"x": 0.35, "k": "b"}, {"x": 0.3, "k": "a"}]
    assert [trial.state for trial in record.trials] == ["complete"] * 5


def test_a_begun_study_cannot_get_another_source(tmp_path: Path) -> None:
    async def play() -> None:
        write_source(tmp_path)
        s = Scene(tmp_path)
        await s.cut_short(study(), 500.0)
        with pytest.raises(ResumeMismatch, match=r"warm_start\.table"):
            await s.run(study(warm_start="other.jsonl"))
        with pytest.raises(ResumeMismatch, match=r"warm_start\.table"):
            await s.run(study(warm_start=None))

    run_virtual(play())
