"""What a study will cost is said first, and at a terminal asked about; whoever says no has submitted nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from little_cluster import cluster, idle_commands, submitted, write_site
from little_study import content, run, write_study
from survey_command import Survey, command
from terminal import QUESTION, on_a_terminal

from orchestrator import resources

COMMANDS = ("sbatch", "squeue", "scancel")
DONE = """echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT" """
GPU = {"gpus": 1, "walltime": "30m"}
COST = "at most 1.0 GPU-hours, 1.0 node-hours (each trial to its full walltime; a retry costs as much again)"


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@pytest.mark.parametrize("answer", ["n\n", "\n", "nonsense\n", "\x03", "\x04"])
def test_whoever_does_not_say_yes_has_written_and_submitted_nothing(tmp_path: Path, answer: str) -> None:
    path = idle_commands(tmp_path, *COMMANDS)
    write_study(tmp_path, resources=GPU, command=DONE)
    write_site(tmp_path)
    before = content(tmp_path)
    code, out, seen = on_a_terminal(tmp_path, "run", "study.yaml", "--site", "site.yaml", answer=answer, PATH=path)
    assert (code, out) == (130, "")
    assert seen.index(COST) < seen.index(QUESTION)
    assert seen.rstrip().endswith("nothing was submitted")
    assert "Traceback" not in seen
    assert content(tmp_path) == before


def test_a_quiet_user_is_told_what_is_asked(tmp_path: Path) -> None:
    path = idle_commands(tmp_path, *COMMANDS)
    write_study(tmp_path, resources=GPU, command=DONE)
    write_site(tmp_path)
    words = ("-q", "run", "study.yaml", "--site", "site.yaml")
    code, _, seen = on_a_terminal(tmp_path, *words, answer="n\n", PATH=path)
    assert code == 130
    assert COST in seen


def test_a_comparison_says_the_cost_of_all_its_arms(tmp_path: Path) -> None:
    path = idle_commands(tmp_path, *COMMANDS)
    write_study(tmp_path, resources=GPU, command=DONE)
    write_site(tmp_path)
    text = "schema_version: 1\nname: both\nstudy: study.yaml\nsamplers: [random, tpe]\nparallel: [1]\nrepeats: 2\ntrials: 2\n"
    (tmp_path / "comparison.yaml").write_text(text, encoding="utf-8")
    before = content(tmp_path)
    words = ("compare", "comparison.yaml", "--site", "site.yaml")
    code, _, seen = on_a_terminal(tmp_path, *words, answer="n\n", PATH=path)
    assert code == 130, seen
    assert "both on simulated-slurm: 4 arms, 8 trials to come" in seen
    assert "at most 4.0 GPU-hours" in seen
    assert content(tmp_path) == before


def test_a_study_is_asked_about_once_until_it_can_cost_more(tmp_path: Path) -> None:
    write_study(tmp_path, resources=GPU, command=DONE)
    write_site(tmp_path)
    words = ("run", "study.yaml", "--site", "site.yaml")
    with cluster(tmp_path) as (installed, path):
        code, out, seen = on_a_terminal(tmp_path, *words, answer="y\n", PATH=path)
        assert code == 0, seen
        assert out.startswith("toy: done, 2 complete")
        assert seen.count(QUESTION) == 1
        code, _, seen = on_a_terminal(tmp_path, *words, PATH=path)
        assert code == 0
        assert QUESTION not in seen
        assert "no queue, 0 of 2 trials to come" in seen
        write_study(tmp_path, resources=GPU, command=DONE, trials=3)
        code, _, seen = on_a_terminal(tmp_path, *words, answer="n\n", PATH=path)
        assert code == 130
        assert "1 of 3 trials to come" in seen
        assert "at most 0.5 GPU-hours" in seen
        assert submitted(installed) == 2
        code, out, seen = on_a_terminal(tmp_path, *words, "--yes", PATH=path)
        assert code == 0, seen
        assert out.startswith("toy: done, 3 complete")
        assert QUESTION not in seen


def test_nobody_is_asked_in_a_pipe_nor_on_ones_own_machine(tmp_path: Path) -> None:
    write_study(tmp_path, resources={"walltime": "30m"}, command=DONE, trials=1)
    write_site(tmp_path)
    with cluster(tmp_path) as (_, path):
        ran = run(tmp_path, "run", "study.yaml", "--site", "site.yaml", PATH=path)
    assert ran.code == 0, ran.err
    assert QUESTION not in ran.err
    assert ran.err.splitlines()[:2] == [
        "toy on simulated-slurm: no queue, 1 trials, 2 at once",
        "at most 0.5 node-hours (each trial to its full walltime; a retry costs as much again)",
    ]
    code, _, seen = on_a_terminal(tmp_path, "run", "study.yaml", "--root", "here", "--site", "local")
    assert code == 0
    assert QUESTION not in seen
    assert "node-hours" not in seen


QUEUES = """
queues:
  - {name: whole, unit: node, gpus_per_unit: 4, cores_per_unit: 32}
  - {name: cut, unit: share, gpus_per_unit: 4, cores_per_unit: 32, only_by_name: true}
"""


@pytest.mark.parametrize(
    ("changes", "cost", "words"),
    [
        ({}, (4.0, 4.0, 4.0), "queue whole, 8 trials, 4 at once\nat most 4.0 GPU-hours, 4.0 node-hours ("),
        (
            {"batch": {"pack": "auto"}},
            (4.0, 4.0, 1.0),
            "4 at once, 4 in one job\nat most 4.0 GPU-hours, 4.0 node-hours, 1.0 if every job is full (",
        ),
        ({"batch": {"pack": 3}}, (4.0, 4.0, 1.5), "3 in one job\n"),
        ({"batch": {"queue": "cut"}}, (4.0, 1.0, 1.0), "queue cut"),
        ({"resources": {"gpus": 4, "nodes": 2, "walltime": "30m"}}, (32.0, 8.0, 8.0), "at most 32.0 GPU-hours"),
        ({"resources": {"gpus": 1}}, (None, None, None), "no walltime is set: the cost has no upper bound\n"),
        ({"resources": {"gpus": 1, "walltime": "10d"}}, (1920.0, 1920.0, 1920.0), "at most 1,920 GPU-hours"),
    ],
)
def test_the_cost_is_that_of_the_jobs_as_they_will_be(
    survey: Survey, tmp_path: Path, changes: dict[str, Any], cost: tuple[float | None, ...], words: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\nscheduler: slurm{QUEUES}", encoding="utf-8")
    write_study(tmp_path, **{"trials": 8, "parallel": 4, "resources": GPU, **changes})
    ran = survey("check", "study.yaml", "--site", "mine.yaml")
    assert ran.code == 0, ran.err
    assert words in ran.err
    found = json.loads(survey("check", "study.yaml", "--site", "mine.yaml", "--json").out)["cost"]
    assert found["trials"] == 8
    assert tuple(found[key] for key in ("gpu_hours", "node_hours", "node_hours_packed")) == cost


@pytest.mark.parametrize("site", resources.names("sites", ".yaml"))
def test_check_shows_script_and_cost_for_every_site_on_a_machine_without_its_commands(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    write_study(tmp_path, resources=GPU, batch={"group": "gx00"})
    before = content(tmp_path)
    ran = survey("check", "study.yaml", "--site", site)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("#!/bin/bash\n")
    assert "at most 1.0 GPU-hours" in ran.err
    assert ("not on PATH here" in ran.err) == (site != "local")
    assert ran.err.endswith("nothing was submitted\n")
    assert content(tmp_path) == before
