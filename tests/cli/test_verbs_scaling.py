"""A small scaling study: run, drawn, interrupted and gone on with, refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from little_study import content, end, run, start, until, write_study
from survey_command import Ran, Survey, command

from orchestrator.config.study import Study
from orchestrator.studies.scaling import arm_study

FILES = ("scaling.png", "scaling.svg", "scaling.md")
# A tenth of the time on one is serial; what it says to have taken is not what it takes.
PROGRAM = """
import json, os, pathlib, time
workers = int(os.environ["WORKERS"])
params = json.loads(pathlib.Path(os.environ["SURVEY_PARAMS"]).read_text())
gate = os.environ.get("GATE")
while gate and workers == 2 and not pathlib.Path(gate).exists():
    time.sleep(0.05)
with open("executions", "a") as file:
    print(workers, os.environ["SURVEY_TRIAL"], os.environ["SURVEY_SEED"], params["x"], file=file)
metrics = {"loss": params["x"], "train_seconds": 100 * params["x"] * (0.1 + 0.9 / workers)}
pathlib.Path(os.environ["SURVEY_RESULT"]).write_text(json.dumps({"metrics": metrics, "info": {"devices": workers}}))
"""


def write(folder: Path, **changes: object) -> Path:
    (folder / "program.py").write_text(PROGRAM)
    ours: dict[str, Any] = {"command": ["python3", "program.py"], "sampler": {"name": "bo", "seed": 7}, "trials": 30}
    return write_study(folder, **{**ours, **changes})


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    folder = tmp_path_factory.mktemp("scaled")
    write(folder)
    return folder, run(folder, "scaling", "study.yaml", "4", "1", "2", "--over", "WORKERS", "--trials", "2")


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def executions(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "executions").read_text().splitlines()]


def test_each_count_runs_the_same_trials_once_and_one_after_the_other(scaled: tuple[Path, Ran]) -> None:
    folder, ran = scaled
    assert ran.code == 0, ran.err
    found = executions(folder)
    assert [(workers, trial) for workers, trial, *_ in found] == [
        (workers, trial) for workers in ("1", "2", "4") for trial in ("0", "1")
    ]
    assert len({(trial, seed, x) for _, trial, seed, x in found}) == 2


def test_the_table_has_speedup_efficiency_quality_and_amdahls_share(scaled: tuple[Path, Ran]) -> None:
    folder, ran = scaled
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ran.out.splitlines()[:5]]
    assert rows[0][:6] == ["WORKERS", "trials", "seconds", "speed-up", "efficiency", "loss"]
    assert [row[0] for row in rows[2:]] == ["1", "2", "4"]
    # 1 / (0.1 + 0.9 / n)
    assert [row[3].split()[0] for row in rows[2:]] == ["1", "1.82", "3.08"]
    assert [row[4] for row in rows[2:]] == ["100%", "91%", "77%"]
    assert [row[6].split()[0] for row in rows[2:]] == ["-", "+0", "+0"]
    assert "10.0% [10.0%, 10.0%] of the time on one is serial, at most 10 times faster" in ran.out
    below = folder / "runs/toy-scaling-workers"
    assert ran.out.splitlines()[-3:] == [f"{below}/{name}" for name in FILES]
    assert (below / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert (below / "scaling.md").read_text().strip() in ran.out
    assert ran.err.count("[6/6]") == 1


def test_each_count_is_a_study_that_can_be_looked_at(
    survey: Survey, scaled: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scaled[0])
    for count in (1, 2, 4):
        ran = survey("status", f"toy-scaling-workers/workers-{count}")
        assert ran.out.startswith(f"workers-{count} on local: done\n2 complete")


def test_what_is_complete_is_not_run_again(scaled: tuple[Path, Ran]) -> None:
    folder, before = scaled
    known = executions(folder)
    again = run(folder, "scaling", "study.yaml", "1", "2", "4", "--over", "WORKERS", "--trials", "2")
    assert (again.code, again.out) == (0, before.out)
    assert executions(folder) == known


def test_drawing_runs_nothing_and_json_is_one_document(
    survey: Survey, scaled: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scaled[0])
    below = scaled[0] / "runs/toy-scaling-workers"
    arms = {name: data for name, data in content(below).items() if "/" in name}
    ran = survey("scaling", "study.yaml", "1", "2", "4", "--over", "WORKERS", "--draw-only", "--json")
    assert ran.code == 0
    document = json.loads(ran.out)
    assert document["schema_version"] == 1
    assert document["scaling"]["amdahl"]["serial"] == pytest.approx(0.1)
    assert [point["count"] for point in document["scaling"]["points"]] == [1, 2, 4]
    assert "scaling.svg" in ran.err
    assert {name: data for name, data in content(below).items() if "/" in name} == arms


def test_an_interrupted_one_says_so_and_goes_on_where_it_was(tmp_path: Path) -> None:
    write(tmp_path, environment={"GATE": str(tmp_path / "gate")})
    words = ("scaling", "study.yaml", "1", "2", "--over", "WORKERS", "-n", "1")
    process = start(tmp_path, *words)
    second = tmp_path / "runs/toy-scaling-workers/workers-2/ledger"
    until(lambda: any(second.rglob("attempt-*.json")), "the second count never began")
    process.send_signal(signal.SIGTERM)
    ran = end(process)
    assert ran.code == 143
    assert "run it again, or draw them with --draw-only" in ran.err
    assert len(executions(tmp_path)) == 1
    (tmp_path / "gate").touch()
    assert run(tmp_path, *words).code == 0
    assert [workers for workers, *_ in executions(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["1"], "cannot scale over 1"),
        (["2", "2"], "cannot scale over 2, 2"),
        (["0", "2"], "cannot scale over 0, 2"),
        (["1", "2", "--over", "node"], "did you mean"),
        (["1", "2", "--over", "SURVEY_TRIAL"], "the orchestrator's own"),
        (["1", "2", "--over", "WORKERS", "--set", "z=1"], "the study has no parameter 'z'"),
        (["1", "2", "--over", "WORKERS", "--set", "x=7"], "parameter x never has this value"),
        (["1", "2", "--over", "WORKERS", "--set", "x"], "is not of the form name=value"),
        (["1", "2", "--over", "WORKERS", "--draw-only"], "has not been scaled below"),
        (["1", "2", "--over", "nodes"], "nodes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    words: list[str], told: str, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    ran = survey("scaling", "study.yaml", *words)
    assert ran.code == 2
    assert told in ran.err
    assert not (tmp_path / "runs").exists()


def test_a_study_of_several_objectives_is_refused(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    goals = [{"metric": name, "direction": "minimize"} for name in ("loss", "side")]
    write(tmp_path, objective=None, objectives=goals)
    ran = survey("scaling", "study.yaml", "1", "2")
    assert ran.code == 2
    assert "name one of them as its objective: loss, side" in ran.err


def arm(tmp_path: Path, over: str, settings: dict[str, Any], alone: bool = True, **changes: Any) -> Study:
    study = Study.load(write(tmp_path, **changes))
    made = arm_study(study, over, 4, trials=3, settings=settings, alone=alone)
    # As it is read again from its own folder.
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(made.to_data()))
    return Study.load(tmp_path / "arm.yaml")


def test_each_axis_asks_for_what_it_counts(tmp_path: Path) -> None:
    assert arm(tmp_path, "nodes", {}).resources.nodes == 4
    assert arm(tmp_path, "gpus", {}).resources.gpus == 4
    threads = arm(tmp_path, "threads", {})
    assert (threads.resources.cpus, threads.environment) == (4, {"OMP_NUM_THREADS": "4"})
    assert arm(tmp_path, "WORKERS", {}).environment == {"WORKERS": "4"}


def test_nothing_that_shares_a_node_or_ends_a_trial_early_is_left(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"parallel": 8, "pruner": "median", "stop": {"patience": 3}, "batch": {"pack": "auto"}}
    alone = arm(tmp_path, "nodes", {}, **changes)
    assert (alone.parallel, alone.pruner, alone.stop.of_value, alone.batch.pack) == (1, None, "", 1)
    assert alone.sampler.name == "random"
    assert alone.sampler.seed == 7
    assert arm(tmp_path, "nodes", {}, alone=False, **changes).parallel == 8


def test_a_fixed_setting_takes_away_what_exists_only_beside_others(tmp_path: Path) -> None:
    space = {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "of_a": {"type": "int", "low": 1, "high": 3, "when": {"kind": "a"}},
        "deeper": {"type": "int", "low": 1, "high": 3, "when": {"of_a": [1, 2]}},
        "of_b": {"type": "int", "low": 1, "high": 3, "when": {"kind": "b"}},
    }
    assert set(arm(tmp_path, "nodes", {"kind": "a", "x": 0.5}, space=space).space) == {"x", "kind", "of_a", "deeper"}
    assert set(arm(tmp_path, "nodes", {"kind": "b"}, space=space).space) == {"x", "kind", "of_b"}
