"""The real driver on emulated clusters, in virtual time: whole studies, and drivers that come to an end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import Paused
from orchestrator.search import asking
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.record import StudyRecord

TRIALS = 12


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "virtual",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": TRIALS,
            "parallel": 4,
            "command": ["train"],
            "resources": {"gpus": 1, "walltime": 7200},
            **changes,
        }
    )


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    x = float(params["x"])
    return Run(duration=300.0 + 900.0 * x, metrics={"m": (x - 0.3) ** 2}, progress=[(1, x), (2, x)])


class Scene:
    """A cluster that outlives its drivers."""

    def __init__(self, root: Path, kind: str = "slurm", program: Any = train) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.site = FLAVOURS[kind].site()
        self.transport = SimulatedTransport(self.clock, program, kind=kind)
        self.events: list[Mapping[str, Any]] = []

    def driver(self, what: Study | None = None) -> StudyDriver:
        return StudyDriver(
            what or study(),
            self.site,
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=self.events.append,
        )

    async def run(self, what: Study | None = None) -> StudyRecord:
        return await self.driver(what).run()

    async def cut_short(self, seconds: float) -> None:
        task = asyncio.create_task(self.run())
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    @property
    def runs_per_tag(self) -> Counter[str]:
        return Counter(execution.tag for execution in self.transport.executions)


def scene(root: Path, body: Callable[[Scene], Awaitable[None]], kind: str = "slurm", program: Any = train) -> None:
    async def play() -> None:
        await body(Scene(root, kind, program))

    run_virtual(play())


@pytest.mark.parametrize("kind", sorted(FLAVOURS))
def test_a_study_runs_to_its_end_on_every_flavour(tmp_path: Path, kind: str) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        assert record.state == "done"
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert set(s.runs_per_tag.values()) == {1}
        assert len(s.runs_per_tag) == TRIALS

    scene(tmp_path, body, kind)


@pytest.mark.parametrize(
    ("kind", "seed"), [*((kind, 0) for kind in sorted(FLAVOURS)), ("slurm", 1), ("slurm", 2), ("pjm", 1)]
)
def test_drivers_that_end_at_any_moment_cost_no_trial_and_run_none_twice(tmp_path: Path, kind: str, seed: int) -> None:
    async def body(s: Scene) -> None:
        moments = random.Random(seed)
        for _ in range(6):
            await s.cut_short(moments.choice((0.0, 0.01, 3.0, 60.0, 400.0, 900.0)) * moments.random())
            await asyncio.sleep(moments.choice((0.0, 1.0, 600.0)))
        record = await s.run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert set(s.runs_per_tag.values()) == {1}
        assert len(s.runs_per_tag) == TRIALS

    scene(tmp_path, body, kind)


def test_a_slot_that_frees_up_asks_at_once(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.run()
        told = [event["time"] for event in s.events if event["event"] == "told"]
        asked = [event["time"] for event in s.events if event["event"] == "asked"]
        assert asked[4:] == told[: TRIALS - 4]

    scene(tmp_path, body)


@pytest.mark.parametrize(("seconds", "slow"), [(60.0, 0), (0.0, TRIALS)])
def test_slots_that_wait_long_for_the_sampler_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, slow: int
) -> None:
    monkeypatch.setattr(asking, "_SLOW_ASK", seconds)

    async def body(s: Scene) -> None:
        assert (await s.run()).slow_asks == slow

    scene(tmp_path, body)


def test_the_first_fill_asks_for_all_slots_before_any_is_submitted(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.run()
        names = [event["event"] for event in s.events if event["event"] in {"asked", "submitted"}]
        assert names[:5] == ["asked"] * 4 + ["submitted"]

    scene(tmp_path, body)


def test_a_grid_ends_when_every_point_has_run(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        space = {
            "x": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.5},
            "k": {"type": "categorical", "choices": ["a", "b"]},
        }
        record = await s.run(study(space=space, sampler={"name": "grid"}, trials=50))
        assert sorted((trial.params["x"], trial.params["k"]) for trial in record.trials) == [
            (x, k) for x in (0.0, 0.5, 1.0) for k in ("a", "b")
        ]
        assert record.state == "done"

    scene(tmp_path, body)


def test_the_same_seed_gives_the_same_history_whatever_came_between(tmp_path: Path) -> None:
    histories = []
    for name in ("undisturbed", "cut"):
        (tmp_path / name).mkdir()

        async def body(s: Scene, name: str = name) -> None:
            if name == "cut":
                for seconds in (1.0, 500.0, 1500.0):
                    await s.cut_short(seconds)
            record = await s.run()
            histories.append([(trial.number, trial.params, trial.values) for trial in record.trials])

        scene(tmp_path / name, body)
    assert histories[0] == histories[1]


def test_failing_trials_in_a_row_pause_the_study_and_the_next_run_goes_on(tmp_path: Path) -> None:
    broken = [True]

    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        return Run(duration=10.0, exit_code=1) if broken[0] else train(order, params, attempt)

    async def body(s: Scene) -> None:
        careful = study(failures={"stop_after": 3, "most": 1.0})
        with pytest.raises(Paused, match="trials in a row failed"):
            await s.run(careful)
        broken[0] = False
        record = await s.run(careful)
        assert len(record.trials) == TRIALS
        assert record.state == "done"

    scene(tmp_path, body, program=program)


def test_reports_of_a_running_trial_reach_the_study_database(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        assert all(dict(trial.steps) == {1: trial.params["x"], 2: trial.params["x"]} for trial in record.trials)

    scene(tmp_path, body)
