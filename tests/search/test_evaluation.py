"""The best trials run again on the test cases: in virtual time, with drivers that come to an end."""

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
from orchestrator.errors import HeldByAnother, ResumeMismatch, UsageError
from orchestrator.search.driver import StudyDriver
from orchestrator.search.evaluation import EvaluationDriver
from orchestrator.search.layout import StudyFolder
from orchestrator.search.places import Place
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.evaluation import EvaluationRecord, read_evaluation
from orchestrator.store.record import StudyRecord

BEST, RUNS = 3, 2


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "chosen",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": 8,
            "parallel": 4,
            "command": ["train"],
            "evaluate": {"command": ["test"], "metrics": ["t"], "best": BEST, "repeats": RUNS},
            "environment": {"BOTH": "1"},
            "resources": {"gpus": 1, "walltime": 7200},
            **changes,
        }
    )


class Scene:
    """A study that is done, and the cluster that it ran on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.site = FLAVOURS["slurm"].site()
        self.orders: list[Mapping[str, Any]] = []
        self.broken: set[tuple[int, int]] = set()
        self.events: list[Mapping[str, Any]] = []
        self.transport = SimulatedTransport(self.clock, self._program, kind="slurm")
        self.record: StudyRecord

    def _program(self, order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
        if order["command"] == ["train"]:
            return Run(duration=300.0, metrics={"m": float(params["x"])})
        self.orders.append(order)
        if (order["number"], order["run"]) in self.broken:
            return Run(duration=20.0, exit_code=1)
        return Run(duration=200.0 + 300.0 * float(params["x"]), metrics={"t": 10.0 * float(params["x"]) + order["run"]})

    async def search(self) -> None:
        what = study()
        driver = StudyDriver(what, self.site, self.root, origin=self.root, clock=self.clock, transport=self.transport)
        self.record = await driver.run()

    def evaluation(self, what: Study | None = None) -> EvaluationDriver:
        chosen = what or study()
        return EvaluationDriver(
            chosen,
            [Place(study=chosen, site=self.site, transport=self.transport)],
            StudyFolder(self.root / "chosen"),
            self.record.best(BEST),
            origin=self.root,
            clock=self.clock,
            on_event=self.events.append,
        )

    async def cut_short(self, seconds: float) -> None:
        task = asyncio.create_task(self.evaluation().run())
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def scene(root: Path, body: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        s = Scene(root)
        await s.search()
        await body(s)

    run_virtual(play())


def runs_of(record: EvaluationRecord) -> dict[tuple[int, int], str]:
    return {(trial.number, run.run): run.verdict for trial in record.trials for run in trial.runs}


def test_the_best_are_run_on_the_test_cases_with_seeds_of_their_own_and_the_search_never_learns(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        before = (s.root / "chosen" / "study.db").read_bytes()
        found = await s.evaluation().run()
        best = s.record.best(BEST)
        assert [trial.number for trial in found.trials] == [trial.number for trial in best]
        assert runs_of(found) == {(trial.number, run): "succeeded" for trial in best for run in (1, 2)}
        for trial, chosen in zip(found.trials, best, strict=True):
            x = float(chosen.params["x"])  # type: ignore[arg-type]
            assert trial.values == chosen.values
            result = trial.result("t")
            assert result is not None
            assert result == pytest.approx((10.0 * x + 1.5, 0.5**0.5, 2))
        assert {order["environment"]["SURVEY_SPLIT"] for order in s.orders} == {"test"}
        assert {order["environment"]["BOTH"] for order in s.orders} == {"1"}
        by_number = {trial.number: trial.directory for trial in best}
        assert all(order["environment"]["SURVEY_EVALUATED"] == by_number[order["number"]] for order in s.orders)
        seeds = {(order["run"], order["seed"]) for order in s.orders}
        assert len(seeds) == RUNS, "a run has one seed for all trials"
        assert read_evaluation(s.root / "chosen") == found
        assert (s.root / "chosen" / "study.db").read_bytes() == before

    scene(tmp_path, body)


@pytest.mark.parametrize("seed", range(3))
def test_an_evaluation_that_is_cut_off_at_any_moment_runs_nothing_twice(tmp_path: Path, seed: int) -> None:
    async def body(s: Scene) -> None:
        moments = random.Random(seed)
        for _ in range(4):
            await s.cut_short(moments.choice((0.01, 5.0, 200.0, 400.0)) * moments.random())
            await asyncio.sleep(moments.choice((0.0, 300.0)))
        found = await s.evaluation().run()
        assert set(runs_of(found).values()) == {"succeeded"}
        assert len(runs_of(found)) == BEST * RUNS
        assert set(Counter((order["number"], order["run"]) for order in s.orders).values()) == {1}

    scene(tmp_path, body)


def test_what_has_failed_is_run_again_the_next_time_and_nothing_else(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        number = s.record.best()[0].number
        s.broken.add((number, 2))
        found = await s.evaluation().run()
        assert runs_of(found)[number, 2] == "failed"
        assert (found.trials[0].result("t") or (0, 0, 0))[2] == 1
        s.broken.clear()
        found = await s.evaluation().run()
        assert set(runs_of(found).values()) == {"succeeded"}
        counts = Counter((order["number"], order["run"]) for order in s.orders)
        assert counts.pop((number, 2)) == 2
        assert set(counts.values()) == {1}

    scene(tmp_path, body)


def test_more_runs_and_more_trials_add_to_what_is_there(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        one = study(evaluate={"command": ["test"], "metrics": ["t"], "repeats": 1})
        await s.evaluation(one).run()
        assert len(s.orders) == BEST
        found = await s.evaluation().run()
        assert len(s.orders) == BEST * RUNS
        assert len(runs_of(found)) == BEST * RUNS

    scene(tmp_path, body)


def test_a_draining_evaluation_begins_no_more_runs(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        driver = s.evaluation(study(parallel=1))
        task = asyncio.create_task(driver.run())
        await asyncio.sleep(100.0)
        driver.drain()
        assert len(runs_of(await task)) == 1
        assert len(s.orders) == 1

    scene(tmp_path, body)


def test_another_command_is_refused_as_long_as_the_old_results_are_there(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.evaluation().run()
        other = study(evaluate={"command": ["test", "--otherwise"], "metrics": ["t"]})
        with pytest.raises(ResumeMismatch, match="evaluated before with another command"):
            await s.evaluation(other).run()

    scene(tmp_path, body)


def test_two_evaluations_of_one_study_do_not_run_at_once(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        task = asyncio.create_task(s.evaluation().run())
        await asyncio.sleep(50.0)
        with pytest.raises(HeldByAnother):
            await s.evaluation().run()
        await task

    scene(tmp_path, body)


def test_a_study_that_says_nothing_of_its_evaluation_is_told_what_to_write(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        with pytest.raises(UsageError, match="does not say how") as refused:
            s.evaluation(study(evaluate=None))
        assert "evaluate:" in refused.value.hint

    scene(tmp_path, body)
