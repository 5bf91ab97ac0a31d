"""NSGA-II without generations: every result counts, in whatever order results come."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sampler_spaces import quiet_study

from orchestrator.samplers import make_sampler
from orchestrator.samplers.nsga2 import SteadyNSGA2

UNIT = optuna.distributions.FloatDistribution(0.0, 1.0)
NAMES = "abcd"


def zdt1(params: dict[str, float]) -> tuple[float, float]:
    """Zitzler, Deb and Thiele's first problem: the front is where all but the first parameter are 0."""
    g = 1.0 + 3.0 * sum(params[name] for name in NAMES[1:])
    return params["a"], g * (1.0 - (params["a"] / g) ** 0.5)


def search(sampler: Any, trials: int, *, pending: int = 0, seed: int = 0) -> optuna.Study:
    """Results come in any order while ``pending`` other trials run."""
    rng = random.Random(seed)
    study = quiet_study(sampler, directions=["minimize", "minimize"])
    running: list[optuna.Trial] = []
    for _ in range(trials):
        trial = study.ask()
        for name in NAMES:
            trial.suggest_float(name, 0.0, 1.0)
        running.append(trial)
        if len(running) > pending:
            ended = running.pop(rng.randrange(len(running)))
            study.tell(ended, zdt1(ended.params))
    return study


def volume(study: optuna.Study) -> float:
    """Area that the front dominates, up to (1, 4)."""
    area, low = 0.0, 4.0
    for a, b in sorted(tuple(trial.values) for trial in study.best_trials):
        if b < low:
            area += (1.0 - a) * (low - b)
            low = b
    return area


def nsga2(seed: int, **options: Any) -> Any:
    return make_sampler("nsga2", seed=seed, options={"population_size": 10, **options})


def test_it_comes_nearer_to_the_front_than_chance_with_eight_in_flight() -> None:
    gains = [
        volume(search(nsga2(seed), 80, pending=7, seed=seed))
        - volume(search(make_sampler("random", seed=seed), 80, pending=7, seed=seed))
        for seed in range(4)
    ]
    assert min(gains) > 0.0


def test_results_that_come_late_are_parents_too() -> None:
    study = quiet_study(SteadyNSGA2(population_size=4, seed=1), directions=["minimize", "minimize"])
    for value in (0.9, 0.8, 0.7, 0.6, 0.5):
        study.add_trial(create_trial(params={"a": value}, distributions={"a": UNIT}, values=(value, value)))
    study.ask({"a": UNIT})  # a child of these, as Optuna's first trial of the next generation
    study.add_trial(create_trial(params={"a": 0.0}, distributions={"a": UNIT}, values=(0.0, 0.0)))
    parents = SteadyNSGA2(population_size=4, seed=1).get_parent_population(study, 1)
    assert sorted(parent.values[0] for parent in parents) == [0.0, 0.5, 0.6, 0.7]


def test_trials_that_failed_are_no_parents() -> None:
    sampler = SteadyNSGA2(population_size=2, seed=1)
    study = quiet_study(sampler, directions=["minimize", "minimize"])
    for value in (0.1, 0.2):
        study.add_trial(create_trial(params={"a": value}, distributions={"a": UNIT}, values=(value, value)))
        study.add_trial(create_trial(params={"a": 0.9}, distributions={"a": UNIT}, state=TrialState.FAIL))
    assert sampler.get_parent_population(study, 1) == [study.trials[0], study.trials[2]]


def test_trials_that_violate_a_constraint_come_after_all_others() -> None:
    sampler = SteadyNSGA2(population_size=2, seed=1)
    study = quiet_study(sampler, directions=["minimize", "minimize"])
    for value, beyond in ((0.1, 5.0), (0.2, 1.0), (0.9, 0.0)):
        study.add_trial(
            create_trial(
                params={"a": value}, distributions={"a": UNIT}, values=(value, value), constraints={"m": beyond}
            )
        )
    parents = sampler.get_parent_population(study, 1)
    assert sorted(parent.values[0] for parent in parents) == [0.2, 0.9]


def test_children_are_not_copies_of_earlier_trials() -> None:
    study = search(nsga2(3, mutation_prob=0.3), 60)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 60


def test_nothing_is_noted_in_the_study_so_that_the_history_alone_says_what_comes_next() -> None:
    study = search(nsga2(4), 30, pending=3)
    assert study._storage.get_study_system_attrs(study._study_id) == {}


@pytest.mark.parametrize("pending", [0, 7])
def test_a_sampler_made_anew_for_each_ask_goes_on_as_one_that_was_kept(pending: int) -> None:
    class Anew(optuna.samplers.BaseSampler):
        def __getattribute__(self, name: str) -> Any:
            return getattr(nsga2(5), name)

        infer_relative_search_space = sample_relative = sample_independent = None  # type: ignore[assignment]

    kept, anew = search(nsga2(5), 30, pending=pending), search(Anew(), 30, pending=pending)
    assert [trial.params for trial in kept.trials] == [trial.params for trial in anew.trials]


def test_a_steady_population_wastes_less_than_generations_do() -> None:
    """The reason for the class: with eight in flight Optuna's own generations lose results."""

    def gain(seed: int) -> float:
        steady = search(SteadyNSGA2(population_size=10, seed=seed), 100, pending=7, seed=seed)
        generations = search(optuna.samplers.NSGAIISampler(population_size=10, seed=seed), 100, pending=7, seed=seed)
        return volume(steady) - volume(generations)

    assert sum(gain(seed) for seed in range(8)) > 0.0
