from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from sampler_spaces import mixed, quiet_study, run

from orchestrator.errors import UsageError
from orchestrator.samplers import NAMES, BOSampler, make_sampler, trial_seed


def test_an_unknown_sampler_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match="did you mean 'random'"):
        make_sampler("randon", seed=1)


def test_an_unknown_option_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(UsageError, match="no option 'zzz'") as caught:
        make_sampler("bo", seed=1, options={"zzz": 1})
    assert "fantasies" in caught.value.hint
    with pytest.raises(UsageError, match="it has no options"):
        make_sampler("random", seed=1, options={"zzz": 1})


def test_options_reach_the_sampler() -> None:
    sampler = make_sampler("bo", seed=1, options={"models": 2}, startup_trials=7)
    assert isinstance(sampler, BOSampler)
    assert (sampler.models, sampler.startup_trials) == (2, 7)
    study = quiet_study(make_sampler("tpe", seed=1, options={"n_ei_candidates": 2}))
    assert len(run(study, mixed, 5)) == 5


def test_importing_the_package_does_not_import_optuna() -> None:
    script = "import sys, orchestrator.samplers; sys.exit('optuna' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_samplers_need_nothing_else_of_the_project() -> None:
    script = (
        "import sys, orchestrator.samplers.bo, orchestrator.samplers.registry\n"
        "print(sorted(m for m in sys.modules if m.startswith('orchestrator.') and not m.startswith('orchestrator.samplers')))"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "['orchestrator.errors']"


def test_seeds_of_trials_differ_and_stay_what_they_are() -> None:
    seeds = {trial_seed(study, number, name) for study in range(5) for number in range(50) for name in ("", "x", "y")}
    assert len(seeds) == 750
    assert trial_seed(7, 3) == trial_seed(7, 3)
    assert trial_seed(-1, 0) >= 0


@pytest.mark.parametrize("name", ["bo", "skopt"])
def test_several_objectives_are_refused_in_words(name: str) -> None:
    study = quiet_study(make_sampler(name, seed=1), directions=["minimize", "maximize"])
    trial = study.ask()
    with pytest.raises(UsageError, match="one objective"):
        trial.suggest_float("x", 0.0, 1.0)


@pytest.mark.parametrize("name", ["bo", "cmaes", "skopt"])
def test_a_sampler_of_one_objective_says_so_before_it_is_asked(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}' searches for one objective, and this study has 2") as caught:
        make_sampler(name, seed=1, objectives=2)
    assert "nsga2, tpe, gp" in caught.value.hint


def test_bo_comes_first() -> None:
    assert NAMES[0] == "bo"


def test_optuna_runs_a_study_with_any_sampler_in_its_own_loop() -> None:
    study = quiet_study(make_sampler("bo", seed=3))
    study.optimize(mixed, n_trials=5)
    assert all(trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials)
