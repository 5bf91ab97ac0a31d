from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "search"


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("paired")


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_small_comparison_searches_all_families_with_three_engines_and_prints_its_tables(tmp_path: Path) -> None:
    done = compare(tmp_path, "--small", "--figure", "small.svg")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "search-small.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 4 * 2
    assert {row["engine"] for row in rows} == {"bo", "tpe", "random"}
    assert all(len(row["curve"]) == 20 for row in rows)
    assert all({"optuna", "numpy", "scipy", "survey-orchestrator", "samplers"} <= set(row["versions"]) for row in rows)
    assert (
        "| engine | N | all | interval | coarse | classical | training | architecture | runs | ms/ask |" in done.stdout
    )
    assert "`bo` relative to each of the others" in done.stdout
    assert "<svg" in (tmp_path / "small.svg").read_text()


SHORT = ("--set", "small", "--problems", "branin", "--engines", "random", "--seeds", "2", "--trials", "5")


def test_a_comparison_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = compare(tmp_path, *SHORT, "--out", "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    (tmp_path / "cut.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    again = compare(tmp_path, *SHORT, "--out", "cut.jsonl")
    assert again.stdout.count("regret 0.") == len(lines) - 3

    def table(text: str) -> list[str]:
        return [" ".join(line.split("|")[:-2]) for line in text.splitlines() if line.startswith("|")]

    assert table(again.stdout) == table(whole.stdout)


def test_engines_meet_the_same_luck_so_that_random_search_is_the_warm_up_of_all(tmp_path: Path) -> None:
    compare(tmp_path, *SHORT, "--out", "luck.jsonl", "--workers", "8")
    rows = [json.loads(line) for line in (tmp_path / "luck.jsonl").read_text().splitlines()]
    by_seed = {(row["engine"], row["seed"]): row["curve"] for row in rows}
    assert by_seed["random", 0] == by_seed["tpe", 0]  # five trials at N = 8: all of them were asked for at the start
    assert by_seed["random", 0] != by_seed["random", 1]


def test_a_problem_that_the_set_lacks_is_answered_with_those_it_has(tmp_path: Path) -> None:
    done = compare(tmp_path, "--set", "report", "--problems", "branin")
    assert done.returncode == 2
    assert "the set report has no problem branin; it has ackley8, " in done.stderr


def regrets(**engines: dict[str, list[float]]) -> dict[tuple[str, str, int, int], dict[str, float]]:
    return {
        (engine, problem, 8, seed): {"regret": value}
        for engine, problems in engines.items()
        for problem, values in problems.items()
        for seed, value in enumerate(values)
    }


def test_the_comparison_is_the_geometric_mean_over_problems_of_ratios_of_mean_regrets(paired: Any) -> None:
    done = regrets(bo={"a": [1.0, 3.0], "b": [0.1, 0.3]}, tpe={"a": [4.0, 4.0], "b": [0.1, 0.1]})
    found = paired.relative(done, "bo", "tpe", ["a", "b"], 8)
    assert found.problems == pytest.approx({"a": 0.5, "b": 2.0})
    assert found.value == pytest.approx(1.0)
    assert found.runs == 4
    assert found.of(["b"]) == pytest.approx(2.0)


def test_its_interval_covers_other_draws_of_seeds_and_of_problems(paired: Any) -> None:
    seeds = paired.relative(regrets(bo={"a": [1.0, 3.0]}, tpe={"a": [4.0, 4.0]}), "bo", "tpe", ["a"], 8)
    assert (seeds.low, seeds.high) == pytest.approx((0.25, 0.75))
    done = regrets(bo={"a": [1.0], "b": [3.0]}, tpe={"a": [4.0], "b": [4.0]})
    problems = paired.relative(done, "bo", "tpe", ["a", "b"], 8)
    assert (problems.low, problems.high) == pytest.approx((0.25, 0.75))


def test_only_seeds_that_both_have_run_are_compared(paired: Any) -> None:
    done = regrets(bo={"a": [1.0, 1.0, 100.0]}, tpe={"a": [2.0, 2.0], "b": [1.0]})
    found = paired.relative(done, "bo", "tpe", ["a", "b"], 8)
    assert (found.value, found.low, found.high, found.runs) == pytest.approx((0.5, 0.5, 0.5, 2))
    assert paired.relative(done, "bo", "tpe", ["b"], 8) is None


def test_a_regret_of_nothing_does_not_make_the_comparison_infinite(paired: Any) -> None:
    found = paired.relative(regrets(bo={"a": [0.0]}, tpe={"a": [1.0]}), "bo", "tpe", ["a"], 8)
    assert found.value == pytest.approx(1e-6)


def test_with_a_coarse_floor_a_problem_that_is_solved_exactly_does_not_rule_the_mean(paired: Any) -> None:
    done = regrets(bo={"a": [1e-6], "b": [1.0]}, tpe={"a": [1e-1], "b": [1.0]})
    fine = paired.relative(done, "bo", "tpe", ["a", "b"], 8)
    coarse = paired.relative(done, "bo", "tpe", ["a", "b"], 8, floor=paired.COARSE)
    assert fine.value == pytest.approx(10**-2.5)
    assert coarse.value == pytest.approx(0.1)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_search_in_which_no_trial_succeeded_counts_as_the_median_random_configuration(
    paired: Any, nothing: float | None
) -> None:
    done: dict[Any, Any] = {**regrets(tpe={"a": [0.5]}), ("bo", "a", 8, 0): {"regret": nothing}}
    assert paired.relative(done, "bo", "tpe", ["a"], 8).value == pytest.approx(2.0)


def test_tables_go_into_a_page_between_their_marks_and_leave_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    fill = importlib.import_module("page").fill
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- report -->\nold\n<!-- end of report -->\nafter\n")
    fill(page, "report", "new\n\n")
    fill(page, "report", "newer")
    assert page.read_text() == "before\n<!-- report -->\nnewer\n<!-- end of report -->\nafter\n"
    with pytest.raises(ValueError, match=r"page\.md: needs a line <!-- development -->"):
        fill(page, "development", "new")


def test_it_says_on_which_problems_the_engine_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    problems = importlib.import_module("problems").SMALL
    done = regrets(
        bo={"branin": [0.1], "hartmann6": [0.3], "training9": [0.6]},
        tpe={"branin": [0.2], "hartmann6": [0.2], "training9": [0.2]},
    )
    rows = {key: {**row, "cpu": 0.0} for key, row in done.items()}
    text = importlib.import_module("tables").report(rows, ["bo", "tpe"], problems, [8], "tpe")
    assert text.endswith("At N = 8 `bo` loses to `tpe` on training9 (3.00), hartmann6 (1.50).")
