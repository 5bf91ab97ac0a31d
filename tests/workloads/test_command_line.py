from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workloads import tasks
from workloads.__main__ import main
from workloads.errors import WorkloadError
from workloads.parameters import Parameter, parse_assignments, resolve

EXAMPLES = Path(__file__).parents[2] / "examples"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with exit code 2."""
    assert main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") <= 3
    return text


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trial's folder, as the agent sets it up, without parameters."""
    for name, leaf in {"PARAMS": "params.json", "RESULT": "result.json", "PROGRESS": "progress.jsonl"}.items():
        monkeypatch.setenv(f"SURVEY_{name}", str(tmp_path / leaf))
    monkeypatch.setenv("SURVEY_STOP", str(tmp_path / "stop"))
    monkeypatch.setenv("SURVEY_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("SURVEY_TAG", "t00000-abc")
    (tmp_path / "params.json").write_text("{}")
    return tmp_path


def result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_list_names_every_task_and_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in tasks.NAMES:
        assert f"{name}: " in text
        assert all(parameter.name in text for parameter in tasks.load(name).PARAMETERS)


def test_a_misspelt_task_is_met_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'aneurysm'?" in refusal(capsys, "aneurism", "--data", "x")
    assert "there is: aneurysm, covid-2d" in refusal(capsys, "zzz")
    assert "did you mean 'aneurysm'?" in refusal(capsys, "phantom", "anuerysm", "--out", "x")
    assert "digits needs no phantoms" in refusal(capsys, "phantom", "digits")


def test_phantoms_that_cannot_be_made_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make = ("phantom", "aneurysm", "--out", str(tmp_path / "p"), "--train", "2")
    assert "no room for" in refusal(capsys, *make, "--shape", "6", "6", "4")
    assert "--normal-fraction must be" in refusal(capsys, *make, "--normal-fraction", "1")


def test_a_misspelt_parameter_is_met_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'learning_rate'?" in refusal(capsys, "digits", "--set", "learnign_rate=0.1")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learning_rate=7", "7 is out of range"),
        ("learning_rate=NaN", "is not a finite number"),
        ("hidden_units=2.5", "2.5 is not a whole number"),
        ("hidden_units=true", "is not a finite number"),
        ("activation=rely", "did you mean 'relu'?"),
        ("activation", "is not of the form name=value"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    capsys: pytest.CaptureFixture[str], assignment: str, message: str
) -> None:
    assert message in refusal(capsys, "digits", "--set", assignment)


def test_given_values_go_over_defaults_in_the_parameters_own_type() -> None:
    space = [Parameter(name="units", default=8, low=1, high=64), Parameter(name="rate", default=0.1, low=0.0, high=1.0)]
    assert resolve(space, parse_assignments(["units=16.0", "rate=1"])) == {"units": 16, "rate": 1.0}
    assert resolve(space, {}) == {"units": 8, "rate": 0.1}
    with pytest.raises(WorkloadError, match="'unit'"):
        resolve(space, {"unit": 3})


def test_digits_learns_and_reports_every_epoch(survey: Path) -> None:
    (survey / "params.json").write_text('{"learning_rate": 0.03}')
    assert main(["digits", "--epochs", "6"]) == 0
    found = result(survey)
    assert found["tag"] == "t00000-abc"
    assert found["metrics"]["accuracy"] > 0.8  # a guess is right once in ten
    assert found["info"]["params"]["learning_rate"] == 0.03
    assert steps(survey) == [1, 2, 3, 4, 5, 6]
    assert len((survey / "artifacts" / "predictions.csv").read_text().splitlines()) == 600


def test_digits_gives_the_same_result_for_the_same_seed_and_another_for_another(survey: Path) -> None:
    accuracies = []
    for seed in ("5", "5", "6"):
        assert main(["digits", "--epochs", "2", "--seed", seed, "--set", "learning_rate=0.002"]) == 0
        accuracies.append(result(survey)["metrics"]["accuracy"])
    assert accuracies[0] == accuracies[1] != accuracies[2]


def test_the_surveys_seed_is_used(survey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURVEY_SEED", str(2**40 + 3))
    assert main(["digits", "--epochs", "1"]) == 0
    assert result(survey)["info"]["seed"] == 3


def test_the_command_line_goes_over_the_surveys_parameters(survey: Path) -> None:
    (survey / "params.json").write_text('{"hidden_units": 4, "alpha": 0.01}')
    assert main(["digits", "--epochs", "1", "--set", "hidden_units=7"]) == 0
    params = result(survey)["info"]["params"]
    assert (params["hidden_units"], params["alpha"]) == (7, 0.01)


def test_a_digits_training_that_is_asked_to_stop_ends_with_a_result(survey: Path) -> None:
    (survey / "stop").touch()
    assert main(["digits", "--epochs", "50"]) == 0
    assert result(survey)["info"]["epochs"] == 1


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_digits_training_that_meets_its_walltime_goes_on_as_if_it_had_not(
    survey: Path, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    arguments = ["digits", "--epochs", "4", "--set", f"solver={solver}", "--set", "learning_rate=0.003"]
    assert main(arguments) == 0
    whole, answers = result(survey), (survey / "artifacts" / "predictions.csv").read_text()
    (survey / "result.json").unlink()
    (survey / "progress.jsonl").unlink()
    monkeypatch.setenv("SURVEY_CHECKPOINT", str(survey / "checkpoint"))
    (survey / "stop").write_text("walltime\n")
    for _ in range(3):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 85
        assert not (survey / "result.json").exists()
    assert main(arguments) == 0
    assert steps(survey) == [1, 2, 3, 4]
    assert result(survey)["metrics"]["accuracy"] == whole["metrics"]["accuracy"]
    assert (survey / "artifacts" / "predictions.csv").read_text() == answers


def test_digits_has_bad_regions_for_a_search_to_avoid(survey: Path) -> None:
    assert main(["digits", "--epochs", "3", "--set", "learning_rate=1.0", "--set", "alpha=10"]) == 0
    assert result(survey)["metrics"]["accuracy"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch", "64", "64", "64"], "a patch of (64, 64, 64) voxels is larger than the volume"),
        (["--patch", "12", "11", "12"], "must be multiples of 2"),
        (["--split", "{data}/none.json"], "none.json: no such file"),
        (["--match", "centre"], "--match centre needs a radius in mm"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--spacing", "1", "-1", "1"], "--spacing must be positive"),
        (["--set", "lr=1"], "no parameter is called 'lr'"),
    ],
)
def test_what_cannot_work_is_refused_before_tensorflow_is_loaded(
    phantoms: Path, arguments: list[str], message: str
) -> None:
    code = (
        "import sys; from workloads.__main__ import main; "
        "code = main(sys.argv[1:]); assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    given = [argument.format(data=phantoms) for argument in arguments]
    command = [sys.executable, "-c", code, "aneurysm", "--data", str(phantoms), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_a_missing_tensorflow_is_one_line_that_says_what_to_install(phantoms: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from workloads.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "aneurysm", "--data", str(phantoms), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: TensorFlow is not installed\n")
    assert "survey-orchestrator[workloads-cpu]" in done.stderr


def test_threads_are_one_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from workloads.training.setup import prepare

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    assert prepare(None) == 1
    assert prepare(3) == 3
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert prepare(None) == 3


@pytest.mark.parametrize("name", tasks.NAMES)
def test_the_example_study_of_a_task_searches_what_the_task_takes(name: str) -> None:
    study = yaml.safe_load((EXAMPLES / name / "study.yaml").read_text())
    known = {parameter.name: parameter for parameter in tasks.load(name).PARAMETERS}
    assert study["command"][:4] == ["python", "-m", "workloads", name]
    assert set(study["space"]) == set(known)
    for parameter, searched in study["space"].items():
        if searched["type"] == "categorical":
            assert tuple(searched["choices"]) == known[parameter].choices
        else:
            assert known[parameter].check(searched["low"]) == searched["low"]
            assert known[parameter].check(searched["high"]) == searched["high"]
            assert searched.get("log", False) == known[parameter].log
            assert (searched["type"] == "int") == known[parameter].whole
        when = {
            parent: values if isinstance(values, list) else [values]
            for parent, values in searched.get("when", {}).items()
        }
        assert when == {parent: list(values) for parent, values in known[parameter].when.items()}


@pytest.mark.parametrize("name", tasks.NAMES)
def test_the_documentation_names_every_parameter(name: str) -> None:
    text = "".join(path.read_text() for path in (EXAMPLES.parent / "docs").glob("workloads*.md"))
    for parameter in tasks.load(name).PARAMETERS:
        assert re.search(rf"`{parameter.name}`", text), parameter.name
