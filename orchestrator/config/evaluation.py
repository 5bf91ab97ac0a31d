"""How the best trials are evaluated: chosen on validation cases, reported on test cases."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from orchestrator.config.fields import Frozen, OneLine, Text, Variables, Whole

__all__ = ["Evaluation"]

_MetricName: TypeAlias = Annotated[OneLine, Field(max_length=128)]


class Evaluation(Frozen):
    """What `survey best --evaluate` runs of each of the best trials; the sampler never learns of it."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)] | Annotated[Text, Field(min_length=1)] | None = Field(
        default=None, description="What is run, with the trial's parameters. Default: the study's own command."
    )
    metrics: Annotated[tuple[_MetricName, ...], Field(min_length=1)] | None = Field(
        default=None, description="Metrics that each run must report. Default: those of the objectives."
    )
    best: Annotated[Whole, Field(ge=1)] = Field(default=3, description="How many of the best trials.")
    repeats: Annotated[Whole, Field(ge=1, le=100)] = Field(
        default=3, description="Runs of each, with seeds that the search has not used."
    )
    environment: Variables = Field(default={}, description="Environment variables beside the study's.")
