"""The trial's side: parameters in, progress and results out, by hand or in a survey."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import trial

TRIAL = Path(trial.__file__)


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An attempt's folder, with the environment that the agent sets."""
    (tmp_path / "params.json").write_text('{"lr": 0.1, "name": "unet"}')
    for name, value in {
        "PARAMS": "params.json",
        "RESULT": "result.json",
        "PROGRESS": "progress.jsonl",
        "STOP": "stop",
        "CHECKPOINT": "checkpoint",
        "ARTIFACTS": "artifacts",
    }.items():
        monkeypatch.setenv(f"SURVEY_{name}", str(tmp_path / value))
    monkeypatch.setenv("SURVEY_TAG", "t00007-k3j9x2q8")
    return tmp_path


def _result(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return data


def _call(target: str, folder: Path, *, alone: bool = False) -> subprocess.CompletedProcess[str]:
    how = [str(TRIAL)] if alone else ["-m", "orchestrator.trial"]
    environment = dict(os.environ)
    if not alone:
        environment["PYTHONPATH"] = str(TRIAL.parent.parent)
    return subprocess.run(
        [sys.executable, *how, "call", target],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_parameters_are_those_of_the_trial(survey: Path) -> None:
    assert trial.params() == {"lr": 0.1, "name": "unet"}


def test_parameters_that_are_no_object_are_refused(survey: Path) -> None:
    (survey / "params.json").write_text("[1]")
    with pytest.raises(TypeError, match="no parameters by name"):
        trial.params()


def test_each_report_is_one_line(survey: Path) -> None:
    trial.report(1, 0.5)
    trial.report(np.int64(2), np.float32(0.25))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (survey / "progress.jsonl").read_text().splitlines()]
    assert [(line["step"], line["value"]) for line in lines] == [(1, 0.5), (2, 0.25)]
    assert all(line["time"] > 0 for line in lines)


@pytest.mark.parametrize(("step", "value"), [(1, "0.5"), (1, None), (1.5, 0.5), (True, 0.5), ("1", 0.5)])
def test_a_report_of_something_else_is_refused(survey: Path, step: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        trial.report(step, value)
    assert not (survey / "progress.jsonl").exists()


def test_a_result_carries_tag_metrics_and_info(survey: Path) -> None:
    trial.finish({"pauc": 0.81}, info={"epochs": np.int64(3), "curve": np.array([1.0, 2.0]), "path": survey}, dice=1)
    assert _result(survey) == {
        "tag": "t00007-k3j9x2q8",
        "metrics": {"pauc": 0.81, "dice": 1.0},
        "info": {"epochs": 3, "curve": [1.0, 2.0], "path": str(survey)},
        "stopped": False,
    }
    assert (survey / "result.json").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(survey)) == ["params.json", "result.json"]


def test_numbers_of_numpy_are_numbers(survey: Path) -> None:
    trial.finish(a=np.float64(0.5), b=np.int32(2), c=np.array(3.0))
    assert _result(survey)["metrics"] == {"a": 0.5, "b": 2.0, "c": 3.0}


def test_a_number_that_is_not_finite_is_written_as_it_is(survey: Path) -> None:
    trial.finish(a=math.nan, b=-math.inf)
    metrics = _result(survey)["metrics"]
    assert math.isnan(metrics["a"])
    assert metrics["b"] == -math.inf


@pytest.mark.parametrize("value", ["0.5", None, [1.0], object()])
def test_a_metric_that_is_no_number_is_refused_and_nothing_is_written(survey: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="loss"):
        trial.finish(loss=value)
    with pytest.raises(TypeError, match="no JSON"):
        trial.finish({"loss": 1.0}, info={"model": object()})
    assert not (survey / "result.json").exists()


def test_the_last_result_counts_and_a_failed_write_leaves_the_one_before(
    survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.finish(loss=1.0)
    trial.finish(loss=2.0)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trial.finish(loss=3.0)
    assert _result(survey)["metrics"] == {"loss": 2.0}
    assert sorted(os.listdir(survey)) == ["params.json", "result.json"]


def test_a_program_without_a_tag_writes_none(survey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURVEY_TAG")
    trial.finish(loss=1.0)
    assert "tag" not in _result(survey)


def test_a_stop_is_seen_once_it_is_there(survey: Path) -> None:
    assert not trial.should_stop()
    (survey / "stop").write_text("walltime\n")
    assert trial.should_stop()


def test_folders_are_made_when_asked_for(survey: Path) -> None:
    assert trial.checkpoint_dir() == str(survey / "checkpoint")
    assert trial.artifacts_dir() == str(survey / "artifacts")
    assert (survey / "checkpoint").is_dir()
    assert (survey / "artifacts").is_dir()


def test_the_attempt_knows_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (trial.seed(), trial.attempt(), trial.deadline()) == (None, 1, None)
    assert (trial.run(), trial.runs()) == (1, 1)
    monkeypatch.setenv("SURVEY_RUN", "2")
    monkeypatch.setenv("SURVEY_RUNS", "5")
    assert (trial.run(), trial.runs()) == (2, 5)
    for name, value in {"SEED": "0", "ATTEMPT": "3", "DEADLINE": "1795223524.250"}.items():
        monkeypatch.setenv(f"SURVEY_{name}", value)
    assert (trial.seed(), trial.attempt(), trial.deadline()) == (0, 3, 1795223524.25)


def test_by_hand_the_same_program_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trial.params() == {}
    assert not trial.should_stop()
    trial.report(3, 0.5)
    trial.finish({"pauc": 0.75}, dice=1)
    assert capsys.readouterr().out == "3 0.5\npauc 0.75\ndice 1\n"
    assert trial.checkpoint_dir() == str(tmp_path / "checkpoint")


def test_a_function_is_called_with_the_parameters_and_its_number_is_the_value(survey: Path) -> None:
    (survey / "mine.py").write_text("def train(lr, name):\n    return lr if name == 'unet' else 0\n")
    done = _call("mine:train", survey)
    assert done.returncode == 0, done.stderr
    assert _result(survey)["metrics"] == {"value": 0.1}


def test_numbers_of_a_dict_are_metrics_and_the_rest_is_info(survey: Path) -> None:
    (survey / "mine.py").write_text("def train(**p):\n    return {'pauc': 1, 'note': 'x', 'ok': True, 'curve': [1]}\n")
    assert _call("mine:train", survey).returncode == 0
    assert _result(survey)["metrics"] == {"pauc": 1.0}
    assert _result(survey)["info"] == {"note": "x", "ok": True, "curve": [1]}


def test_a_function_that_finishes_itself_returns_nothing(survey: Path) -> None:
    (survey / "mine.py").write_text(
        "from orchestrator import trial\ndef train(**p):\n    trial.finish(loss=2)\ndef forget(**p):\n    pass\n"
    )
    forgot = _call("mine:forget", survey)
    assert forgot.returncode == 2
    assert "returned nothing" in forgot.stderr
    assert _call("mine:train", survey).returncode == 0
    assert _result(survey)["metrics"] == {"loss": 2.0}


def test_as_a_lone_file_it_hides_no_module_of_the_program_s(survey: Path) -> None:
    lone = survey / "lib"
    lone.mkdir()
    (lone / "trial.py").write_text(TRIAL.read_text())
    (survey / "trial.py").write_text("def train(**p):\n    return 7\n")
    done = subprocess.run(
        [sys.executable, "lib/trial.py", "call", "trial:train"], cwd=survey, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _result(survey)["metrics"] == {"value": 7.0}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine", "expected module:function"),
        ("nowhere:train", "no module 'nowhere'"),
        ("mine:trian", "did you mean 'train'"),
        ("mine:narrow", "does not take the trial's parameters (lr, name)"),
        ("mine:words", "must be a number"),
        ("broken:train", "No module named 'missing_inside'"),
    ],
)
def test_what_cannot_be_called_is_explained(survey: Path, target: str, said: str) -> None:
    (survey / "mine.py").write_text(
        "def train(**p):\n    return 1\ndef narrow(lr):\n    return 1\ndef words(**p):\n    return 'high'\n"
    )
    (survey / "broken.py").write_text("import missing_inside\n")
    done = _call(target, survey)
    assert done.returncode != 0
    assert said in done.stderr
    assert not (survey / "result.json").exists()
