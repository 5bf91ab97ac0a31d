"""The package as it is installed: from its wheel, and editable; used outside the checkout, with nothing of it in view.

The environments are made anew and hold our package alone; what it depends on is taken from the running
interpreter's site-packages by a .pth file. A .pth file below such a path is not obeyed, so that an editable
install of the running interpreter does not reach in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Where the build backend is not installed, pip fetches it.
ISOLATED = importlib.util.find_spec("hatchling") is None
PROGRAM = """
from orchestrator import trial
trial.finish(loss=trial.params()["x"])
"""


@dataclass(frozen=True)
class Installed:
    """An environment, and a folder outside the checkout to work in."""

    venv: Path
    folder: Path

    def run(self, *words: str) -> str:
        """Run a program of the environment; its stdout."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            [str(self.venv / "bin" / words[0]), *words[1:]],
            cwd=self.folder,
            env={**kept, "PATH": f"{self.venv}/bin:/usr/bin:/bin", "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        return self.run("python", "-c", code).strip()


def environment(folder: Path) -> Installed:
    """An environment without our package, but with all that it depends on."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    paths = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n", encoding="utf-8")
    home = folder / "home"
    home.mkdir()
    made = Installed(venv, home)
    # An editable install may have left a folder of that name with data in it, but no code.
    found = made.python(
        "import optuna, importlib.util as u; s = u.find_spec('orchestrator'); print(s is not None and s.origin is not None)"
    )
    assert found == "False"
    return made


def install(into: Installed, *words: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(into.venv / "bin/python"), "install", "--quiet", "--no-deps"]
    isolation = [] if ISOLATED else ["--no-build-isolation"]
    # Ours is older news to pip where the running interpreter has it too.
    subprocess.run([*pip, *isolation, "--ignore-installed", *words], check=True, cwd=into.folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    isolation = [] if ISOLATED else ["--no-isolation"]
    build = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = environment(tmp_path_factory.mktemp("from-wheel"))
    install(made, str(wheel))
    return made


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = environment(tmp_path_factory.mktemp("editable"))
    install(made, "--editable", str(ROOT))
    return made


def works(installed: Installed, data: Path) -> None:
    """Check that the verbs work, and take sites and templates from ``data``."""
    sites = json.loads(installed.run("survey", "sites", "--json"))["sites"]
    assert {site["name"] for site in sites} == {path.stem for path in (ROOT / "sites").glob("*.yaml")}
    assert {Path(site["path"]).parent for site in sites} == {data / "sites"}
    template = "from orchestrator import resources; print(resources.find('templates', 'slurm.sh.j2'))"
    assert Path(installed.python(template)) == data / "templates" / "slurm.sh.j2"
    installed.run("survey", "init", "first.yaml", "--name", "first")
    assert installed.run("survey", "check", "first.yaml", "--site", "slurm").startswith("#!/bin/bash\n#SBATCH")
    (installed.folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    study = {
        "name": "toy",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "trials": 2,
        "parallel": 2,
        "command": ["python", "program.py"],
    }
    (installed.folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    assert installed.run("survey", "run", "study.yaml").startswith("toy: done, 2 complete, 2 planned\n")


def test_the_wheel_has_what_is_needed_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "orchestrator",
        "workloads",
        "survey_orchestrator",
    }
    tree = {
        str(path.relative_to(ROOT))
        for package in ("orchestrator", "workloads")
        for path in (ROOT / package).rglob("*.py")
    }
    assert tree <= names
    assert "orchestrator/py.typed" in names
    for kind in ("templates", "sites"):
        files = {f"orchestrator/data/{kind}/{path.name}" for path in (ROOT / kind).iterdir() if path.is_file()}
        assert files
        assert files <= names
    assert not [name for name in names if name.endswith((".pyc", ".db"))]


def test_the_wheel_works_outside_the_checkout(from_wheel: Installed) -> None:
    package = Path(from_wheel.python("import orchestrator; print(orchestrator.__file__)")).parent
    assert package.is_relative_to(from_wheel.venv)
    assert str(ROOT) not in from_wheel.python("import sys; print(sys.path)").replace(
        sysconfig.get_paths()["purelib"], ""
    )
    works(from_wheel, package / "data")
    # The job's copy of the trial module came from the wheel too.
    (staged,) = (from_wheel.folder / "runs/toy/lib").rglob("trial.py")
    assert staged.read_bytes() == (package / "trial.py").read_bytes()


def test_the_installed_command_tells_the_version_of_the_wheel(from_wheel: Installed, wheel: Path) -> None:
    assert from_wheel.run("survey", "--version") == f"survey-orchestrator {wheel.name.split('-')[1]}\n"


def test_an_editable_install_takes_all_from_the_checkout(editable: Installed) -> None:
    package = Path(editable.python("import orchestrator; print(orchestrator.__file__)")).parent
    assert package == ROOT / "orchestrator"
    works(editable, ROOT)
