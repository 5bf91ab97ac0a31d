from __future__ import annotations

import json
import math
import runpy
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_shell_trial(folder: Path, params: dict[str, object], *, indent: int | None = None) -> None:
    names = {name: str(folder / f"{name.lower()}.json") for name in ("PARAMS", "RESULT", "PROGRESS", "STOP")}
    Path(names["PARAMS"]).write_text(json.dumps(params, indent=indent), encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", **{f"SURVEY_{name}": path for name, path in names.items()}}
    subprocess.run(["sh", str(EXAMPLES / "shell" / "trial.sh")], check=True, env=environment, cwd=folder)


def height(folder: Path) -> float:
    return float(json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]["height"])


@pytest.mark.parametrize("indent", [None, 1])
def test_the_shell_trial_computes_himmelblaus_function(tmp_path: Path, indent: int | None) -> None:
    run_shell_trial(tmp_path, {"x": -3.0, "y": 2.5e0, "noise": "none"}, indent=indent)
    # (9 + 2.5 - 11)^2 + (-3 + 6.25 - 7)^2
    assert height(tmp_path) == pytest.approx(0.25 + 14.0625)
    steps = [json.loads(line) for line in (tmp_path / "progress.json").read_text(encoding="utf-8").splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]


def test_the_shell_trial_heeds_its_conditional_parameter(tmp_path: Path) -> None:
    run_shell_trial(tmp_path, {"amplitude": 1e-1, "x": 3.0, "y": 2.0, "noise": "some"})
    assert 0 < height(tmp_path) < 0.1


def test_the_shell_trial_ends_soon_when_asked(tmp_path: Path) -> None:
    (tmp_path / "stop.json").touch()
    run_shell_trial(tmp_path, {"x": 3.0, "y": 2.0, "noise": "none"})
    assert height(tmp_path) == 0
    assert len((tmp_path / "progress.json").read_text(encoding="utf-8").splitlines()) == 1


def test_the_rod_of_the_plain_survey_cools_as_the_heat_equation_says() -> None:
    half_time = runpy.run_path(str(EXAMPLES / "survey_plain" / "heat.py"))["half_time"]
    # First term of the Fourier series (Carslaw and Jaeger 1959, section 3.3): 4/pi exp(-pi^2 D t) = 1/2 at L = 1.
    expected = math.log(8 / math.pi) / (math.pi**2 * 1e-3)
    assert half_time(1e-3, 41) == pytest.approx(expected, rel=0.06)
