from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, TrialState, create_trial
from sampler_spaces import branin, line, quiet_study, run

from orchestrator.errors import UsageError
from orchestrator.samplers import BOSampler, SobolSampler, make_sampler
from orchestrator.samplers.bo import standardised
from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.history import RETRY_OF, History
from orchestrator.store import trials as stored

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def best_of(sampler: BaseSampler, trials: int, *, sign: float = 1.0) -> float:
    study = quiet_study(sampler, direction="minimize" if sign > 0 else "maximize")
    run(study, lambda trial: sign * branin(trial), trials)
    return sign * study.best_value


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["minimise", "maximise"])
def test_it_finds_the_lowest_point_of_branin_and_random_search_does_not(sign: float) -> None:
    lowest = 0.397887
    found = [best_of(BOSampler(seed=seed), 22, sign=sign) - lowest for seed in range(3)]
    random = [best_of(make_sampler("random", seed=seed), 22, sign=sign) - lowest for seed in range(3)]
    assert np.mean(found) < 0.1 * np.mean(random)
    assert max(found) < 0.5


def test_it_learns_to_stay_out_of_a_region_where_trials_fail() -> None:
    failed = []

    def objective(trial: BaseTrial) -> float:
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        failed.append(x > 0.5)
        return math.nan if x > 0.5 else (y - 0.3) ** 2 - x  # ever better towards the edge

    study = quiet_study(BOSampler(seed=1))
    run(study, objective, 26)
    assert sum(failed[-12:]) <= 5  # half of the space fails, the half that the values point to
    assert study.best_value < -0.4


def test_it_learns_to_keep_a_constraint() -> None:
    kept = []

    def objective(trial: BaseTrial) -> float:
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        trial.set_constraint("x at most a half", x - 0.5)
        kept.append(x <= 0.5)
        return (y - 0.3) ** 2 - x  # ever better beyond the constraint

    study = quiet_study(BOSampler(seed=1))
    run(study, objective, 26)
    assert sum(kept[-12:]) >= 7
    assert min(trial.value or 0.0 for trial in study.trials if trial.params["x"] <= 0.5) < -0.4


def test_every_other_trial_is_looked_for_near_the_best_one() -> None:
    study = quiet_study(BOSampler(seed=1, reach=0.05))
    run(study, branin, 12)
    for _ in range(2):
        best = study.best_params
        asked = run(study, branin, 1)[0]
        number = len(study.trials) - 1
        close = abs(asked["x"] - best["x"]) <= 0.05 * 15.001 and abs(asked["y"] - best["y"]) <= 0.05 * 15.001
        assert close or number % 2 == 0


def test_its_first_points_can_be_those_of_a_sobol_sequence() -> None:
    study, even = quiet_study(BOSampler(seed=4, startup="sobol", startup_trials=4)), quiet_study(SobolSampler(seed=4))
    assert run(study, branin, 4) == run(even, branin, 4)
    assert study.ask().relative_params.keys() == {"x", "y"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"startup": "latin"}, "'random' or 'sobol', not 'latin'"),
        ({"local": 2}, "local is a number from 0 to 1, not 2"),
        ({"models": 0}, "models is a whole number of at least 1, not 0"),
        ({"clip": "hard"}, "clip is a number of at least 0, not 'hard'"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_sampler("bo", seed=1, options=options)


def test_pending_points_are_not_asked_again() -> None:
    study = quiet_study(BOSampler(seed=2))
    run(study, branin, 12)
    asked = run(study, branin, 8, pending=8)
    points = np.array([[(p["x"] + 5.0) / 15.0, p["y"] / 15.0] for p in asked])
    apart = np.linalg.norm(points[:, None, :] - points[None, :, :], axis=2)[np.triu_indices(8, 1)]
    assert apart.min() > 1e-3


def test_a_small_discrete_space_is_walked_through_without_repeats() -> None:
    study = quiet_study(BOSampler(seed=3))

    def objective(trial: BaseTrial) -> float:
        return abs(trial.suggest_int("a", 0, 3) - 2) + (trial.suggest_categorical("b", ["x", "y", "z"]) == "y")

    asked = run(study, objective, 12, pending=1)
    after_startup = [tuple(sorted(params.items())) for params in asked[4:]]
    assert len(set(after_startup)) == len(after_startup)


def test_it_goes_on_where_every_point_is_taken() -> None:
    study = quiet_study(BOSampler(seed=3))
    asked = run(study, lambda trial: float(trial.suggest_int("a", 0, 2)), 8)
    assert {params["a"] for params in asked} == {0, 1, 2}


DEGENERATE: dict[str, list[tuple[float, float | None]]] = {
    "all equal": [(0.1 * i, 1.0) for i in range(8)],
    "one point many times": [(0.5, 1.0)] * 8,
    "one point, noisy": [(0.5, 1.0 + 0.1 * i) for i in range(8)],
    "enormous values": [(0.1 * i, 1e300 * (i - 3)) for i in range(8)],
    "tiny differences": [(0.1 * i, 1.0 + 1e-15 * i) for i in range(8)],
    "mostly failed": [(0.1 * i, 1.0 if i < 3 else None) for i in range(9)],
    "an infinite value": [(0.1, 1.0), (0.2, 2.0), (0.3, 3.0), (0.4, math.inf), (0.5, -math.inf)],
    "most are the best": [(0.1 * i, 0.0 if i < 6 else 5.0) for i in range(8)],
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_history_still_gives_a_value_in_range(name: str) -> None:
    study = quiet_study(BOSampler(seed=1))
    line(study, DEGENERATE[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = study.ask().suggest_float("x", 0.0, 1.0)
    assert 0.0 <= value <= 1.0


def test_infinite_values_alone_leave_the_search_random() -> None:
    study, random = quiet_study(BOSampler(seed=1)), quiet_study(make_sampler("random", seed=1))
    for each in (study, random):
        line(each, [(0.1, math.inf), (0.2, math.inf), (0.3, math.inf)])
    assert study.ask().suggest_float("x", 0.0, 1.0) == random.ask().suggest_float("x", 0.0, 1.0)


def test_a_range_that_was_widened_is_searched_to_its_new_ends() -> None:
    study = quiet_study(BOSampler(seed=1, space={"x": FloatDistribution(0.0, 4.0)}))
    line(study, [(0.1 * i, -0.1 * i) for i in range(10)])
    assert study.ask().suggest_float("x", 0.0, 4.0) > 1.0


def test_a_range_that_was_narrowed_is_kept_to() -> None:
    study = quiet_study(BOSampler(seed=1))
    line(study, [(0.1 * i, -0.1 * i) for i in range(10)])
    for _ in range(3):
        assert study.ask().suggest_float("x", 0.0, 0.4) <= 0.4


def test_a_parameter_that_no_trial_had_is_random_and_joins_the_model_next_time() -> None:
    study = quiet_study(BOSampler(seed=1))
    line(study, [(0.1 * i, 0.1 * i) for i in range(10)])
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    new = trial.suggest_float("new", 0.0, 1.0)
    random = quiet_study(make_sampler("random", seed=1))
    line(random, [(0.1 * i, 0.1 * i) for i in range(10)])
    assert random.ask().suggest_float("new", 0.0, 1.0) == new
    study.tell(trial, 0.0)
    following = study.ask()
    assert "new" in following.relative_params


def test_a_pruned_trial_is_no_better_than_the_median() -> None:
    study = quiet_study(BOSampler(seed=1))
    line(study, [(0.1 * i, abs(0.1 * i - 0.2)) for i in range(10)])
    study.add_trial(
        create_trial(
            params={"x": 0.95},
            distributions={"x": FloatDistribution(0.0, 1.0)},
            intermediate_values={1: -50.0},
            state=TrialState.PRUNED,
        )
    )
    assert study.ask().suggest_float("x", 0.0, 1.0) < 0.5


def test_outcomes_are_standardised_after_their_bad_tail_was_cut() -> None:
    y = standardised(np.array([0.0, 1.0, 2.0, 3.0, 1e9, np.inf]), 2.0)
    assert y.mean() == pytest.approx(0.0)
    assert y.std() == pytest.approx(1.0)
    assert y[4] == y[5] == y.max()
    assert (np.diff(y[:4]) > 0.0).all()


def test_a_long_history_is_thinned_and_keeps_its_best() -> None:
    study = quiet_study(BOSampler(seed=1, cap=40))
    line(study, [((i % 97) / 97.0, ((i % 97) / 97.0 - 0.31) ** 2) for i in range(300)])
    asked = study.ask()
    assert abs(asked.suggest_float("x", 0.0, 1.0) - 0.31) < 0.2
    history = History(study, study.trials[asked.number], Encoding({"x": FloatDistribution(0.0, 1.0)}))
    best = np.sort(history.y)[:20]
    history.thin(40)
    assert len(history.y) == len(history.Z) == 40
    assert np.sort(history.y)[:20] == pytest.approx(best)
    assert np.ptp(history.Z) > 0.8  # and of the others an even spread


def test_hundreds_of_pending_trials_are_thinned_and_none_of_their_points_comes_back() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(0, 399)}
    study = quiet_study(BOSampler(seed=1, cap=40, space=space))
    for n in range(0, 400, 40):
        study.add_trial(create_trial(params={"n": n}, distributions=space, value=float(abs(n - 200))))
    for n in range(400):
        if n not in {3, 205}:
            study.add_trial(create_trial(params={"n": n}, distributions=space, state=TrialState.RUNNING))
    assert study.ask().suggest_int("n", 0, 399) == 205


def test_a_failed_trial_that_was_asked_for_again_is_no_failure() -> None:
    study = quiet_study(BOSampler(seed=1))
    line(study, [(0.1, 2.0), (0.8, None), (0.3, 1.0), (0.7, None)])
    assert RETRY_OF == stored.RETRY_OF  # as the store marks it
    study.enqueue_trial({"x": 0.8}, user_attrs={RETRY_OF: 1})
    asked = study.ask()  # the one that waited
    asked.suggest_float("x", 0.0, 1.0)
    history = History(study, study.trials[4], Encoding({"x": FloatDistribution(0.0, 1.0)}))
    assert history.Z[:, 0] == pytest.approx([0.1, 0.3, 0.7])
    assert np.isnan(history.y).tolist() == [False, False, True]
