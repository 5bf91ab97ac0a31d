"""A study that ends before its budget is spent, by a rule of its own: in virtual time, with the real driver."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_model
from orchestrator.config.stopping import Stopping
from orchestrator.config.study import Study
from orchestrator.errors import ConfigError
from orchestrator.search.driver import StudyDriver
from orchestrator.search.layout import StudyFolder
from orchestrator.search.places import Place
from orchestrator.search.stopping import why_stop
from orchestrator.search.usage import Hours, Usage
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.retrying import retry_trials
from orchestrator.store.studydb import StudyDatabase
from orchestrator.studies.reader import read_study

HOUR = 3600.0


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "early",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": 40,
            "parallel": 4,
            "command": ["train"],
            "resources": {"gpus": 2, "walltime": 7200},
            **changes,
        }
    )


def hour(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    """An hour, whose value grows with each trial: the first one is the best."""
    return Run(duration=HOUR, metrics={"m": float(_order["number"])})


class Scene:
    def __init__(self, root: Path, program: Any = hour) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.site = FLAVOURS["slurm"].site()
        self.transport = SimulatedTransport(self.clock, program, kind="slurm")
        self.events: list[Mapping[str, Any]] = []

    async def run(self, what: Study) -> StudyRecord:
        driver = StudyDriver(
            what,
            self.site,
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=self.events.append,
        )
        return await driver.run()


def play(root: Path, body: Callable[[Scene], Awaitable[None]], program: Any = hour) -> None:
    async def act() -> None:
        await body(Scene(root, program))

    run_virtual(act())


@pytest.mark.parametrize(
    ("rules", "trials", "words"),
    [
        ({"wall_clock": "3h30m"}, 16, "wall_clock: 3.5 h since its first trial are over"),
        ({"gpu_hours": 20}, 12, "gpu_hours: "),
        ({"node_hours": 16}, 16, "node_hours: "),
        ({"target": 5.0}, 8, "target: trial 0 has reached 5"),
        ({"patience": 9}, 13, "patience: 9 complete trials in a row were no better than 0"),
    ],
)
def test_the_first_rule_that_holds_ends_the_study_and_what_is_in_flight_finishes(
    tmp_path: Path, rules: dict[str, Any], trials: int, words: str
) -> None:
    async def body(s: Scene) -> None:
        what = study(stop=rules)
        record = await s.run(what)
        assert record.state == "done"
        assert record.message.startswith(words)
        assert {trial.state for trial in record.trials} == {"complete"}
        # What was in flight when the rule began to hold has finished and counts.
        assert abs(len(record.trials) - trials) <= what.parallel
        assert len(s.transport.executions) == len(record.trials)
        (said,) = [event["message"] for event in s.events if event["event"] == "enough"]
        assert said == record.message

        again = await s.run(what)
        assert (again.state, len(again.trials)) == ("done", len(record.trials))
        assert again.message.split(":")[0] == record.message.split(":")[0]
        (StudyFolder(s.root / "early").root / "snapshot.json").unlink()
        from_database = read_study(s.root / "early")
        assert from_database.state == "done"
        assert from_database.used == record.used

    play(tmp_path, body)


def test_a_study_whose_rule_is_taken_away_goes_on_to_its_budget(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(study(stop={"patience": 2}, trials=12))
        assert len(record.trials) < 12
        record = await s.run(study(trials=12))
        assert (record.state, record.message, len(record.complete)) == ("done", "", 12)

    play(tmp_path, body)


def test_hours_are_those_of_every_attempt_and_of_the_share_of_the_node_that_it_had(tmp_path: Path) -> None:
    async def body(s: Scene) -> None:
        record = await s.run(study(trials=6))
        assert record.used["gpu_hours"] == pytest.approx(12.0, rel=0.01)
        ledger = Ledger(tmp_path / "early")
        first = ledger.latest("00000")
        assert first is not None
        ledger.save(dataclasses.replace(first, packed=4))
        usage = Usage(ledger, [Place(study=study(), site=s.site)])
        usage.load([dataclasses.replace(trial, used={}) for trial in record.trials])
        assert usage.trials == 6
        assert usage.total.gpu_hours == record.used["gpu_hours"]
        assert usage.total.node_hours == pytest.approx(record.used["node_hours"] * (5 + 1 / 4) / 6)

    play(tmp_path, body)


def asked_again(s: Scene, what: Study, number: int) -> None:
    """As `survey retry` does."""
    with StudyDatabase.open(
        s.root / what.name,
        name=what.name,
        directions=[item.direction for item in what.targets],
        definition=what.frozen(),
        now=s.clock.now,
    ) as database:
        retry_trials(database, [number])


@pytest.mark.parametrize(("rules", "runs"), [({"target": 3.0}, True), ({"gpu_hours": 8}, False)])
def test_a_failed_trial_that_is_asked_for_again_is_run_unless_it_would_cost_more_than_the_study_may(
    tmp_path: Path, rules: dict[str, Any], runs: bool
) -> None:
    async def body(s: Scene) -> None:
        what = study(stop=rules, failures={"most": 1.0})
        broken = await s.run(what)
        (failed,) = [trial.number for trial in broken.trials if trial.state == "failed"]
        asked_again(s, what, failed)
        assert read_study(s.root / "early").state == ("interrupted" if runs else "done")
        record = await s.run(what)
        assert record.state == "done"
        assert [trial.state for trial in record.trials if trial.retry_of == failed] == (
            ["complete"] if runs else ["waiting"]
        )
        assert len(record.trials) == len(broken.trials) + 1
        assert record.message.startswith(next(iter(rules)))

    def program(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        return Run(duration=HOUR, exit_code=3) if order["number"] == 1 else hour(order, params, attempt)

    play(tmp_path, body, program)


class Spent(Usage):
    """An amount that was used by ten trials."""

    def __init__(self, gpu_hours: float) -> None:
        self._of_trials = {index: Hours(gpu_hours=gpu_hours / 10, node_hours=1.0) for index in range(10)}


def why(
    trials: Sequence[float | None], *, used: float = 0.0, in_flight: int = 0, up: bool = False, **rules: Any
) -> str:
    records = [
        TrialRecord(
            number=number,
            state="failed" if value is None else "complete",
            values=None if value is None else (value,),
            created=0.0,
            ended=float(number),
        )
        for number, value in enumerate(trials)
    ]
    records += [TrialRecord(number=100 + number, state="running", created=0.0) for number in range(in_flight)]
    direction = "maximize" if up else "minimize"
    return why_stop(Stopping(**rules), records, Spent(used), direction=direction, now=100.0)


def test_a_rule_holds_from_its_limit_on() -> None:
    assert not why([1.0], wall_clock=100.1)
    assert why([1.0], wall_clock=100.0)
    assert not why([], wall_clock=1.0)
    assert not why([1.0], used=10.0, gpu_hours=10.1)
    assert why([1.0], used=10.0, gpu_hours=10.0)
    assert not why([1.0], used=10.0, in_flight=4, gpu_hours=14.1)
    assert why([1.0], used=10.0, in_flight=4, gpu_hours=14.0) == (
        "gpu_hours: 10 of 14 are used, and trials in flight will use about 4"
    )


def test_the_target_is_reached_from_the_side_that_is_searched() -> None:
    assert not why([0.6], target=0.5)
    assert why([0.5], target=0.5)
    assert not why([0.4], target=0.5, up=True)
    assert why([0.7], target=0.5, up=True)


def test_patience_counts_complete_trials_since_the_last_new_best() -> None:
    assert not why([3.0, 4.0, None, None, 2.0, 5.0], patience=2)
    assert why([3.0, 4.0, None, 5.0], patience=2) == "patience: 2 complete trials in a row were no better than 3"
    assert why([3.0, 3.0, 3.0], patience=2), "an equal value is no new best"
    assert not why([3.0, 4.0, 5.0], patience=2, up=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stop: {patients: 3}", "patience"),
        ("stop: {patience: 0}", "patience"),
        ("stop: {gpu_hours: -1}", "gpu_hours"),
        ("stop: {wall_clock: soon}", "wall_clock"),
    ],
)
def test_a_mistake_in_a_rule_is_told_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    lines = ["name: a", "objective: {metric: m, direction: minimize}", "space: {x: 1}", "trials: 3", "command: x", text]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path / "study.yaml", Study, kind="study")
    assert words in str(caught.value)


def test_several_objectives_have_no_target(tmp_path: Path) -> None:
    objectives = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "minimize"}]
    with pytest.raises(ValueError, match="no one best value"):
        study(objective=None, objectives=objectives, stop={"target": 1.0})
