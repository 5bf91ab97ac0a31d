"""`GridSampler`: every point of a list, once, in order.

The points are given whole, so that conditional spaces need no special case: a point simply lacks the
parameters it does not have. What is taken is read from the study, so that a resumed study goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study

__all__ = ["GridSampler"]

_Key: TypeAlias = frozenset[tuple[str, bool, Any]]


class GridSampler(BaseSampler):
    """Enumerates a list of points.

    Parameters
    ----------
    points : sequence of mapping
        Parameter name to value. A point that comes twice counts once.

    Raises
    ------
    UsageError
        From an ask, when every point is taken, or when the program asks for a parameter that the point lacks.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        self._names = frozenset(name for point in points for name in point)
        self._points = {self._key(point): dict(point) for point in points}

    def __len__(self) -> int:
        return len(self._points)

    def remaining(self, study: Study) -> int:
        """How many points no trial of the study has taken yet."""
        return len(self._free(study, None))

    def exhausted(self, study: Study) -> bool:
        """Whether every point is taken."""
        return self.remaining(study) == 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002 - Optuna's signature
        """Nothing: values are looked up one by one, as the program asks for them."""
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
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002 - Optuna's signature
    ) -> Any:
        """Value of the parameter at the trial's point."""
        free = self._free(study, trial.number)
        if not free:
            raise UsageError(
                f"trial {trial.number}: every one of the {len(self)} points of the grid is taken",
                hint="widen the grid, or ask for no more trials than it has points",
            )
        point = self._points[free[0]]
        if param_name not in point:
            raise UsageError(f"trial {trial.number}: point {point} of the grid has no value for {param_name!r}")
        return point[param_name]

    def _free(self, study: Study, number: int | None) -> list[_Key]:
        """Points, in order, that no trial before ``number`` (None: no trial at all) has taken."""
        free = dict.fromkeys(self._points)
        unfinished = 0
        for trial in study.get_trials(deepcopy=False):
            if number is not None and trial.number >= number:
                continue
            fixed = trial.system_attrs.get("fixed_params")  # where Optuna keeps the values of an enqueued trial
            key = self._key(trial.params or fixed or {})
            if key in self._points:
                free.pop(key, None)
            elif trial.state is TrialState.RUNNING and fixed is None:
                unfinished += 1
        # A trial whose program is still asking for its parameters holds the next point.
        return list(free)[unfinished:]

    def _key(self, params: Mapping[str, Any]) -> _Key:
        """Order does not matter, nor parameters that no point has; True is not 1."""
        return frozenset(
            (name, isinstance(value, bool), value) for name, value in params.items() if name in self._names
        )
