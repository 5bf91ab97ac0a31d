"""What the sampler takes from earlier trials, and that an unrelated source does not mislead it for long."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import BaseTrial, TrialState
from sampler_spaces import SPACE, mixed, quiet_study, run, valid

from orchestrator.samplers import BOSampler
from orchestrator.samplers.bo import standardised
from orchestrator.samplers.encoding import Array, Encoding
from orchestrator.samplers.gp import Posterior
from orchestrator.samplers.transfer import CAP, ScaledMean, Shifted, Source, Transfer

KNOWN = {name: each for name, each in SPACE.items() if not each.single()}


def source_of(objective: Callable[[BaseTrial], float], trials: int = 30, seed: int = 11) -> Source:
    study = quiet_study(optuna.samplers.RandomSampler(seed=seed))
    run(study, objective, trials)
    values = tuple(math.nan if trial.value is None else trial.value for trial in study.trials)
    return Source(tuple(trial.params for trial in study.trials), values)


def transfer_of(source: Source, space: Mapping[str, Any] = KNOWN, sign: float = 1.0) -> Transfer:
    return Transfer(source, Encoding(space), lambda values: standardised(values, 2.0), sign=sign, seed=1)


def sampler(source: Source | None, seed: int = 5, **options: Any) -> BOSampler:
    return BOSampler(seed=seed, space=SPACE, source=source, models=2, pool=200, **options)


def reached(source: Source | None, trials: int, seed: int) -> float:
    study = quiet_study(sampler(source, seed))
    run(study, mixed, trials)
    return study.best_value


def test_a_related_source_of_another_unit_saves_trials_and_a_reversed_one_costs_few() -> None:
    related = source_of(lambda trial: 1000.0 + 50.0 * mixed(trial))
    reversed_ = source_of(lambda trial: -mixed(trial))
    seeds = range(4)
    cold = np.mean([reached(None, 9, seed) for seed in seeds])
    assert np.mean([reached(related, 9, seed) for seed in seeds]) < 0.6 * cold
    assert np.mean([reached(reversed_, 9, seed) for seed in seeds]) < 1.6 * cold


def test_values_depend_on_seed_number_source_and_history_alone() -> None:
    source = source_of(mixed)
    kept, anew = quiet_study(sampler(source)), quiet_study(sampler(source))
    first = run(kept, mixed, 7, pending=2)
    second = []
    for _ in range(7):
        anew.sampler = sampler(source)
        second += run(anew, mixed, 1, pending=2)
    assert first[:3] == second[:3]
    assert all(valid(params) for params in first + second)


def test_a_sampler_made_anew_for_each_ask_goes_on_as_one_that_was_kept() -> None:
    source = source_of(mixed)
    kept, anew = quiet_study(sampler(source)), quiet_study(sampler(source))
    first, second = run(kept, mixed, 7), []
    for _ in range(7):
        anew.sampler = sampler(source)
        second += run(anew, mixed, 1)
    assert first == second


def test_the_opening_takes_different_good_configurations_and_leaves_the_others_random() -> None:
    source = source_of(mixed)
    warm, cold = quiet_study(sampler(source)), quiet_study(sampler(None))
    asked = [warm.ask(), warm.ask(), warm.ask(), warm.ask()]
    for trial in asked:
        mixed(trial)
    values = dict(zip(map(str, source.points), source.values, strict=True))
    assert values[str(asked[0].params)] <= np.quantile(source.values, 0.2)
    assert values[str(asked[2].params)] <= np.quantile(source.values, 0.35)
    assert asked[0].params != asked[2].params
    for _ in range(4):
        mixed(cold.ask())
    assert asked[1].params == cold.trials[1].params
    assert asked[3].params == cold.trials[3].params


def test_the_opening_heeds_conditions_between_parameters() -> None:
    source = source_of(mixed)
    study = quiet_study(sampler(source, admits=lambda params: params["layers"] == 1))
    trial = study.ask()
    mixed(trial)
    assert trial.params["layers"] == 1


def test_a_study_that_maximises_takes_the_largest_values_for_the_best() -> None:
    source = source_of(mixed)
    better = transfer_of(source, sign=-1.0)
    worst = better.best(1, np.random.default_rng(0))[0]
    assert mixed_at(better.encoding, worst) > float(np.median(source.values))


def mixed_at(encoding: Encoding, z: Array) -> float:
    return mixed(optuna.trial.FixedTrial({"constant": 2.0, **encoding.write(z)}))


def test_parameters_that_the_source_lacks_play_no_part_in_its_model() -> None:
    source = source_of(mixed)
    fewer = Source(tuple({name: point[name] for name in ("rate", "layers")} for point in source.points), source.values)
    transfer = transfer_of(fewer)
    rng = np.random.default_rng(2)
    Z = transfer.encoding.draw(rng.random((5, len(transfer.encoding))))
    other = Z.copy()
    for name in ("width", "optimizer", "drop"):
        other[:, transfer.encoding.names.index(name)] = 0.0
    active = np.ones(Z.shape, dtype=bool)
    first, second = (transfer.mean(transfer.encoding.features(each, active)) for each in (Z, other))
    assert first == pytest.approx(second)
    assert first.std() > 0.01


def test_failed_trials_of_the_source_are_avoided() -> None:
    def diverging(trial: BaseTrial) -> float:
        value = mixed(trial)
        return math.nan if trial.params["rate"] > 2e-4 else value

    transfer = transfer_of(source_of(diverging, 40))
    for z in transfer.best(4, np.random.default_rng(0)):
        assert transfer.encoding.write(z)["rate"] <= 2e-4


def test_a_long_source_is_thinned_to_its_best_and_an_even_spread() -> None:
    transfer = transfer_of(source_of(mixed, 3 * CAP))
    assert len(transfer.Z) == CAP


def test_gradients_about_a_mean_function_are_those_of_finite_differences() -> None:
    transfer = transfer_of(source_of(mixed))
    encoding, rng = transfer.encoding, np.random.default_rng(3)
    X = encoding.features(encoding.draw(rng.random((8, len(encoding)))), np.ones((8, len(encoding)), dtype=bool))
    theta = np.concatenate([np.full(len(encoding), 0.3), [0.0, -3.0, -0.5]])
    mean = ScaledMean(transfer, np.array([0.2]), np.array([1.7]))
    process = Shifted(mean, X, rng.standard_normal((8, 1)), theta[None, :], encoding.group)
    point = X[:1] + 0.05
    _, variances, pull = process.differentiate(point)
    gradient = pull(np.ones((1, 1, 1)), np.zeros(variances.shape))[0]
    for column in range(X.shape[1]):
        step = np.zeros_like(point)
        step[0, column] = 1e-5
        slope = (process.predict(point + step)[0] - process.predict(point - step)[0])[0, 0, 0] / 2e-5
        assert gradient[column] == pytest.approx(slope, abs=1e-4)


def test_without_trials_near_the_mean_is_the_sources_own() -> None:
    transfer = transfer_of(source_of(mixed))
    encoding = transfer.encoding
    Z = encoding.draw(np.random.default_rng(4).random((3, len(encoding))))
    X = encoding.features(Z, np.ones(Z.shape, dtype=bool))
    theta = np.concatenate([np.full(len(encoding), -6.0), [-12.0, -3.0, 0.0]])
    mean = ScaledMean(transfer, np.array([0.5]), np.array([2.0]))
    process = Shifted(mean, X[:1], np.zeros((1, 1)), theta[None, :], encoding.group)
    assert process.predict(X[1:])[0][0, :, 0] == pytest.approx(0.5 + 2.0 * transfer.mean(X[1:]), abs=1e-3)
    assert isinstance(process, Posterior)


def test_a_source_without_a_single_value_and_failed_trials_of_the_study_do_no_harm() -> None:
    study = quiet_study(sampler(Source(({"rate": 0.01},), (1.0,))))
    for number in range(6):
        trial = study.ask()
        value = mixed(trial)
        study.tell(trial, state=TrialState.FAIL) if number < 2 else study.tell(trial, value)
    assert len(study.trials) == 6
