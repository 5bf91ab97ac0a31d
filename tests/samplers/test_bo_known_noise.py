"""What `bo` makes of trials that say how much their values vary: means over several runs."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.samplers import fitting
from orchestrator.samplers.bo import BOSampler, _noise, standardised
from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.history import History
from orchestrator.samplers.kernel import NOISE
from orchestrator.store.trials import VARIANCE

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def history(variance: float | None, *, scale: float = 1.0) -> optuna.Study:
    """Twelve trials of a bowl, each of which says so."""
    study = optuna.create_study()
    for index in range(12):
        x, y = (index * 0.37) % 1.0, (index * 0.61) % 1.0
        told = {} if variance is None else {VARIANCE: [variance * scale**2]}
        value = scale * ((x - 0.4) ** 2 + (y - 0.6) ** 2)
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params={"x": x, "y": y},
                distributions=dict(SPACE),
                value=value,
                user_attrs=told,
            )
        )
    return study


def noise(study: optuna.Study) -> float:
    """What the engine believes of the noise of its standardised values, as a logarithm."""
    fitting._kept.clear()
    study.sampler = BOSampler(seed=1, startup_trials=2)
    trial = study.ask(fixed_distributions=dict(SPACE))
    assert set(trial.params) == {"x", "y"}
    (fitted,) = fitting._kept.values()
    return float(fitted.thetas[:, NOISE].mean())


def test_values_that_are_known_to_vary_are_believed_less() -> None:
    assert noise(history(0.01)) > noise(history(1e-7)) + 2.0


def test_the_scale_of_the_values_makes_no_difference() -> None:
    found = []
    for scale in (1.0, 1e6):
        study = history(0.01, scale=scale)
        trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
        seen = History(study, trial, Encoding(dict(SPACE)))
        found.append(_noise(seen, standardised(seen.y, 2.0)))
    assert found[0] is not None
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_study_without_repeats_is_searched_as_ever() -> None:
    proposals = []
    for _ in range(2):
        study = history(None)
        study.sampler = BOSampler(seed=1, startup_trials=2)
        proposals.append(study.ask(fixed_distributions=dict(SPACE)).params)
    assert proposals[0] == proposals[1]


def test_values_that_are_all_the_same_have_no_scale_and_do_no_harm() -> None:
    study = optuna.create_study(sampler=BOSampler(seed=1, startup_trials=2))
    for index in range(4):
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params={"x": index / 4, "y": index / 4},
                distributions=dict(SPACE),
                value=1.0,
                user_attrs={VARIANCE: [0.0]},
            )
        )
    assert set(study.ask(fixed_distributions=dict(SPACE)).params) == {"x", "y"}
