"""Constraints on what a trial reports: its memory at most so much, its sensitivity at least so much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from orchestrator.config.fields import Frozen, Number, OneLine
from orchestrator.config.mistakes import mistake_at

if TYPE_CHECKING:
    from orchestrator.model import Json

__all__ = ["Constraint", "amounts"]


class Constraint(Frozen):
    """A bound of a metric; a trial beyond it is complete, but infeasible: it is never the best."""

    metric: Annotated[OneLine, Field(max_length=128)] = Field(
        description="Its name in the trial's result.json; a trial that does not report it has failed."
    )
    at_most: Number | None = Field(default=None, description="Largest value that is feasible.")
    at_least: Number | None = Field(default=None, description="Smallest value that is feasible.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise mistake_at((), "needs at_most or at_least")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise mistake_at(("at_least",), f"at_least ({self.at_least:g}) is above at_most ({self.at_most:g})")
        return self

    def amounts(self, value: float) -> dict[str, float]:
        """By how much ``value`` is beyond each bound, by the bound in words; zero or less where it keeps to it."""
        found = {}
        if self.at_most is not None:
            found[f"{self.metric} <= {self.at_most:g}"] = value - self.at_most
        if self.at_least is not None:
            found[f"{self.metric} >= {self.at_least:g}"] = self.at_least - value
        return found


def amounts(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> dict[str, Json]:
    """By how much a trial with these metrics violates each bound, in Optuna's sense: feasible up to zero."""
    return {words: amount for each in constraints for words, amount in each.amounts(metrics[each.metric]).items()}
