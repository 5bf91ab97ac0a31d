"""Engines of the comparison that come from other packages: what they are told, and what is said where one is missing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "search"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return importlib.import_module


def test_an_engine_that_is_not_installed_is_left_out_with_what_to_install(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load("run")
    monkeypatch.setattr(load("engines"), "NEEDS", {"smac": {"no_such_module": "smac"}})
    short = [
        "--set",
        "small",
        "--problems",
        "branin",
        "--seeds",
        "1",
        "--trials",
        "3",
        "--workers",
        "1",
        "--engines",
        "smac",
        "random",
    ]
    monkeypatch.setattr(sys, "argv", ["run.py", *short, "--out", str(tmp_path / "out.jsonl")])
    run.main()
    said = capsys.readouterr().out
    assert "smac is left out: pip install smac" in said
    assert "random branin N=1 seed 0: regret" in said
    assert "smac branin" not in said


def told(load: Any, answer: Any) -> optuna.Study:
    """A study of ten trials, two of them failed and one running, whose engine answers every ask with one point."""
    seen: list[Any] = []

    class Fixed(load("foreign")._Told):  # type: ignore[misc]
        def _propose(self, encoding: Any, history: Any, seed: int) -> Any:
            seen.append((encoding, history))
            return np.array([answer[name] for name in encoding.names])

    study = optuna.create_study(sampler=Fixed(seed=3))
    study.set_user_attr("seen", None)
    study.ask()
    for number in range(9):
        trial = study.ask()
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        depth = trial.suggest_int("depth", 2, 8, step=3)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        if number % 4 == 1:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, rate + depth + len(kind))
    study.__dict__["seen"] = seen
    return study


def test_an_engine_is_told_all_trials_in_unit_coordinates_and_failed_ones_as_the_worst(load: Any) -> None:
    study = told(load, {"rate": 0.25, "depth": 0.6, "kind": 1.0})
    encoding, history = study.__dict__["seen"][-1]
    assert encoding.names == ["depth", "kind", "rate"]
    failed = [trial.number for trial in study.trials[1:9] if trial.state is optuna.trial.TrialState.FAIL]
    worst = max(trial.value for trial in study.trials[:9] if trial.value is not None)
    assert [history.y[number - 1] for number in failed] == [worst] * len(failed)
    assert ((history.Z >= 0.0) & (history.Z <= 1.0)).all()


def test_its_point_comes_back_in_the_users_terms_and_on_the_grid(load: Any) -> None:
    study = told(load, {"rate": 0.25, "depth": 0.6, "kind": 1.0})
    assert study.trials[-1].params == {"rate": pytest.approx(1e-3), "depth": 5, "kind": "b"}


def test_of_a_relaxed_choice_the_largest_column_counts(load: Any) -> None:
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "kind": optuna.distributions.CategoricalDistribution(["a", "b", "c"]),
        "rate": optuna.distributions.FloatDistribution(0.0, 1.0),
    }
    encoding = load("orchestrator.samplers.encoding").Encoding(space)
    point = load("foreign").BoTorchEngine._point(encoding, np.array([0.2, 0.1, 0.5, 0.75]))
    assert point.tolist() == [2.0, 0.75]
