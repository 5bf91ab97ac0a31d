from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sampler_spaces import quiet_study, run

from orchestrator.samplers import SobolSampler

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def plane(trial: BaseTrial) -> float:
    return trial.suggest_float("x", 0.0, 1.0) + trial.suggest_float("y", 0.0, 1.0)


def test_every_cell_of_a_grid_gets_one_of_sixteen_points() -> None:
    asked = run(quiet_study(SobolSampler(seed=4)), plane, 16, pending=3)
    cells = {(int(4 * p["x"]), int(4 * p["y"])) for p in asked}
    assert len(cells) == 16


def test_choices_are_evenly_spread() -> None:
    def objective(trial: BaseTrial) -> float:
        trial.suggest_float("x", 0.0, 1.0)
        return float(trial.suggest_categorical("c", [0, 1, 2, 3]))

    asked = run(quiet_study(SobolSampler(seed=4)), objective, 32)
    assert np.bincount([p["c"] for p in asked]).tolist() == [8, 8, 8, 8]


def test_dimensions_stay_with_their_parameters_when_a_trial_asks_in_another_order() -> None:
    def backwards(trial: BaseTrial) -> float:
        return trial.suggest_float("y", 0.0, 1.0) + trial.suggest_float("x", 0.0, 1.0)

    straight, turned = quiet_study(SobolSampler(seed=4)), quiet_study(SobolSampler(seed=4))
    assert run(straight, plane, 4) == [
        dict(sorted(p.items())) for p in run(turned, plane, 1) + run(turned, backwards, 3)
    ]
