"""Trials in a container, by a stand-in for Apptainer that looks at what it is asked for and runs the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from little_study import environment, run, write_study

from orchestrator.config.site import BatchOptions, load_site
from orchestrator.jobs.script import wrap_command
from orchestrator.model import Resources

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in_apptainer.py")
DEFINITION = ROOT / "containers/workloads.def"


def install(folder: Path, name: str = "apptainer") -> Path:
    """Put the stand-in on a PATH of its own, and an image with Python beside it."""
    (folder / "image/bin").mkdir(parents=True)
    runtime = folder / name
    shutil.copy(STAND_IN, folder / "stand_in.py")
    # By its name only: PATH leads to it.
    runtime.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/stand_in.py "$@"\n')
    python = folder / "image/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for program in (runtime, python):
        program.chmod(0o755)
    (folder / "train.sif").write_text("an image")
    return folder


def path_with(runtime: Path) -> str:
    """A PATH that has the runtime, and no ``python`` but the image's."""
    return f"{runtime}:/usr/local/bin:/usr/bin:/bin"


def calls(runtime: Path) -> list[Any]:
    return [json.loads(line) for line in (runtime / "calls.jsonl").read_text().splitlines()]


def test_a_study_trains_in_a_container_that_sees_what_a_trial_needs(tmp_path: Path) -> None:
    runtime = install(tmp_path / "runtime")
    (tmp_path / "data").mkdir()
    write_study(
        tmp_path,
        objective={"metric": "accuracy", "direction": "maximize"},
        space={"hidden_units": {"type": "int", "low": 4, "high": 8}},
        command=["python", "-m", "workloads", "digits", "--epochs", "2"],
        environment={"OMP_NUM_THREADS": "1"},
        batch={"container": {"image": str(runtime / "train.sif"), "binds": [f"{tmp_path}/data:/data:ro"]}},
    )
    ran = run(tmp_path, "run", "study.yaml", PATH=path_with(runtime))
    assert ran.code == 0, ran.err
    assert "2 complete" in ran.out
    found = calls(runtime)
    assert len(found) == 2
    for call in found:
        assert call["nv"]
        assert call["image"] == str(runtime / "train.sif")
        assert call["command"] == ["python", "-m", "workloads", "digits", "--epochs", "2"]
        assert f"{tmp_path}/data:/data:ro" in call["binds"]
        assert str(tmp_path) in call["binds"]  # the workdir; the work root has its own
        assert call["threads"] == "1"
        needed = {"PARAMS", "RESULT", "PROGRESS", "STOP", "CHECKPOINT", "ARTIFACTS", "SEED", "TRIAL"}
        assert {f"SURVEY_{name}" for name in needed} <= set(call["survey"])


def test_what_is_printed_when_a_container_does_not_start_is_the_trials(tmp_path: Path) -> None:
    runtime = install(tmp_path / "runtime")
    binds = [f"{tmp_path}/gone"]
    write_study(tmp_path, trials=1, batch={"container": {"image": str(runtime / "train.sif"), "binds": binds}})
    assert run(tmp_path, "run", "study.yaml", PATH=path_with(runtime)).code == 3
    told = run(tmp_path, "logs", "0")
    assert f"mount source {tmp_path}/gone doesn't exist" in told.out + told.err
    assert not (runtime / "calls.jsonl").exists()


def test_an_image_that_is_not_there_is_told_before_anything_is_submitted(tmp_path: Path) -> None:
    runtime = install(tmp_path / "runtime")
    write_study(tmp_path, batch={"container": {"image": "gone.sif"}})
    ran = run(tmp_path, "check", "study.yaml", PATH=path_with(runtime))
    assert "container image 'gone.sif' is not there" in ran.out + ran.err


CONTAINER_SITES = ("abci3", "flow-type2", "genkai", "miyabi-g", "tsubame4", "wisteria-aquarius", "slurm")


@pytest.mark.parametrize("name", CONTAINER_SITES)
def test_every_sites_command_line_is_one_that_its_runtime_understands(name: str, tmp_path: Path) -> None:
    site = load_site(name)
    runtime = install(tmp_path / "runtime", site.container.runtime)
    batch = BatchOptions.model_validate({"container": {"image": f"{runtime}/train.sif"}, "launcher": "none"})
    wrapped = wrap_command(batch, site, ("python", "-c", "print('a  b')"), Resources(), binds=(str(tmp_path),))
    assert not isinstance(wrapped, str)
    ran = subprocess.run(
        wrapped,
        env={"PATH": path_with(runtime), "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "a  b\n"), ran.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "a.sif", "x"], 64),
        (["exec", "--writable", "a.sif", "x"], 64),
        (["exec", "a.sif"], 64),
        (["exec", "--bind", "/nowhere/at/all", "a.sif", "x"], 65),
        (["exec", "gone.sif", "x"], 66),
        (["exec", "runtime/train.sif", "true"], 67),  # nothing is bound, the folder it runs in neither
    ],
)
def test_the_stand_in_refuses_what_it_should(words: list[str], code: int, tmp_path: Path) -> None:
    """Else the other tests would pass whatever is asked for."""
    runtime = install(tmp_path / "runtime")
    ran = subprocess.run(
        [runtime / "apptainer", *words], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert ran.returncode == code


# The definition of the image


def sections() -> dict[str, list[str]]:
    """Lines of each section of the definition, without comments and blank ones."""
    found: dict[str, list[str]] = {"header": []}
    name = "header"
    for line in DEFINITION.read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            found[name].append(line)
    return found


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_definition_copies_what_is_there_and_the_project_can_be_built_of_it(variant: str) -> None:
    lines = [line.replace("{{ variant }}", variant).split() for line in sections()["files"]]
    sources = [source for source, _ in lines]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {target for _, target in lines} >= {f"/opt/survey/{name}" for name in ("pyproject.toml", "orchestrator")}
    assert f"containers/requirements-{variant}.txt" in sources


def test_the_definitions_shell_is_sound() -> None:
    for name in ("post", "test", "environment", "runscript"):
        script = "\n".join(sections()[name])
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_the_definitions_own_test_passes_where_the_packages_are(tmp_path: Path) -> None:
    runtime = install(tmp_path / "runtime")
    ran = subprocess.run(
        ["sh"],
        input="\n".join(sections()["test"]),
        cwd=tmp_path,
        env={**environment(), "PATH": f"{runtime}/image/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp.")]


def locked(variant: str) -> dict[str, str]:
    """Package to version, of a list that pins every one."""
    lines = (ROOT / f"containers/requirements-{variant}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    assert len({name for name, _ in pairs}) == len(pairs)
    return {pair[0]: pair[1] for pair in pairs}


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_pinned_packages_are_what_the_project_asks_for(variant: str) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = locked(variant)
    for text in project["dependencies"] + project["optional-dependencies"][f"workloads-{variant}"]:
        wanted = requirements.Requirement(text)
        assert wanted.specifier.contains(pinned[wanted.name.lower()]), text


def test_both_variants_pin_the_same_but_for_tensorflow_and_cuda() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    assert cpu.pop("tensorflow-cpu") == gpu.pop("tensorflow")
    assert {name: version for name, version in gpu.items() if not name.startswith("nvidia-")} == cpu


def test_the_shipped_sites_that_say_something_of_containers_are_all_tried() -> None:
    said = {
        path.stem
        for path in (ROOT / "sites").glob("*.yaml")
        if "container" in yaml.safe_load(path.read_text()) and not path.stem.startswith("reedbush")  # retired
    }
    assert said <= set(CONTAINER_SITES)
    assert os.access(STAND_IN, os.R_OK)
