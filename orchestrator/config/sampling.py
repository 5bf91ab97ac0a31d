"""Which sampler a study uses; the bare name will do."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.config.fields import Frozen, PlainName, Whole

__all__ = ["BareName", "Sampler", "SamplerOrName"]


class Sampler(Frozen):
    """What chooses the parameters of the next trial."""

    name: PlainName = Field(default="bo", description="bo, random, grid, tpe, cmaes, gp, qmc, skopt or nsga2.")
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = Field(
        default=0, description="Same seed and same results, same parameters."
    )
    startup_trials: Annotated[Whole, Field(ge=0)] = Field(
        default=3, description="Parameters are random until this many trials are complete."
    )
    options: dict[str, Any] = Field(default={}, description="What only this sampler understands.")


class BareName:
    """Annotation: the bare name stands for a mapping that has only that."""

    @staticmethod
    def expand(value: Any) -> Any:
        """Make the mapping of a name."""
        return {"name": value} if isinstance(value, str) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string"}]}


SamplerOrName = Annotated[Sampler, BareName()]
