"""Pruners in whole studies, by the real driver on an emulated cluster in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import Paused
from orchestrator.model import Verdict
from orchestrator.search.driver import StudyDriver
from orchestrator.search.layout import trial_key
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.studies.reader import read_study

STEPS = 16
ASHA = {"name": "asha", "min_step": 1, "max_step": STEPS, "reduction_factor": 4}


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "pruned",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": 16,
            "parallel": 4,
            "command": ["train"],
            "resources": {"gpus": 1, "walltime": 7200},
            "pruner": ASHA,
            **changes,
        }
    )


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    """Sixteen steps of 100 s; a trial that is better at its end is better on the way."""
    x = float(params["x"])
    progress = [(step, x + 1.0 / step) for step in range(1, STEPS + 1)]
    return Run(duration=100.0 * (STEPS + 1), metrics={"m": x}, progress=progress, checkpoint=True, resumes=True)


class Scene:
    """A cluster that outlives its drivers."""

    def __init__(self, root: Path, program: Any = train) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.transport = SimulatedTransport(self.clock, program)
        self.events: list[Mapping[str, Any]] = []

    async def run(self, what: Study | None = None) -> StudyRecord:
        driver = StudyDriver(
            what or study(),
            FLAVOURS["slurm"].site(),
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

    def named(self, event: str) -> list[Mapping[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def attempts(self, number: int) -> list[Verdict]:
        ledger = Ledger(self.root / "pruned")
        return [each.outcome.verdict for each in ledger.attempts(trial_key(number)) if each.outcome is not None]

    def steps_done(self) -> int:
        """Reports of all programs, each counted as often as it was made."""
        return sum(
            len((self.transport.files.read(f"{folder}/progress.jsonl") or b"").splitlines())
            for folder in self.transport.files._folders
        )


def scene(root: Path, body: Callable[[Scene], Awaitable[None]], program: Any = train) -> None:
    async def play() -> None:
        await body(Scene(root, program))

    run_virtual(play())


def states(record: StudyRecord) -> Counter[str]:
    return Counter(trial.state for trial in record.trials)


def best(record: StudyRecord) -> TrialRecord:
    return record.best()[0]


def x_of(trial: TrialRecord) -> float:
    x = trial.params["x"]
    assert isinstance(x, float)
    return x


def test_asha_brings_the_best_trial_to_its_end_and_few_of_the_others(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        assert record.state == "done"
        assert states(record) == {"complete": 1, "pruned": 15}
        assert x_of(best(record)) == min(map(x_of, record.trials))
        assert s.steps_done() < 16 * STEPS / 3

    scene(tmp_path, body)


def test_a_paused_trial_frees_its_slot_and_goes_on_in_another_attempt_where_it_was(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        number = best(record).number
        verdicts = s.attempts(number)
        assert verdicts[-1] is Verdict.SUCCEEDED
        assert set(verdicts[:-1]) == {Verdict.PAUSED}
        folder = s.root / "pruned" / "trials" / trial_key(number)
        seen = []
        for attempt in range(1, len(verdicts) + 1):
            content = s.transport.files.read(f"{folder}/attempt-{attempt}/progress.jsonl") or b""
            seen += [json.loads(line)["step"] for line in content.splitlines()]
        assert seen == list(range(1, STEPS + 1)), "no step is done twice and none is left out"
        assert len(s.named("promoted")) >= 1

    scene(tmp_path, body)


def test_a_free_slot_takes_a_trial_that_may_go_on_before_a_new_one(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.run(study(trials=40))
        names = [each["event"] for each in s.events if each["event"] in {"promoted", "asked"}]
        assert "promoted" in names[: names.index("asked", 25)]

    scene(tmp_path, body)


def test_a_paused_trial_counts_once_in_the_budget_and_is_pruned_at_the_end_with_its_last_value(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run()
        assert [trial.number for trial in record.trials] == list(range(16))
        for trial in record.trials:
            if trial.state == "pruned":
                assert trial.verdict == "paused"
                assert trial.reason.startswith("paused at step ")
                assert trial.values == (trial.steps[max(trial.steps)],)

    scene(tmp_path, body)


@pytest.mark.parametrize("seconds", [[150.0, 250.0], [320.0, 1.0, 400.0], [700.0, 700.0, 700.0, 700.0], [90.0] * 12])
def test_drivers_that_end_at_any_moment_lose_no_paused_trial_and_repeat_no_step(
    tmp_path: Path, seconds: list[float]
) -> None:
    async def body(s: Scene) -> None:
        for each in seconds:
            await s.cut_short(each)
            await asyncio.sleep(33.0)
        record = await s.run()
        assert sum(states(record).values()) == 16
        assert states(record)["complete"] >= 1
        assert x_of(best(record)) == min(map(x_of, record.trials))
        assert s.steps_done() < 16 * STEPS
        runs = Counter(execution.tag for execution in s.transport.executions)
        assert set(runs.values()) == {1}

    scene(tmp_path, body)


def test_a_study_that_drains_leaves_its_paused_trials_for_the_next_driver(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.cut_short(450.0)
        await asyncio.sleep(3600.0)
        driver = StudyDriver(
            study(), FLAVOURS["slurm"].site(), s.root, origin=s.root, clock=s.clock, transport=s.transport
        )
        driver.drain()
        left = await driver.run()
        assert left.state == "interrupted"
        assert states(left)["paused"] >= 3
        paused = next(trial for trial in left.trials if trial.state == "paused")
        assert paused.reason.startswith("paused at step 1: ")
        record = await s.run()
        assert record.state == "done"
        assert states(record)["complete"] >= 1

    scene(tmp_path, body)


def test_a_study_that_is_driven_by_one_pass_now_and_then_comes_to_its_end(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        passes = 0
        while passes < 100:
            driver = StudyDriver(
                study(trials=8), FLAVOURS["slurm"].site(), s.root, origin=s.root, clock=s.clock, transport=s.transport
            )
            begun = s.clock.now()
            driver.pass_once(3600.0)
            if (await driver.run()).state == "done":
                break
            assert s.clock.now() - begun < 600.0, "it waits for nothing"
            passes += 1
            await asyncio.sleep(300.0)
        record = read_study(s.root / "pruned")
        assert sum(states(record).values()) == 8
        assert 1 <= states(record)["complete"] < 8

    scene(tmp_path, body)


def test_without_its_pruner_a_study_brings_its_paused_trials_to_their_ends(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        await s.cut_short(700.0)
        record = await s.run(study(pruner=None))
        assert states(record) == {"complete": 16}

    scene(tmp_path, body)


def test_the_median_pruner_ends_a_bad_trial_early_and_says_why(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        median = {"name": "median", "startup_trials": 2, "warmup_steps": 3}
        record = await s.run(study(pruner=median))
        count = states(record)
        assert count["complete"] + count["pruned"] == 16
        assert count["pruned"] >= 3
        pruned = next(trial for trial in record.trials if trial.state == "pruned")
        assert pruned.verdict == "stopped"
        assert pruned.reason.startswith("pruned at step ")
        assert "median" in pruned.reason
        assert pruned.values == (pruned.steps[max(pruned.steps)],)
        assert min(max(trial.steps) for trial in record.trials) >= 3
        judged = [trial for trial in record.trials[6:] if trial.state == "pruned"]
        assert min(map(x_of, judged)) > x_of(best(record))

    scene(tmp_path, body)


def test_hyperband_prunes_in_brackets(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(study(pruner={"name": "hyperband", "max_step": STEPS}, trials=20))
        count = states(record)
        assert count["complete"] + count["pruned"] == 20
        assert count["pruned"] >= 5
        assert count["complete"] >= 1
        assert all("bracket" in trial.reason for trial in record.trials if trial.state == "pruned")

    scene(tmp_path, body)


def test_a_program_that_does_not_look_for_stop_runs_to_its_end_and_is_complete(tmp_path: Path) -> None:
    def deaf(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        run = train(order, params, attempt)
        return Run(duration=run.duration, metrics=run.metrics, progress=run.progress, heeds_stop=False)

    async def body(s: Scene) -> None:
        record = await s.run(study(trials=6))
        assert states(record) == {"complete": 6}
        assert {tuple(s.attempts(number)) for number in range(6)} == {(Verdict.SUCCEEDED,)}

    scene(tmp_path, body, deaf)


def test_a_program_that_reports_nothing_pauses_the_study_once_with_words(tmp_path: Path) -> None:
    def silent(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
        return Run(duration=600.0, metrics={"m": float(params["x"])})

    async def body(s: Scene) -> None:
        with pytest.raises(Paused, match=r"without a single report: pruner asha .*") as caught:
            await s.run(study(trials=6))
        assert "progress" in caught.value.hint or "report" in caught.value.hint
        record = await s.run(study(trials=6))
        assert states(record) == {"complete": 6}

    scene(tmp_path, body, silent)


def test_a_trial_that_fails_after_it_was_promoted_is_a_failure_like_any_other(tmp_path: Path) -> None:
    def fragile(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        return train(order, params, attempt) if attempt == 1 else Run(duration=20.0, exit_code=1)

    async def body(s: Scene) -> None:
        record = await s.run(study(failures={"most": 1.0}))
        assert record.state == "done"
        failed = [trial for trial in record.trials if trial.state == "failed"]
        assert failed
        assert all(s.attempts(trial.number) == [Verdict.PAUSED, Verdict.FAILED] for trial in failed)

    scene(tmp_path, body, fragile)
