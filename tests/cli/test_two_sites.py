"""A study on two clusters at once, from the command line: what is checked, what it costs, where its trials ran."""

from __future__ import annotations

import json
import os
from pathlib import Path

from little_cluster import QUICK, cluster, submitted
from little_study import run, write_study

from orchestrator.simulate.flavours import flavour

COMMAND = """echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT"; echo "on $WHERE"; sleep 0.3"""
GPU = {"gpus": 1, "walltime": "30m"}
SITES = [
    {"name": "north.yaml", "share": 2, "environment": {"WHERE": "north"}},
    {"name": "south.yaml", "share": 2, "environment": {"WHERE": "south"}},
]


def write_sites(folder: Path, south: str = "pbs") -> None:
    for name, kind in (("north", "slurm"), ("south", south)):
        site = flavour(kind).site(**QUICK).model_copy(update={"name": name})
        (folder / f"{name}.yaml").write_text(site.to_yaml(), encoding="utf-8")


def test_a_study_on_two_sites_is_checked_on_both_and_uses_both(tmp_path: Path) -> None:
    write_sites(tmp_path)
    write_study(tmp_path, command=COMMAND, resources=GPU, sites=SITES, trials=6, parallel=4)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with cluster(tmp_path / "one", "slurm") as (north, first), cluster(tmp_path / "two", "pbs") as (south, _):
        path = f"{south.bin}{os.pathsep}{first}"
        checked = run(tmp_path, "check", "study.yaml", "--json", PATH=path)
        assert checked.code == 0, checked.err
        facts = json.loads(checked.out)
        assert [site["site"] for site in facts["sites"]] == ["north", "south"]
        assert "#SBATCH" in facts["sites"][0]["script"]
        assert "#PBS" in facts["sites"][1]["script"]
        assert facts["cost"]["gpu_hours"] == 3.0  # six trials of half an hour, wherever each of them runs
        assert submitted(north) + submitted(south) == 0

        ran = run(tmp_path, "run", "study.yaml", PATH=path)
        assert ran.code == 0, ran.err
        assert "toy on north: no queue, 6 trials, 2 at once" in ran.err
        assert ran.out.startswith("toy: done, 6 complete")
        assert (submitted(north) > 0, submitted(south) > 0) == (True, True)
        assert submitted(north) + submitted(south) == 6

        printed = [path.read_text() for path in tmp_path.glob("runs/toy/trials/*/attempt-1/stdout")]
        assert printed.count("on north\n") == submitted(north)
        assert printed.count("on south\n") == submitted(south)


def test_one_of_its_sites_may_be_chosen_for_a_run(tmp_path: Path) -> None:
    write_sites(tmp_path)
    write_study(tmp_path, command=COMMAND, resources=GPU, sites=SITES, trials=2, parallel=2)
    with cluster(tmp_path, "pbs") as (south, path):
        ran = run(tmp_path, "run", "study.yaml", "--site", "south.yaml", PATH=path)
        assert ran.code == 0, ran.err
        assert submitted(south) == 2
        assert "on south" in run(tmp_path, "logs", "0").out


def test_a_site_whose_commands_are_missing_stops_the_study_before_anything_is_submitted(tmp_path: Path) -> None:
    write_sites(tmp_path, south="pjm")
    write_study(tmp_path, command=COMMAND, resources=GPU, sites=SITES, trials=2, parallel=4)
    with cluster(tmp_path, "slurm") as (north, path):
        ran = run(tmp_path, "run", "study.yaml", PATH=path)
        assert ran.code == 2
        assert "is this a login node of south?" in ran.err
        assert submitted(north) == 0
    assert not (tmp_path / "runs").exists()
