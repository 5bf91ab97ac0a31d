"""How much each parameter mattered, by Optuna's PED-ANOVA, from a record alone.

The study is built again in memory, so that a snapshot is enough and the database is never opened.
PED-ANOVA needs no forest and takes conditional parameters as they are: Watanabe et al., IJCAI 2023,
https://arxiv.org/abs/2304.10255.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import TYPE_CHECKING

from orchestrator.reports.axes import parameter_axes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.distributions import BaseDistribution

    from orchestrator.reports.axes import ParameterAxis
    from orchestrator.store.record import StudyRecord

__all__ = ["FEWEST", "importances"]

FEWEST = 4  # complete trials; below this, an importance is noise


def importances(record: StudyRecord) -> dict[str, float]:
    """Estimate the importance of each parameter for reaching the best tenth of the trials.

    Returns
    -------
    dict
        Parameter to importance, the largest first, summing to 1; empty with fewer than four complete
        trials, or where all of them have the same value.
    """
    axes = parameter_axes(record)
    usable = [t for t in record.complete if t.values and math.isfinite(t.values[0])]
    if len(usable) < FEWEST or not axes or len({t.values[0] for t in usable if t.values}) < 2:
        return {}
    import optuna

    distributions = {axis.name: _distribution(axis) for axis in axes}
    with warnings.catch_warnings(), _quiet():
        # Choices other than plain words, and what is experimental, are Optuna's talk, not the reader's.
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize" if record.directions[0] == "maximize" else "minimize")
        for trial in usable:
            params = {
                axis.name: trial.params[axis.name]
                for axis in axes
                if axis.name in trial.params and axis.place(trial.params[axis.name]) is not None
            }
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    value=trial.values[0] if trial.values else None,
                )
            )
        found = optuna.importance.get_param_importances(study)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from logging the birth of a study that nobody asked for."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(axis: ParameterAxis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.choices:
        return CategoricalDistribution(axis.choices)  # type: ignore[arg-type]  # JSON values; Optuna takes any
    return FloatDistribution(axis.low, axis.high, log=axis.log)
