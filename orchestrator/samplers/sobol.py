"""`SobolSampler`: a low-discrepancy sequence for define-by-run spaces, without state.

Optuna's `QMCSampler` counts its points in the study's storage and needs a first trial to learn the space from.
Here the trial's number is the index of the point, and each parameter takes the next free dimension of
the sequence when it is first seen. A random digital shift, by seed and name, makes sequences of different
seeds differ and keeps their evenness (Owen, "Monte Carlo extension of quasi-Monte Carlo", WSC 1998).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler

from orchestrator.samplers.encoding import Encoding
from orchestrator.samplers.seeding import fresh_seed, trial_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["SobolSampler"]

BITS = 30


class SobolSampler(BaseSampler):
    """Evenly spread values: trial ``n`` gets point ``n`` of a Sobol sequence.

    Parameters
    ----------
    seed : int, optional
        The study's seed, the same for all of its trials.
    space : mapping of str to BaseDistribution, optional
        The whole space where it is known: its parameters take the first dimensions.
    """

    def __init__(self, *, seed: int | None = None, space: Mapping[str, BaseDistribution] | None = None) -> None:
        self.seed = fresh_seed(seed)
        self.names = list(space or ())

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002 - Optuna's signature
        """Nothing: a coordinate depends on the trial's number and the parameter's dimension alone."""
        return {}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002 - Optuna's signature
        trial: FrozenTrial,  # noqa: ARG002 - Optuna's signature
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - Optuna's signature
    ) -> dict[str, Any]:
        """Nothing, see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Value of the parameter at the trial's point."""
        from scipy.stats.qmc import Sobol

        dimension = self._dimension(study, trial, param_name)
        sequence = Sobol(dimension + 1, scramble=False, bits=BITS)
        if trial.number:
            sequence.fast_forward(trial.number)
        digits = int(sequence.random(1)[0, dimension] * 2**BITS)
        shift = trial_seed(self.seed, 0, param_name) >> (32 - BITS)
        # The middle of the finest cell: never exactly 0 or 1.
        coordinate = ((digits ^ shift) + 0.5) / 2**BITS
        encoding = Encoding({param_name: param_distribution})
        return encoding.write(encoding.draw(np.array([[coordinate]]))[0])[param_name]

    def _dimension(self, study: Study, trial: FrozenTrial, name: str) -> int:
        seen = dict.fromkeys(self.names)
        for earlier in study.get_trials(deepcopy=False):
            if earlier.number < trial.number:
                seen.update(dict.fromkeys(sorted(earlier.distributions)))
        names = [*seen, *(other for other in trial.distributions if other not in seen)]
        return names.index(name) if name in names else len(names)
