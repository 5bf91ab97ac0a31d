"""What every sampler must do, whatever its method."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from optuna.trial import BaseTrial, TrialState
from sampler_spaces import SPACE, mixed, quiet_study, run, valid

from orchestrator.samplers import MODEL_BASED, NAMES, make_sampler
from orchestrator.samplers.registry import NEEDS

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# What is not installed is tested for its message below; here are all that can run.
RUNNABLE = [name for name in NAMES if name not in NEEDS or find_spec(NEEDS[name][0])]
MODELS = [name for name in RUNNABLE if name in MODEL_BASED]

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adam"},
    {"optimizer": "sgd", "momentum": 0.5},
    {"optimizer": "sgd", "momentum": 0.9},
]
GRID: list[dict[str, Any]] = [
    {"rate": rate, "drop": 0.1, "layers": layers, "width": 32, "batch": 8, "constant": 2.0, **rest}
    for rate, layers, rest in itertools.product(
        (1e-4, 1e-3, 1e-2),
        (1, 2, 3, 4),
        OPTIMIZERS,
    )
]

# Cheaper than what they come with: the contract is about keeping rules, not about searching well.
QUICK: dict[str, dict[str, Any]] = {
    "bo": {"models": 2, "pool": 200},
    "skopt": {"base_estimator": "ET"},
    "nsga2": {"population_size": 4},
}


def make(name: str, seed: int = 5, **options: Any) -> BaseSampler:
    return make_sampler(name, seed=seed, grid=GRID if name == "grid" else None, options=QUICK.get(name), **options)


def mixed_or_diverging(trial: BaseTrial) -> float:
    value = mixed(trial)
    return math.nan if trial.params["rate"] > 1e-2 else value


SCRIPT = """
import json, sys
sys.path[:0] = [{folder!r}]
from sampler_spaces import *
from test_sampler_contract import make, mixed_or_diverging
study = quiet_study(make({name!r}))
run(study, mixed_or_diverging, 9, pending=2)
study.sampler = make({name!r})
print(json.dumps(run(study, mixed_or_diverging, 2, pending=2)))
"""


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_same_seed_and_history_give_the_same_values_in_a_fresh_process(name: str) -> None:
    study = quiet_study(make(name))
    run(study, mixed_or_diverging, 9, pending=2)
    script = SCRIPT.format(folder=str(Path(__file__).parent), name=name)
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == run(study, mixed_or_diverging, 2, pending=2)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_sampler_made_anew_for_each_ask_goes_on_as_one_that_was_kept(name: str) -> None:
    kept, anew = quiet_study(make(name)), quiet_study(make(name))
    first = run(kept, mixed, 9)
    second = []
    for _ in range(9):
        anew.sampler = make(name)
        second += run(anew, mixed, 1)
    assert first == second


@pytest.mark.parametrize("name", RUNNABLE)
def test_different_trials_get_different_values(name: str) -> None:
    asked = run(quiet_study(make(name)), mixed, 12, pending=4)
    assert len({json.dumps(params, sort_keys=True) for params in asked}) == 12


@pytest.mark.parametrize("name", sorted(set(RUNNABLE) - {"grid"}))
def test_different_seeds_give_different_values(name: str) -> None:
    assert run(quiet_study(make(name, 5)), mixed, 5) != run(quiet_study(make(name, 6)), mixed, 5)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("known", [False, True], ids=["define-by-run", "space given"])
def test_values_keep_to_ranges_steps_choices_and_conditions(name: str, known: bool) -> None:
    study = quiet_study(make(name, space=SPACE if known else None))
    asked = run(study, mixed_or_diverging, 14, pending=3)
    assert all(valid(params) for params in asked)
    assert {params["optimizer"] for params in asked} == {"sgd", "adam"}


@pytest.mark.parametrize("name", MODELS)
def test_values_are_random_until_enough_trials_are_complete_not_merely_started(name: str) -> None:
    modelled, random = quiet_study(make(name)), quiet_study(make_sampler("random", seed=5))
    for study in (modelled, random):
        for _ in range(3):
            trial = study.ask()
            mixed(trial)
            study.tell(trial, state=TrialState.FAIL)
        run(study, mixed, 6, pending=4)  # six more are started, two of them are complete
    assert run(modelled, mixed, 1, pending=1) == run(random, mixed, 1, pending=1)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_in_as_soon_as_enough_trials_are_complete(name: str) -> None:
    modelled, random = quiet_study(make(name)), quiet_study(make_sampler("random", seed=5))
    assert run(modelled, mixed, 4)[:3] == run(random, mixed, 4)[:3]
    assert modelled.trials[3].params != random.trials[3].params


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_study_where_everything_fails_goes_on(name: str) -> None:
    def failing(trial: BaseTrial) -> float:
        mixed(trial)
        return math.nan

    assert len(run(quiet_study(make(name)), failing, 6)) == 6


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_enqueued_values_are_kept(name: str, direction: str) -> None:
    study = quiet_study(make(name), direction=direction)
    run(study, mixed, 4)
    wanted = {**GRID[30], "rate": 2e-3}
    study.enqueue_trial(wanted)
    assert run(study, mixed, 1) == [wanted]
    assert valid(run(study, mixed, 1)[0])


@pytest.mark.parametrize(
    "name", sorted(set(MODELS) - {"cmaes"})
)  # CMA-ES draws from a distribution that ended trials shape
def test_pending_trials_are_in_view(name: str) -> None:
    def next_after(state: TrialState) -> dict[str, Any]:
        study = quiet_study(make(name))
        run(study, mixed, 12)
        for point in GRID[13:16]:
            study.enqueue_trial(point)
            trial = study.ask()
            mixed(trial)
            if state is TrialState.FAIL:
                study.tell(trial, state=TrialState.FAIL)
        study.sampler = make(name)
        return run(study, mixed, 1)[0]

    assert next_after(TrialState.RUNNING) != next_after(TrialState.FAIL)


@pytest.mark.parametrize(("name", "package"), [(name, package) for name, (package, _) in NEEDS.items()])
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Exception, match=r"pip install 'survey-orchestrator\[") as caught:
        make_sampler(name, seed=1)
    assert package in str(caught.value)
