"""Where every random number of a sampler comes from: (study seed, trial number, name), never from what was drawn before.

A sampler that keeps a generator repeats itself after a resume. Values that depend on the trial alone
cannot: they are the same in a fresh process, in any order of asking.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

__all__ = ["enough_complete", "fresh_seed", "random_value", "trial_generator", "trial_seed"]


def trial_seed(study_seed: int, number: int, name: str = "") -> int:
    """Seed of trial ``number`` (and of one parameter of it), in ``[0, 2**32)``."""
    words = [study_seed & 0xFFFFFFFFFFFFFFFF, number]
    if name:
        words.append(zlib.crc32(name.encode()))
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def trial_generator(study_seed: int, number: int) -> np.random.Generator:
    """Make the generator of trial ``number``."""
    return np.random.default_rng(trial_seed(study_seed, number))


def fresh_seed(seed: int | None) -> int:
    """``seed``, or one from the operating system's entropy where none is given."""
    return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed


def random_value(study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, *, seed: int) -> object:
    """Draw one parameter uniformly; it depends on the seed, the trial's number and the name alone."""
    sampler = RandomSampler(seed=trial_seed(seed, trial.number, name))
    return sampler.sample_independent(study, trial, name, distribution)


def enough_complete(study: Study, trials: int) -> bool:
    """Whether at least ``trials`` trials have ended with a value (started ones do not count)."""
    return trials <= 0 or len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= trials
