"""A small comparison: run, drawn, interrupted and gone on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml
from little_study import content, end, run, start, until, write_study
from survey_command import Ran, Survey, command

FIGURES = ("comparison.png", "comparison.svg", "comparison.md", "report.html")


def write_comparison(folder: Path, **changes: object) -> Path:
    data = {
        "name": "both",
        "study": "study.yaml",
        "samplers": ["random", "qmc"],
        "parallel": [2],
        "repeats": 2,
        "trials": 2,
        "seed": 1,
        **changes,
    }
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """Two samplers, one parallelism, two repeats of two trials."""
    folder = tmp_path_factory.mktemp("compared")
    write_study(folder)
    write_comparison(folder, concurrent=2)
    return folder, run(folder, "compare", "comparison.yaml")


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def test_a_comparison_prints_its_table_and_the_paths_of_its_figures(compared: tuple[Path, Ran]) -> None:
    folder, ran = compared
    assert ran.code == 0, ran.err
    assert "random" in ran.out
    assert "qmc" in ran.out
    both = folder / "runs/both"
    assert ran.out.splitlines()[-4:] == [f"{both}/{name}" for name in FIGURES]
    assert (both / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (both / "comparison.svg").read_text(encoding="utf-8")
    assert (both / "comparison.md").read_text(encoding="utf-8").strip() in ran.out
    assert ran.err.count("[8/8]") == 1


def test_each_arm_is_a_study_that_can_be_looked_at(
    survey: Survey, compared: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared[0])
    arms = sorted(path.name for path in (compared[0] / "runs/both").iterdir() if path.is_dir())
    assert arms == ["qmc-p2-r1", "qmc-p2-r2", "random-p2-r1", "random-p2-r2"]
    for arm in arms:
        assert survey("status", f"both/{arm}").out.startswith(f"{arm} on local: done\n2 complete")


def test_drawing_runs_nothing_and_draws_the_same_table(
    survey: Survey, compared: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = compared
    monkeypatch.chdir(folder)
    both = folder / "runs/both"
    arms = {name: data for name, data in content(both).items() if "/" in name}
    for name in FIGURES:
        (both / name).unlink()
    ran = survey("compare", "comparison.yaml", "--draw-only")
    assert (ran.code, ran.out) == (0, before.out)
    assert all((both / name).is_file() for name in FIGURES)
    assert {name: data for name, data in content(both).items() if "/" in name} == arms


def test_a_comparison_as_json_is_one_document(
    survey: Survey, compared: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared[0])
    ran = survey("compare", "comparison.yaml", "--draw-only", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["schema_version"] == 1
    assert "random" in json.dumps(json.loads(ran.out)["comparison"])
    assert "comparison.svg" in ran.err


def test_drawing_nothing_says_what_to_do(survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    write_comparison(tmp_path)
    ran = survey("compare", "comparison.yaml", "--draw-only")
    assert ran.code == 2
    assert f"comparison 'both' has no results below {tmp_path}/runs/both" in ran.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samplers": ["random", "tpee"]}, "did you mean 'tpe'?"),
        ({"samplers": ["random", {"name": "tpe", "options": {"popsize": 2}}]}, "tpe has no option 'popsize'"),
        ({"samplers": ["random", "grid"]}, "parameter x is a real number without a step"),
        ({"study": "stady.yaml"}, "stady.yaml: no such study file"),
        ({"repeat": 2}, "comparison.yaml:"),
    ],
)
def test_a_mistake_in_one_arm_is_told_before_any_arm_runs(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    write_comparison(tmp_path, **changes)
    before = content(tmp_path)
    ran = survey("compare", "comparison.yaml")
    assert ran.code == 2
    assert told in ran.err
    assert content(tmp_path) == before


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_study(tmp_path, environment={"GATE": str(gate)})
    write_comparison(tmp_path, repeats=1)
    driver = start(tmp_path, "compare", "comparison.yaml")
    first = tmp_path / "runs/both/random-p2-r1"
    until(lambda: len(list(first.rglob("attempt-1/stderr"))) == 2, "the first arm does not start")
    driver.send_signal(signal.SIGINT)
    until(lambda: "draining" in (first / "events.jsonl").read_text("utf-8"), "it does not drain")
    gate.touch()
    ended = end(driver)
    assert ended.code == 130
    assert ended.out == ""
    assert "1 of 2 arms have results; run it again, or draw them with --draw-only" in ended.err
    assert not (tmp_path / "runs/both/qmc-p2-r1").exists()
    done = run(tmp_path, "compare", "comparison.yaml")
    assert done.code == 0, done.err
    assert "random-p2-r1: 2 trials, 2 done and 0 in flight before" in done.err
    assert len(list(first.rglob("ledger/*/attempt-*.json"))) == 2
    assert (tmp_path / "runs/both/comparison.svg").is_file()
