"""A trial of several runs: each a job of its own, side by side in free slots, and its values the means over them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.model import Outcome, Verdict
from orchestrator.search.agenda import Agenda
from orchestrator.search.driver import StudyDriver
from orchestrator.search.ending import ending
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord
from orchestrator.studies.reader import read_study

TRIALS, RUNS = 4, 3


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "repeated",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": TRIALS,
            "parallel": 4,
            "repeats": RUNS,
            "command": ["train"],
            "resources": {"gpus": 1, "walltime": 7200},
            **changes,
        }
    )


def value(order: Mapping[str, Any]) -> float:
    return float(order["number"] + 0.1 * order["run"])


def train(order: Mapping[str, Any], _params: Mapping[str, Any], _attempt: int) -> Run:
    return Run(duration=300.0 * order["run"], metrics={"m": value(order), "n": 2.0}, progress=[(1, value(order))])


class Scene:
    """A cluster that outlives its drivers, and what was ordered of it."""

    def __init__(self, root: Path, program: Any = train, kind: str = "slurm") -> None:
        self.root = root
        self.clock = VirtualClock()
        self.site = FLAVOURS[kind].site()
        self.orders: list[Mapping[str, Any]] = []
        self.events: list[Mapping[str, Any]] = []

        def noting(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
            self.orders.append(order)
            run: Run = program(order, params, attempt)
            return run

        self.transport = SimulatedTransport(self.clock, noting, kind=kind)

    async def run(self, what: Study | None = None) -> StudyRecord:
        driver = StudyDriver(
            what or study(),
            self.site,
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=self.events.append,
        )
        return await driver.run()

    async def cut_short(self, seconds: float, what: Study | None = None) -> None:
        task = asyncio.create_task(self.run(what))
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def scene(root: Path, body: Callable[[Scene], Awaitable[None]], program: Any = train) -> None:
    async def play() -> None:
        await body(Scene(root, program))

    run_virtual(play())


def test_each_run_is_a_job_of_its_own_and_the_trial_has_the_means(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        keys = {f"{number:05d}/run-{run}" for number in range(TRIALS) for run in range(1, RUNS + 1)}
        assert set(Ledger(tmp_path / "repeated").keys()) == keys
        assert Counter((order["number"], order["run"]) for order in s.orders) == Counter(
            (number, run) for number in range(TRIALS) for run in range(1, RUNS + 1)
        )
        assert {order["runs"] for order in s.orders} == {RUNS}
        for trial in record.trials:
            values = [trial.number + 0.1 * run for run in range(1, RUNS + 1)]
            assert trial.values == pytest.approx((statistics.fmean(values),))
            assert trial.metrics == pytest.approx({"m": statistics.fmean(values), "n": 2.0})
            assert trial.spread == pytest.approx({"m": statistics.stdev(values), "n": 0.0})
            assert [run.metrics["m"] for run in trial.runs] == pytest.approx(values)
            assert [Path(directory).parts[-3:] for directory in trial.directories] == [
                (f"{trial.number:05d}", f"run-{run}", "attempt-1") for run in range(1, RUNS + 1)
            ]
            assert dict(trial.steps) == {1: pytest.approx(statistics.fmean(values))}
        (s.root / "repeated" / "snapshot.json").unlink()
        assert read_study(s.root / "repeated").trials == record.trials

    scene(tmp_path, body)


def test_the_slots_are_jobs_and_a_new_trial_is_asked_for_only_where_no_run_waits(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.run()
        events = [event for event in s.events if event["event"] in {"asked", "planned", "ended"}]
        flying, most = 0, 0
        waiting = 0
        for event in events:
            if event["event"] == "asked":
                assert waiting < 4, "asked for another trial while runs waited for all slots"
                waiting += RUNS
            elif event["event"] == "planned":
                flying, waiting = flying + 1, waiting - 1
            else:
                flying -= 1
            most = max(most, flying)
        assert most == 4
        assert sum(event["event"] == "asked" for event in events[:3]) == 2, "four slots are two trials of three runs"

    scene(tmp_path, body)


def test_runs_of_one_index_have_one_seed_in_all_trials_and_those_of_a_trial_differ(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.run()
        seeds: dict[int, set[int]] = {}
        for order in s.orders:
            seeds.setdefault(order["run"], set()).add(order["seed"])
        assert [len(found) for found in seeds.values()] == [1] * RUNS
        assert len(set.union(*seeds.values())) == RUNS

    scene(tmp_path, body)


@pytest.mark.parametrize("seed", range(4))
def test_drivers_that_end_at_any_moment_run_no_run_twice(tmp_path: Path, seed: int) -> None:
    async def body(s: Scene) -> None:
        moments = random.Random(seed)
        for _ in range(5):
            await s.cut_short(moments.choice((0.01, 3.0, 60.0, 400.0, 900.0)) * moments.random())
            await asyncio.sleep(moments.choice((0.0, 1.0, 600.0)))
        record = await s.run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert set(Counter((order["number"], order["run"]) for order in s.orders).values()) == {1}
        assert len(s.orders) == TRIALS * RUNS
        assert all(len(trial.runs) == RUNS for trial in record.trials)

    scene(tmp_path, body)


def test_a_step_has_its_mean_also_where_the_runs_reported_it_to_different_drivers(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        few = study(parallel=1)
        await s.cut_short(500.0, few)
        assert [order["run"] for order in s.orders] == [1, 2], "the first run has ended, the second is in flight"
        record = await s.run(few)
        for trial in record.trials:
            assert dict(trial.steps) == {1: pytest.approx(trial.number + 0.2)}

    scene(tmp_path, body)


def failing(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    if order["number"] == 0 and order["run"] == 1:
        return Run(duration=60.0, exit_code=3)
    return train(order, params, attempt)


def test_a_run_that_fails_is_its_trials_failure_and_the_others_end_or_never_begin(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(study(parallel=2))
        failed = record.trials[0]
        assert failed.state == "failed"
        assert failed.verdict == "failed"
        assert failed.reason.startswith("run 1: ")
        assert [(run.run, run.verdict) for run in failed.runs] == [(1, "failed"), (2, "cancelled")]
        assert [trial.state for trial in record.trials[1:]] == ["complete"] * (TRIALS - 1)
        assert not any(order["number"] == 0 and order["run"] == 3 for order in s.orders), "the third run never began"
        assert (failed.ended or 0.0) - (failed.submitted or 0.0) < 600.0, "the second run was not waited for"

    scene(tmp_path, body, failing)


@pytest.mark.parametrize("seconds", [20.0, 61.0, 75.0, 90.0, 120.0, 400.0])
def test_a_driver_that_ends_around_the_failure_of_a_run_leaves_its_trial_to_the_next(
    tmp_path: Path, seconds: float
) -> None:
    async def body(s: Scene) -> None:
        few = study(parallel=2)
        await s.cut_short(seconds, few)
        await asyncio.sleep(100.0)
        record = await s.run(few)
        assert [trial.state for trial in record.trials] == ["failed", *["complete"] * (TRIALS - 1)]
        assert set(Counter((order["number"], order["run"]) for order in s.orders).values()) == {1}
        assert not any(order["number"] == 0 and order["run"] == 3 for order in s.orders)

    scene(tmp_path, body, failing)


def test_a_run_that_its_node_took_along_is_run_again_and_its_trial_goes_on(tmp_path: Path) -> None:
    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        if (order["number"], order["run"], attempt) == (1, 2, 1):
            return Run(duration=600.0, exit_code=85)
        return train(order, params, attempt)

    async def body(s: Scene) -> None:
        record = await s.run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert [run.attempts for run in record.trials[1].runs] == [1, 2, 1]
        assert record.trials[1].attempts == 2

    scene(tmp_path, body, program)


def outcome(run: int, verdict: Verdict = Verdict.SUCCEEDED, ended: float = 1.0, **metrics: float) -> Outcome:
    return Outcome(key=f"00000/run-{run}", verdict=verdict, ended=ended, metrics=metrics)


def test_the_first_run_without_a_result_is_the_one_that_is_told() -> None:
    sites = {1: "a", 2: "b", 3: "a"}
    outcomes = {
        1: outcome(1, Verdict.CANCELLED, ended=0.5),
        2: outcome(2, Verdict.OUT_OF_MEMORY, ended=3.0),
        3: outcome(3, Verdict.FAILED, ended=2.0),
    }
    told = ending(study(), outcomes, sites)
    assert (told.state, told.values) == ("failed", None)
    assert told.attributes["outcome"]["verdict"] == "failed"  # type: ignore[index, call-overload]
    only_cancelled = ending(study(), {1: outcome(1, Verdict.CANCELLED), 2: outcome(2, m=1.0)}, sites)
    assert only_cancelled.state == "failed"
    pruned = ending(study(), {1: outcome(1, Verdict.STOPPED), 2: outcome(2, Verdict.CANCELLED)}, sites)
    assert pruned.state == "pruned"


def test_numbers_near_the_largest_have_a_mean_and_no_spread_that_is_not_finite() -> None:
    told = ending(study(repeats=2), {1: outcome(1, m=1.7e308), 2: outcome(2, m=1.6e308)}, {1: "a", 2: "a"})
    assert told.values == pytest.approx([1.65e308])
    assert told.attributes["variance"] == []


def test_what_is_struck_off_the_agenda_is_never_taken() -> None:
    agenda = Agenda(3)
    agenda.add(0, {})
    agenda.add(1, {})
    first = agenda.take()
    assert first is not None
    agenda.ended(first, outcome(1, Verdict.FAILED))
    assert [(item.number, item.run) for item in agenda.ready] == [(1, 1), (1, 2), (1, 3)]
    assert agenda.close(0) == {1: outcome(1, Verdict.FAILED)}
    assert agenda.close(1) is None
