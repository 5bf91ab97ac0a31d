"""Seconds of CPU that one ask takes, by the length of the history: nine mixed parameters, some trials pending.

python benchmarks/search/cpu.py [--engines bo tpe] [--pending 7] [--history 50 200 500 1000]
"""

from __future__ import annotations

import argparse
import math
import time

import optuna
from optuna.trial import TrialState, create_trial
from problems import DEVELOPMENT
from protocol import one_thread

from orchestrator.samplers import NAMES, make_sampler


def history(length: int, pending: int) -> optuna.Study:
    """Make a study with random ended trials and pending ones."""
    problem = DEVELOPMENT["training9"]
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study = optuna.create_study()
    for index in range(length + pending):
        trial = source.ask()
        value = problem.objective(trial)
        state = TrialState.RUNNING if index >= length else TrialState.FAIL if math.isnan(value) else TrialState.COMPLETE
        study.add_trial(
            create_trial(
                params=trial.params,
                distributions=trial.distributions,
                state=state,
                value=value if state is TrialState.COMPLETE else None,
            )
        )
    return study


def seconds(engine: str, length: int, pending: int, repeats: int) -> float:
    """CPU seconds of one ask, the smallest of a few."""
    times = []
    for seed in range(repeats):
        study = history(length, pending)
        study.sampler = make_sampler(engine, seed=seed)
        began = time.process_time()
        DEVELOPMENT["training9"].objective(study.ask())
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    one_thread()
    parser = argparse.ArgumentParser(description="CPU per ask")
    parser.add_argument("--engines", nargs="+", default=["bo", "tpe"], choices=NAMES)
    parser.add_argument("--history", nargs="+", type=int, default=[50, 200, 500, 1000])
    parser.add_argument("--pending", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'engine':10s}" + "".join(f"{f'n={length}':>10s}" for length in given.history))
    for engine in given.engines:
        row = [seconds(engine, length, given.pending, given.repeats) for length in given.history]
        print(f"{engine:10s}" + "".join(f"{value:10.3f}" for value in row))


if __name__ == "__main__":
    main()
