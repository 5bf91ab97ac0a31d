"""The comparison on a table of trainings: the driver that users run, in virtual time, one line for each search."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "search"
STUDY = """
schema_version: 1
name: little
objective: {metric: score, direction: maximize}
space:
  rate: {type: float, low: 0.0, high: 1.0}
  kind: {type: categorical, choices: [a, b]}
trials: 5
command: [train]
resources: {cpus: 1, gpus: 0}
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


@pytest.fixture
def setting(modules: Any, tmp_path: Path) -> Any:
    """Forty trainings of twenty configurations, of which one fails, in a folder of their own."""
    rng = random.Random(0)
    rows = []
    for number in range(20):
        rate, kind = rng.random(), rng.choice("ab")
        for seed in (1, 2):
            row: dict[str, Any] = {"params": {"rate": rate, "kind": kind}, "cpu_seconds": 1.0 + rate}
            score = 1.0 - (rate - 0.3) ** 2 + 0.1 * (kind == "a") + 0.01 * seed
            rows.append({**row, "failed": True} if number == 7 else {**row, "metrics": {"score": score}})
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "little-1-of-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return modules("table_searches").Setting(
        study=tmp_path / "study.yaml", table=tmp_path / "little-1-of-1.jsonl", trials=6
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_search_has_all_its_trials_and_never_more_in_flight_than_it_may(
    modules: Any, setting: Any, tmp_path: Path
) -> None:
    modules("table_searches").Searches(setting).run(
        tmp_path / "out.jsonl", samplers=["bo", "random"], parallel=[1, 3], repeats=2
    )
    about, *rows = lines(tmp_path / "out.jsonl")
    assert about["about"]["trials"] == 6
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        stays = list(zip(row["created"], row["started"], row["ended"], strict=True))
        assert len(stays) == 6
        assert all(created <= started <= ended for created, started, ended in stays)
        assert max(sum(begin <= at < end for begin, _, end in stays) for at, _, _ in stays) == row["parallel"]
        assert row["versions"]["optuna"]
    luck = {(row["parallel"], row["repeat"]): row["values"] for row in rows if row["sampler"] == "random"}
    assert luck[1, 1] == luck[3, 1]
    assert luck[1, 1] != luck[1, 2]


def test_a_value_on_average_is_that_of_its_configuration_over_the_seeds(
    modules: Any, setting: Any, tmp_path: Path
) -> None:
    modules("table_searches").Searches(setting).run(
        tmp_path / "out.jsonl", samplers=["random"], parallel=[1], repeats=3
    )
    pairs = [
        pair for row in lines(tmp_path / "out.jsonl")[1:] for pair in zip(row["values"], row["on_average"], strict=True)
    ]
    differences = {round(value - average, 3) for value, average in pairs if value is not None}
    assert differences == {-0.005, 0.005}


def test_searches_that_were_cut_short_go_on_where_they_were(modules: Any, setting: Any, tmp_path: Path) -> None:
    searches = modules("table_searches").Searches(setting)
    searches.run(tmp_path / "whole.jsonl", samplers=["random"], parallel=[2], repeats=3)
    whole = (tmp_path / "whole.jsonl").read_text()
    first, second, third, *_ = whole.splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text(first + second + third[:50])
    said: list[str] = []
    searches.run(tmp_path / "cut.jsonl", samplers=["random"], parallel=[2], repeats=3, said=said.append)
    assert len(said) == 2
    read = modules("table_searches").load
    assert read(tmp_path / "cut.jsonl", searches.about) == read(tmp_path / "whole.jsonl", searches.about)


def test_searches_on_another_table_are_not_mixed(modules: Any, setting: Any, tmp_path: Path) -> None:
    module = modules("table_searches")
    module.Searches(setting).run(tmp_path / "out.jsonl", samplers=["random"], parallel=[2], repeats=1)
    table = tmp_path / "little-1-of-1.jsonl"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(ValueError, match=r"out\.jsonl: its searches were made with checksum .* rows 40 \(now 30\)"):
        module.Searches(setting).run(tmp_path / "out.jsonl", samplers=["random"], parallel=[2], repeats=1)


def test_searches_begun_on_a_table_that_grows_go_on_with_the_rows_it_had(
    modules: Any, setting: Any, tmp_path: Path
) -> None:
    module, out = modules("table_searches"), tmp_path / "out.jsonl"
    assert module.begun_with(out) is None
    table = tmp_path / "little-1-of-1.jsonl"
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:30]))
    module.Searches(setting).run(out, samplers=["random"], parallel=[2], repeats=1)
    table.write_text(whole)
    assert module.begun_with(out) == 30
    searches = module.Searches(dataclasses.replace(setting, rows=30))
    searches.run(out, samplers=["random"], parallel=[2], repeats=2)
    assert set(module.load(out, searches.about)) == {("random", 2, 1), ("random", 2, 2)}


def searched(sampler: str, parallel: int, repeat: int, values: list[float | None]) -> dict[str, Any]:
    """A search whose trials take an hour each, one after the other."""
    times = range(0, 3600 * len(values), 3600)
    return {
        "sampler": sampler,
        "parallel": parallel,
        "repeat": repeat,
        "values": values,
        "on_average": [None if value is None else value - 0.05 for value in values],
        "created": list(times),
        "started": list(times),
        "ended": [time + 3600 for time in times],
    }


def done(**searches: list[list[float | None]]) -> dict[Any, Any]:
    return {
        (name, 1, repeat): searched(name, 1, repeat, values)
        for name, of in searches.items()
        for repeat, values in enumerate(of, start=1)
    }


def test_the_tables_say_when_the_target_was_reached_and_what_is_gained_in_pairs(modules: Any) -> None:
    found = done(
        bo=[[0.1, 0.9, 0.9], [None, 0.2, 0.7], [0.1, 0.8, 0.8]],
        random=[[0.1, 0.3, 0.5], [None, 0.2, 0.6], [0.1, 0.7, 0.7]],
    )
    text = modules("table_report").report(found, "score", "maximize", published=3)
    # Random search ends at 0.6 on average; bo gets there in hours 2, 3 and 2, random search in two of three.
    assert "| `bo` | 1 | 2.0 | 2.0 | 0.800 | +0.200 [-0.230, +0.630], n=3 | 0.800 |" in text
    assert "| `random` | 1 | 3.0 (2 of 3) | 3.0 (2 of 3) | 0.600 |  | 0.600 |  |" in text
    assert "| `random` | 1 | 0.600 | 0.550 | +0.200 [-0.230, +0.630], n=3 |" in text
    assert "Best of the trials of 3 random searches together, mean: 0.7." in text


def test_it_is_said_where_bo_is_behind_and_where_nothing_can_be_told(modules: Any) -> None:
    found = done(
        bo=[[0.7], [0.8], [0.9]], tpe=[[0.8], [0.9], [1.0]], cmaes=[[0.6], [0.8], [1.0]], random=[[0.2], [0.3], [0.4]]
    )
    told = modules("table_report").losses(found, "maximize")
    assert told == (
        "By its best value after all trials `bo` is behind `tpe` at N = 1 (-0.100); "
        "it is not told apart from `cmaes` at N = 1 (+0.000)."
    )


def test_where_little_is_better_a_gain_is_still_positive(modules: Any) -> None:
    found = done(bo=[[0.9, 0.2], [0.9, 0.1]], random=[[0.9, 0.4], [0.9, 0.3]])
    text = modules("table_report").report(found, "loss", "minimize", published=2)
    assert "| `random` | 1 | 0.350 | 0.300 | +0.200 [+0.200, +0.200], n=2 |" in text
    assert "| `bo` | 1 | 2.0 | 2.0 | 0.150 | +0.200 [+0.200, +0.200], n=2 |" in text


def test_a_figure_is_drawn_of_each_kind(modules: Any, tmp_path: Path) -> None:
    found = done(bo=[[0.1, 0.9], [0.3, 0.8]], random=[[0.1, 0.3], [0.2, 0.2]])
    written = modules("table_report").figures(found, "score", "maximize", tmp_path, "little", published=1)
    assert [path.name for path in written] == [
        "little-table-published.svg",
        "little-table.svg",
        "little-table-clock.svg",
    ]
    assert all("<svg" in path.read_text() for path in written)


def test_a_task_without_a_table_is_answered_with_what_it_needs(tmp_path: Path) -> None:
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
    command = [sys.executable, str(HERE / "on_table.py"), "--task", "nothing"]
    answered = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert answered.returncode == 2
    assert "--task nothing: needs " in answered.stderr
