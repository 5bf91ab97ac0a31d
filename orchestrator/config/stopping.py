"""When a study ends before its budget of trials is spent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.config.fields import Frozen, Number, Whole
from orchestrator.config.units import Duration

__all__ = ["Stopping"]


class Stopping(Frozen):
    """Rules after which no new trial is begun; those in flight finish, and the study is done. The first one counts."""

    wall_clock: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description='Time since the first trial was made: "3d", "12h".'
    )
    gpu_hours: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="GPU-hours of all attempts, those in flight reckoned as long as the mean so far."
    )
    node_hours: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="Node-hours of all attempts, as gpu_hours."
    )
    target: Number | None = Field(default=None, description="A value of the objective that is good enough.")
    patience: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="Complete trials in a row without a new best."
    )

    @property
    def of_value(self) -> str:
        """Name of the first rule that looks at the objective's value; empty if none does."""
        return "target" if self.target is not None else "patience" if self.patience is not None else ""
