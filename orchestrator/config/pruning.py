"""Which trials are ended early, or set aside, by what they report on the way."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from orchestrator.config.fields import Frozen, Whole
from orchestrator.config.mistakes import mistake_at
from orchestrator.config.sampling import BareName

__all__ = ["Asha", "Hyperband", "Median", "Pruner", "PrunerOrName"]

_Step = Annotated[Whole, Field(ge=1)]


class Median(Frozen):
    """A trial is pruned whose best value so far is worse than the median of the complete trials at the same step."""

    name: Literal["median"] = Field(description="Which pruner it is.")
    startup_trials: Annotated[Whole, Field(ge=1)] = Field(
        default=5, description="None is pruned before so many trials are complete."
    )
    warmup_steps: Annotated[Whole, Field(ge=0)] = Field(default=0, description="None is pruned before this step.")
    interval_steps: _Step = Field(default=1, description="Steps between two looks at a trial.")


class _Halving(Frozen):
    min_step: _Step = Field(default=1, description="The first rung: no trial is judged before this step.")
    max_step: _Step | None = Field(
        default=None,
        description="The last step of a whole training, where nothing is left to save. Default: that of complete trials.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_step is not None and self.max_step <= self.min_step:
            raise mistake_at(("max_step",), f"max_step ({self.max_step}) is not above min_step ({self.min_step})")
        return self


class Hyperband(_Halving):
    """Successive halving in brackets that begin to judge at different steps; a trial is pruned for good."""

    name: Literal["hyperband"] = Field(description="Which pruner it is.")
    reduction_factor: Annotated[Whole, Field(ge=2)] = Field(
        default=3, description="Of so many trials at a rung one goes on; rungs lie by this factor apart."
    )


class Asha(_Halving):
    """Asynchronous successive halving: a trial that is not among the best at a rung is paused, and may go on later."""

    name: Literal["asha"] = Field(description="Which pruner it is.")
    reduction_factor: Annotated[Whole, Field(ge=2)] = Field(
        default=4, description="Of so many trials at a rung one goes on; rungs lie by this factor apart."
    )


Pruner: TypeAlias = Median | Hyperband | Asha

PrunerOrName = Annotated[Annotated[Pruner, Field(discriminator="name")], BareName()]
