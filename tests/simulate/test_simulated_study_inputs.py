"""What a simulated study is made of: distributions of times, tables of trainings, and what lies between their rows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import ConfigError, UsageError
from orchestrator.reports.export import to_csv, to_json
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.study_model import Machine, simulate_arm
from orchestrator.simulate.surrogate import Expected, Neighbours
from orchestrator.simulate.table import Table, read_table
from orchestrator.simulate.times import parse_times, recorded_times
from orchestrator.simulate.transport import SimulatedTransport

SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "layers": {"type": "int", "low": 1, "high": 9},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "momentum": {"type": "float", "low": 0.0, "high": 1.0, "when": {"optimizer": "sgd"}},
    "kind": "fixed",
}


def study(**changes: Any) -> Study:
    data = {
        "name": "tabled",
        "objective": {"metric": "auc", "direction": "maximize"},
        "space": SPACE,
        "sampler": {"name": "random", "seed": 1},
        "trials": 6,
        "command": ["train"],
    }
    return Study.model_validate({**data, **changes})


def auc(params: Mapping[str, Any]) -> float:
    return float(1.0 - abs(math.log10(params["lr"]) + 2.0) / 4.0 + 0.1 * params.get("momentum", 0.0))


def row(number: int, *, shift: float = 0.0) -> dict[str, Any]:
    """A configuration that spreads over the space with its number."""
    params: dict[str, Any] = {"lr": 10 ** (-4 * ((number * 0.618) % 1.0)), "layers": 1 + number % 9}
    params |= {"optimizer": "sgd", "momentum": (number * 0.37) % 1.0} if number % 2 else {"optimizer": "adam"}
    return {"params": params, "metrics": {"auc": auc(params) + shift, "side": 1.0}, "seconds": 100.0 + number}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(write(tmp_path / "t.jsonl", [row(number) for number in range(60)]), study())


# Times


@pytest.mark.parametrize(
    ("text", "typical"),
    [
        ("90", 90.0),
        ("2h", 7200.0),
        ("constant:5m", 300.0),
        ("uniform:10m:30m", 1200.0),
        ("exponential:1000", 693.1),
        ("lognormal:30m:1.2", 1800.0),
    ],
)
def test_draws_lie_around_the_median_that_was_asked_for(text: str, typical: float) -> None:
    times = parse_times(text, "wait", "--queue-wait")
    assert times.typical == pytest.approx(typical, rel=1e-3)
    draws = [times.draw(1, "wait", number) for number in range(2000)]
    assert statistics.median(draws) == pytest.approx(typical, rel=0.15)
    assert min(draws) >= 0.0


def test_a_draw_depends_on_the_seed_and_on_what_it_is_for() -> None:
    times = parse_times("exponential:1h", "wait", "--queue-wait")
    assert times.draw(1, "wait", 7, 0) == times.draw(1, "wait", 7, 0)
    assert len({times.draw(1, "wait", 7, 0), times.draw(2, "wait", 7, 0), times.draw(1, "wait", 8, 0)}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lognormal:30m", "write lognormal:MEDIAN:SIGMA"),
        ("lognorml:30m:1", 'did you mean "lognormal"'),
        ("soon", "neither a time nor a distribution"),
        ("uniform:2h:1h", "the least time is above the most"),
        ("uniform:2h:x", "expected a duration"),
        ("lognormal:30m:-1", "sigma must be zero or more"),
        ("lognormal:30m:nan", "sigma must be zero or more"),
        ("-5", "neither a time nor a distribution"),
    ],
)
def test_a_distribution_that_is_none_is_refused_with_the_forms_that_there_are(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        parse_times(text, "wait", "--queue-wait")
    assert refused.value.message.startswith("--queue-wait")
    assert "lognormal:MEDIAN:SIGMA" in refused.value.hint


def test_the_times_of_a_study_that_has_run_can_be_drawn_again(tmp_path: Path) -> None:
    def training(_params: Mapping[str, Any], seed: int) -> Expected:
        return Expected(metrics={"auc": 0.5}, seconds=100.0 + seed % 7)

    machine = Machine(queue_wait=parse_times("uniform:10m:20m", "wait", "--queue-wait"))
    record = simulate_arm(study(), training, machine, way="asynchronous", parallel=2, typical=100.0).record
    runs, waits = recorded_times(record, "run"), recorded_times(record, "wait")
    assert len(runs) == len(waits) == 6
    assert all(100.0 <= each <= 107.0 for each in runs)
    assert all(600.0 <= each <= 1300.0 for each in waits)


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    """The folder of a study that has run: each trial waited and ran for ten minutes."""

    def program(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
        return Run(duration=600.0, metrics={"auc": auc(params)})

    async def play() -> None:
        clock = VirtualClock()
        rules = FLAVOURS["slurm"].make_rules(queue_wait=lambda _job: 600.0)
        transport = SimulatedTransport(clock, program, rules=rules)
        site = FLAVOURS["slurm"].site()
        await StudyDriver(study(), site, tmp_path, origin=tmp_path, clock=clock, transport=transport).run()

    run_virtual(play())
    return tmp_path / "tabled"


def test_a_study_that_has_run_is_a_pilot_of_the_next(pilot: Path) -> None:
    assert parse_times(f"recorded:{pilot}", "run", "--run-time").typical == pytest.approx(600.0)
    assert parse_times(f"recorded:{pilot}", "wait", "--queue-wait").draw(1, 2) == pytest.approx(600.0, abs=1.0)
    table = read_table(pilot, study())
    assert [each.seconds for each in table.rows] == pytest.approx([600.0] * 6)
    assert table.values("auc") == pytest.approx([auc(each.params) for each in table.rows])


def test_a_folder_without_a_study_has_no_times(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study"):
        parse_times(f"recorded:{tmp_path}", "run", "--run-time")


# Tables


def flat_csv(rows: list[dict[str, Any]]) -> str:
    names = ["lr", "layers", "optimizer", "momentum"]
    lines = [",".join([*names, "auc", "seconds"])]
    lines += [
        ",".join(str(each["params"].get(name, "")) for name in names) + f",{each['metrics']['auc']},{each['seconds']}"
        for each in rows
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", lambda rows: "\n".join(map(json.dumps, [{"about": {"task": "any"}}, *rows])) + "\n"),
        ("t.json", json.dumps),
        ("wrapped.json", lambda rows: json.dumps({"rows": rows})),
        ("t.csv", flat_csv),
    ],
)
def test_the_same_rows_are_read_from_every_form(
    tmp_path: Path, name: str, text: Callable[[list[dict[str, Any]]], str]
) -> None:
    rows = [row(number) for number in range(6)]
    path = tmp_path / name
    path.write_text(text(rows), encoding="utf-8")
    table = read_table(path, study())
    assert [each.params for each in table.rows] == [{**each["params"], "kind": "fixed"} for each in rows]
    assert [type(each.params["layers"]) for each in table.rows] == [int] * 6
    assert table.values("auc") == pytest.approx([each["metrics"]["auc"] for each in rows])
    assert [each.seconds for each in table.rows] == [each["seconds"] for each in rows]
    assert table.timed


@pytest.mark.parametrize(("name", "form"), [("e.csv", to_csv), ("e.json", to_json)])
def test_an_export_is_a_table(tmp_path: Path, name: str, form: Any) -> None:
    def training(params: Mapping[str, Any], _seed: int) -> Expected:
        return Expected(metrics={"auc": auc(params)}, seconds=60.0)

    machine = Machine(queue_wait=parse_times("0s", "wait", "--queue-wait"))
    record = simulate_arm(study(), training, machine, way="asynchronous", parallel=2, typical=60.0).record
    path = tmp_path / name
    path.write_text(form(record), encoding="utf-8")
    table = read_table(path, study())
    assert [each.params for each in table.rows] == [dict(trial.params) for trial in record.trials]
    assert [each.seconds for each in table.rows] == pytest.approx([60.0] * 6)


def test_a_line_that_is_being_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [row(number) for number in range(5)])
    path.write_text(path.read_text() + '{"params": {"lr"')
    assert len(read_table(path, study()).rows) == 5


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [row(0), row(1)])
    path.write_text("lr,layers\n" + path.read_text())
    with pytest.raises(ConfigError, match=r"t\.jsonl:1: is not JSON"):
        read_table(path, study())


def test_rows_outside_the_space_are_counted_and_left_out(tmp_path: Path) -> None:
    wrong = [row(number) for number in range(4)]
    wrong[0]["params"]["lr"] = 5.0
    wrong[1]["params"]["optimizer"] = "lion"
    table = read_table(write(tmp_path / "t.jsonl", wrong + [row(number) for number in range(4, 9)]), study())
    assert (len(table.rows), table.left_out) == (7, 2)


def test_a_table_of_another_study_is_refused_with_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"params": {"depth": 3}, "metrics": {"auc": 0.5}}] * 3)
    with pytest.raises(UsageError, match=r"0 of 3 rows are results .* parameter lr is missing") as refused:
        read_table(path, study())
    assert "the first one has depth" in refused.value.hint


def test_a_table_without_the_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no metric dice"):
        read_table(
            write(tmp_path / "t.jsonl", [row(0), row(1)]),
            study(objective={"metric": "dice", "direction": "maximize"}),
        )


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such table"):
        read_table(tmp_path / "none.csv", study())


def test_a_table_without_run_times_says_so(tmp_path: Path) -> None:
    rows = [row(number) for number in range(4)]
    del rows[2]["seconds"]
    assert not read_table(write(tmp_path / "t.jsonl", rows), study()).timed


# Between the rows


def test_a_measured_configuration_comes_to_what_was_measured(table: Table) -> None:
    model = Neighbours(table, study().space, "auc")
    for each in table.rows:
        expected = model.expect(each.params, seed=5)
        assert expected.metrics is not None
        assert expected.metrics == pytest.approx(each.metrics)
        assert expected.seconds == pytest.approx(each.seconds)


def test_between_the_rows_lies_nothing_beyond_them_and_what_counts_is_learned(table: Table) -> None:
    model = Neighbours(table, study().space, "auc")
    values = table.values("auc")
    for number in range(100, 140):
        point = row(number)["params"]
        expected = model.expect(point, seed=number).metrics
        assert expected is not None
        assert min(values) <= expected["auc"] <= max(values)
        assert expected["auc"] == pytest.approx(auc(point), abs=0.25)
    assert model.fit > 0.8
    assert model.importance["lr"] == 1.0
    assert model.importance["layers"] < 0.5


def test_each_trial_resembles_one_of_the_repeats(tmp_path: Path) -> None:
    twice = [row(number, shift=shift) for shift in (0.0, 0.01) for number in range(20)]
    table = read_table(write(tmp_path / "t.jsonl", twice), study())
    model = Neighbours(table, study().space, "auc")
    assert table.repeats == 2
    point = row(3)["params"]
    seen = {round((model.expect(point, seed=seed).metrics or {})["auc"] - auc(point), 6) for seed in range(20)}
    assert seen == {0.0, 0.01}
    assert model.expect(point, seed=4) == model.expect(point, seed=4)


def test_beside_a_configuration_that_failed_trials_fail(tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    for each in rows:
        if each["params"]["lr"] > 0.1:
            each["metrics"], each["failed"] = {}, "1: loss is NaN"
    model = Neighbours(read_table(write(tmp_path / "t.jsonl", rows), study()), study().space, "auc")
    assert model.expect({**rows[0]["params"], "lr": 0.9}, seed=0).metrics is None
    assert model.expect({**rows[0]["params"], "lr": 1e-3}, seed=0).metrics is not None


def test_reports_on_the_way_are_interpolated_too(tmp_path: Path) -> None:
    rows = [{**row(number), "progress": [[3, 0.5 * row(number)["metrics"]["auc"]], [6, 0.75]]} for number in range(12)]
    model = Neighbours(read_table(write(tmp_path / "t.jsonl", rows), study()), study().space, "auc")
    (first, value), (last, end) = model.expect(row(200)["params"], seed=0).progress
    assert (first, last) == (3, 6)
    assert end == pytest.approx(0.75)
    metrics = model.expect(row(200)["params"], seed=0).metrics
    assert metrics is not None
    assert value == pytest.approx(0.5 * metrics["auc"])


def test_two_rows_are_enough(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.jsonl", [row(0), row(1)]), study())
    expected = Neighbours(table, study().space, "auc").expect(row(7)["params"], seed=0).metrics
    assert expected is not None
    assert min(table.values("auc")) <= expected["auc"] <= max(table.values("auc"))
