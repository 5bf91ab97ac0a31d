"""What a user sees of several objectives, of constraints and of conditions between parameters."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from little_study import run, write_study
from survey_command import Ran, Survey, command

from orchestrator.cli.standing import Standing

GOALS = [{"metric": "loss", "direction": "minimize"}, {"metric": "gain", "direction": "maximize"}]
SPACE = {name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y")}
TRAIN = """
import json, os
p = json.load(open(os.environ["SURVEY_PARAMS"]))
open(os.environ["SURVEY_ARTIFACTS"] + "/model", "w").close()
json.dump({"metrics": {"loss": p["x"], "gain": p["x"] * p["y"], "memory": p["y"]}}, open(os.environ["SURVEY_RESULT"], "w"))
"""


def write(folder: Path, **changes: Any) -> None:
    several: dict[str, Any] = {
        "objective": None,
        "objectives": GOALS,
        "space": SPACE,
        "sampler": {"name": "nsga2", "seed": 4},
    }
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(TRAIN)}"
    write_study(folder, **{**several, "command": program, "trials": 8, "parallel": 4, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    folder = tmp_path_factory.mktemp("finished")
    write(folder, constraints=[{"metric": "memory", "at_most": 0.8}], where=["x + y < 1.9"], keep={"best": 1})
    return folder, run(folder, "run", "study.yaml")


@pytest.fixture
def place(finished: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished[0])
    return finished[0]


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def rows(survey: Survey) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(survey("export").out)))


@pytest.mark.usefixtures("place")
def test_the_export_marks_the_front_and_best_lists_it(survey: Survey) -> None:
    found = rows(survey)
    front = {row["number"] for row in found if row["pareto"] == "True"}
    assert front
    assert all(float(row["metrics.memory"]) <= 0.8 for row in found if row["pareto"] == "True")
    assert {row["feasible"] for row in found} == {"True", "False"}
    told = [line.split(":")[0] for line in survey("best").out.splitlines() if line.startswith("trial ")]
    assert told == [
        f"trial {row['number']}"
        for row in sorted(found, key=lambda row: float(row["values.loss"]))
        if row["number"] in front
    ]
    assert len(json.loads(survey("best", "--json").out)["best"]) == len(front)


@pytest.mark.usefixtures("place")
def test_more_than_the_front_is_told_to_lie_behind_it(survey: Survey) -> None:
    feasible = [row for row in rows(survey) if row["feasible"] == "True"]
    lines = [line for line in survey("best", "-n", "8").out.splitlines() if line.startswith("trial ")]
    assert len(lines) == len(feasible)
    on = sum(row["pareto"] == "True" for row in feasible)
    assert [line.endswith(", behind the front") for line in lines] == [False] * on + [True] * (len(lines) - on)


def test_run_and_status_tell_the_front(survey: Survey, finished: tuple[Path, Ran], place: Path) -> None:
    ran = finished[1]
    assert ran.code == 0, ran.err
    on = sum(row["pareto"] == "True" for row in rows(survey))
    broken = sum(row["feasible"] == "False" for row in rows(survey))
    assert ran.out.splitlines()[0] == f"toy: done, 8 complete ({broken} infeasible), 8 planned"
    assert f"front of {on}:" in ran.out.splitlines()
    assert any("(on the front)" in line for line in ran.err.splitlines())
    assert sum("(breaks memory <= 0.8)" in line for line in ran.err.splitlines()) == broken
    status = survey("status").out.splitlines()
    assert status[1].startswith(f"{8 - broken} complete, {broken} infeasible; 8 planned")
    assert f"front of {on}:" in status
    kept = {path.parent.parent.name for path in place.glob("runs/toy/trials/*/attempt-1/artifacts")}
    assert kept == {f"{int(row['number']):05d}" for row in rows(survey) if row["pareto"] == "True"}


@pytest.mark.usefixtures("place")
def test_explain_says_what_a_trial_breaks(survey: Survey) -> None:
    broken = next(row["number"] for row in rows(survey) if row["feasible"] == "False")
    assert "It breaks memory <= 0.8, so it is never the best." in survey("explain", broken).out


@pytest.mark.usefixtures("place")
def test_the_report_has_the_front(survey: Survey) -> None:
    page = Path(survey("report").out.strip()).read_text(encoding="utf-8")
    assert '<section id="front"' in page
    assert "minimize loss, maximize gain · memory at most 0.8" in page


def test_a_study_in_which_nothing_is_feasible_ends_with_3_and_says_what_came_nearest(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, constraints=[{"metric": "memory", "at_least": 2}], trials=3)
    ran = run(tmp_path, "run", "study.yaml")
    assert ran.code == 3
    assert "none of 3 complete trials keeps to the constraints; the nearest, trial " in ran.err
    assert "none of 3 complete trials keeps to the constraints" in ran.out
    assert "none of 3 complete trials keeps" in survey("status").out
    best = survey("best")
    assert best.code == 2
    assert "has no best trial: none of 3 complete trials keeps" in best.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "bo"}, "the sampler 'bo' searches for one objective, and this study has 2"),
        ({"where": ["x > 2"]}, "none of 20,000 random points of the space meets the condition 'x > 2'"),
        ({"where": ["x < z"]}, "where[0]: column 5: there is no parameter z"),
        ({"where": ["x <"]}, "where[0]: column 4: this is no condition"),
        ({"sampler": "grid"}, "parameter x is a real number without a step"),
        ({"sampler": "nsga"}, "there is no sampler 'nsga'"),
        ({"stop": {"target": 1}}, "a study of several objectives has no one best value"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_what_cannot_be_searched_ends_with_2_before_anything_is_written(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], words: str, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **changes)
    ran = survey(verb, "study.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not (tmp_path / "runs").exists()


def test_check_says_how_much_of_a_grid_is_left_out(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {name: {"type": "int", "low": 1, "high": 4} for name in ("x", "y")}
    write(tmp_path, space=space, where=["x <= y"], sampler="grid", trials=100)
    ran = survey("check", "study.yaml")
    assert ran.code == 0
    assert "10 trials (6 points of the grid break a condition and are left out)" in ran.out + ran.err


def test_a_comparison_of_several_objectives_is_refused(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    text = "name: both\nstudy: study.yaml\nsamplers: [random, nsga2]\nparallel: [1]\nrepeats: 2\ntrials: 2\n"
    (tmp_path / "comparison.yaml").write_text(text, encoding="utf-8")
    ran = survey("compare", "comparison.yaml")
    assert ran.code == 2
    assert "a comparison compares one objective, and study toy has 2" in ran.err


def test_the_standing_of_several_objectives_is_the_front() -> None:
    standing = Standing([("a", "minimize"), ("b", "maximize")], {"3": (0.5, 0.5)})
    assert standing.take("4", (1.0, 1.0), [])
    assert not standing.take("5", (2.0, 0.9), [])
    assert not standing.take("6", (0.0, 9.0), ["m <= 1"])
    assert standing.summary() == "1 infeasible, front of 2"
    assert standing.take("7", (0.4, 2.0), [])
    assert standing.summary() == "1 infeasible, front of 1"
    assert standing.words((0.4, 2.0), [], best=True) == "a 0.4, b 2 (on the front)"
    assert standing.words((0.0, 9.0), ["m <= 1"], best=False) == "a 0, b 9 (breaks m <= 1)"


def test_the_standing_of_one_objective_is_the_best_and_an_equal_one_is_not_better() -> None:
    standing = Standing([("loss", "minimize")])
    assert [standing.take(str(number), (value,), []) for number, value in enumerate((0.5, 0.5, 0.25))] == [
        True,
        False,
        True,
    ]
    assert standing.summary() == "best loss 0.25 (trial 2)"
