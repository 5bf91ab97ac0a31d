"""Several objectives, constraints and conditions, by the real driver on an emulated cluster in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.study import load_study

from orchestrator.config.study import Study
from orchestrator.errors import NothingFeasible, TooManyFailures, UsageError
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.record import StudyRecord
from orchestrator.studies.reader import read_study

GOALS = [{"metric": "loss", "direction": "minimize"}, {"metric": "score", "direction": "maximize"}]


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "several",
            "objectives": GOALS,
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "y": {"type": "float", "low": 0.0, "high": 1.0},
                "kind": {"type": "categorical", "choices": ["plain", "deep"]},
                "depth": {"type": "int", "low": 1, "high": 4, "when": {"kind": "deep"}},
            },
            "sampler": {"name": "nsga2", "seed": 3, "options": {"population_size": 6}},
            "trials": 24,
            "parallel": 5,
            "command": ["train"],
            **changes,
        }
    )


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    """Loss and score cannot both be good; the memory grows with the depth."""
    x, y, depth = params["x"], params["y"], params.get("depth", 1)
    metrics = {"loss": x + y * y, "score": x - y * y, "memory": 4.0 * depth}
    if x > 0.95:
        del metrics["memory"]
    return Run(duration=60.0 + 600.0 * y, metrics=metrics)


class Scene:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.events: list[Mapping[str, Any]] = []
        self.transport = SimulatedTransport(self.clock, train, kind="slurm")

    def driver(self, what: Study) -> StudyDriver:
        return StudyDriver(
            what,
            FLAVOURS["slurm"].site(),
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=self.events.append,
        )

    async def run(self, what: Study) -> StudyRecord:
        return await self.driver(what).run()


def scene(root: Path, body: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        await body(Scene(root))

    run_virtual(play())


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_a_study_of_two_objectives_comes_to_a_front(tmp_path: Path, name: str) -> None:
    options = {"population_size": 6} if name == "nsga2" else {}

    async def body(s: Scene) -> None:
        record = await s.run(study(sampler={"name": name, "seed": 3, "options": options}))
        assert record.state == "done"
        assert record.objectives == ("loss", "score")
        assert all(len(trial.values or ()) == 2 for trial in record.complete)
        url = f"sqlite:///{tmp_path}/several/study.db.backup"
        optunas = load_study(study_name="several", storage=RDBStorage(url))
        assert sorted(trial.number for trial in record.front()) == [each.number for each in optunas.best_trials]
        assert len(record.front()) > 1

    scene(tmp_path, body)


def test_a_resumed_study_of_two_objectives_goes_on_as_it_would_have(tmp_path: Path) -> None:
    histories = []
    for name in ("undisturbed", "cut"):
        (tmp_path / name).mkdir()

        async def body(s: Scene, name: str = name) -> None:
            # One at a time: with more, what has ended when the driver comes back is told all at once.
            alone = study(parallel=1, trials=14)
            for seconds in (400.0, 1500.0) if name == "cut" else ():
                task = asyncio.create_task(s.run(alone))
                await asyncio.wait({task}, timeout=seconds)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            record = await s.run(alone)
            histories.append([(trial.number, trial.params, trial.values) for trial in record.trials])

        scene(tmp_path / name, body)
    assert histories[0] == histories[1]


def test_a_trial_beyond_a_bound_is_complete_but_never_on_the_front(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(study(constraints=[{"metric": "memory", "at_most": 8}]))
        deep = [trial for trial in record.complete if trial.metrics["memory"] > 8]
        assert deep
        assert all(trial.constraints == {"memory <= 8": trial.metrics["memory"] - 8} for trial in record.complete)
        assert not any(trial.feasible for trial in deep)
        assert all(trial.metrics["memory"] <= 8 for trial in record.front())
        told = {event["number"]: event.get("broken") for event in s.events if event["event"] == "told"}
        assert all(told[trial.number] == ["memory <= 8"] for trial in deep)
        assert read_study(tmp_path / "several") == record
        optunas = load_study(study_name="several", storage=RDBStorage(f"sqlite:///{tmp_path}/several/study.db.backup"))
        assert sorted(trial.number for trial in record.front()) == [each.number for each in optunas.best_trials]

    scene(tmp_path, body)


def test_a_trial_that_does_not_report_a_bounded_metric_has_failed(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        space = {"x": 0.99, "y": {"type": "float", "low": 0.0, "high": 1.0}}
        with pytest.raises(TooManyFailures, match="memory"):
            await s.run(study(space=space, constraints=[{"metric": "memory", "at_most": 8}], trials=3))

    scene(tmp_path, body)


@pytest.mark.parametrize("name", ["bo", "tpe", "random", "cmaes", "skopt"])
def test_samplers_of_one_objective_work_with_constraints(tmp_path: Path, name: str) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(
            study(
                objective=GOALS[0],
                objectives=None,
                constraints=[{"metric": "score", "at_least": 0.2}],
                sampler={"name": name, "seed": 1},
                trials=16,
                metrics=["memory"],
            )
        )
        (best,) = record.best()
        assert best.metrics["score"] >= 0.2
        assert record.feasible != record.complete

    scene(tmp_path, body)


def test_bo_finds_the_best_that_keeps_to_the_bounds(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        one = {
            "objective": GOALS[0],
            "objectives": None,
            "constraints": [{"metric": "score", "at_least": 0.5}],
            "trials": 20,
        }
        regrets = []
        for name in ("bo", "random"):
            record = await s.run(study(name=name, sampler={"name": name, "seed": 2}, **one))
            regrets += [trial.metrics["loss"] - 0.5 for trial in record.best()]
        assert regrets[0] < 0.5 * regrets[1]

    scene(tmp_path, body)


def test_a_study_in_which_nothing_is_feasible_ends_with_words_and_code_3(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        bounds = [{"metric": "memory", "at_most": 1}]
        with pytest.raises(NothingFeasible, match="none of 6 complete trials keeps to the constraints") as ended:
            await s.run(study(constraints=bounds, trials=6))
        assert "breaks memory <= 1 by 3" in ended.value.message
        assert ended.value.exit_code == 3
        record = read_study(tmp_path / "several")
        assert record.state == "done"
        assert record.best() == record.front() == ()

    scene(tmp_path, body)


def test_every_trial_meets_the_conditions_and_none_is_spent_on_another(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        where = ["x + y <= 0.7", "depth >= 3"]
        record = await s.run(study(where=where, trials=20))
        assert len(record.complete) == 20
        points: list[Any] = [trial.params for trial in record.trials]
        assert all(point["x"] + point["y"] <= 0.7 for point in points)
        assert all(point.get("depth", 3) >= 3 for point in points)
        assert {point["kind"] for point in points} == {"plain", "deep"}
        assert record.where == tuple(where)

    scene(tmp_path, body)


def test_a_condition_that_nothing_meets_ends_before_anything_is_asked_for(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        with pytest.raises(UsageError, match="meets the condition 'x > 2'"):
            await s.run(study(where=["x > 2"]))
        assert not s.transport.executions

    scene(tmp_path, body)


def test_of_several_objectives_the_front_keeps_its_artefacts(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        removed: list[str] = []
        driver = s.driver(study(keep={"best": 1}))
        make = driver._make_fleet

        def watched() -> Any:
            fleet = make()
            remove = fleet.remove

            async def noted(*paths: str) -> None:
                removed.extend(paths)
                await remove(*paths)

            fleet.remove = noted  # type: ignore[method-assign]
            return fleet

        driver._make_fleet = watched  # type: ignore[method-assign]
        record = await driver.run()
        gone = {path for path in removed if path.endswith("/artifacts")}
        on = {f"{trial.directory}/artifacts" for trial in record.front()}
        assert gone == {f"{trial.directory}/artifacts" for trial in record.complete} - on

    scene(tmp_path, body)
