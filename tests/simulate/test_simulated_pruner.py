"""What a pruner would save: the study with it and without it on a modelled machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from test_simulated_study import HOUR, NO_WAIT, study

from orchestrator.simulate.study_model import Arm, Machine, simulate_arm
from orchestrator.simulate.surrogate import Expected

STEPS = 16


def training(params: Mapping[str, Any], _seed: int) -> Expected:
    """Sixteen epochs of a quarter of an hour; a trial that is better at its end is better on the way."""
    x = params["x"]
    return Expected(
        metrics={"m": x}, seconds=4 * HOUR, progress=tuple((step, x - 1.0 / step) for step in range(1, STEPS + 1))
    )


def simulate(pruner: Mapping[str, Any] | None) -> Arm:
    machine = Machine(queue_wait=NO_WAIT, submits_per_minute=1e4)
    what = study(pruner=pruner, trials=16)
    return simulate_arm(what, training, machine, way="asynchronous", parallel=4, typical=4 * HOUR)


def test_with_asha_the_best_trial_is_found_for_less_than_half_the_hours() -> None:
    pruned, whole = simulate({"name": "asha", "max_step": STEPS}), simulate(None)
    assert Counter(trial.state for trial in whole.record.trials) == {"complete": 16}
    assert Counter(trial.state for trial in pruned.record.trials)["complete"] < 4
    assert pruned.record.best()[0].params == whole.record.best()[0].params
    assert pruned.hours() < 0.5 * whole.hours()


@pytest.mark.parametrize("pruner", [{"name": "median", "startup_trials": 3}, {"name": "hyperband", "max_step": STEPS}])
def test_trials_that_are_pruned_for_good_save_hours_too(pruner: Mapping[str, Any]) -> None:
    arm = simulate(pruner)
    assert Counter(trial.state for trial in arm.record.trials)["pruned"] > 2
    assert arm.hours() < 0.9 * 16 * 4.25
