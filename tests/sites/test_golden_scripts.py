"""Every script that ships can be read in ``golden/``; these tests keep the files true."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from golden_shapes import FOLDER, SHAPES, text_of

from orchestrator import resources
from orchestrator.config.site import load_site

SITES = sorted(path.stem for path in resources.folders("sites")[-1].glob("*.yaml"))
SCRIPTS = sorted(FOLDER.glob("*/*.sh"))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_script_is_what_its_golden_file_says(site: str, shape: str) -> None:
    text, suffix = text_of(load_site(resources.folders("sites")[-1] / f"{site}.yaml"), SHAPES[shape])
    golden = FOLDER / site / f"{shape}{suffix}"
    assert golden.is_file(), f"{golden} is missing: run python tests/sites/regenerate.py"
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    kept = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*")}
    assert kept == {f"{site}/{shape}" for site in SITES for shape in SHAPES}
    assert len(list(FOLDER.glob("*/*"))) == len(kept)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_golden_script_is_valid_bash(script: Path) -> None:
    checked = subprocess.run(["/bin/bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_directives_stand_together_at_the_top(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    body = lines.index("umask 077")
    assert all(line.startswith("#") for line in lines[1 : body - 1])
    assert not any(line.startswith(("#SBATCH", "#PBS", "#PJM", "#$")) for line in lines[body:])
