"""``warm_start:`` of study.yaml: the earlier trials that a study begins with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from orchestrator.config.fields import Frozen, OneLine, Whole
from orchestrator.config.mistakes import mistake_at
from orchestrator.config.urls import DatabaseURL

__all__ = ["WarmStart", "WarmStartOrPlace"]

_TABLES = {".csv", ".json", ".jsonl"}
_FILES = ("sqlite:///", "journal:")
_Place = Annotated[OneLine, AfterValidator(os.path.expanduser)]


class WarmStart(Frozen):
    """Where earlier trials are: exactly one of study, storage, table; paths are relative to study.yaml."""

    study: _Place | None = Field(default=None, description="An earlier study's folder, or its study.yaml.")
    storage: DatabaseURL | None = Field(
        default=None, description="URL of an Optuna database; ${NAME} stands for an environment variable."
    )
    name: OneLine | None = Field(default=None, description="The study in storage. Default: the only one there.")
    table: _Place | None = Field(
        default=None, description="CSV, JSON or JSON lines: a column for each parameter and for the metric."
    )
    metric: Annotated[OneLine, Field(max_length=128)] | None = Field(
        default=None, description="What stands there for the objective. Default: the objective's own name."
    )
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None,
        description="Which of that metric's values are good. Default: as the source says, or the objective.",
    )
    best: Annotated[Whole, Field(ge=0)] | None = Field(
        default=None, description="Its best configurations that run first, with another sampler than bo. Default: 3."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(place is not None for place in (self.study, self.storage, self.table)) != 1:
            raise mistake_at((), "needs exactly one of study, storage, table")
        if self.name is not None and self.storage is None:
            raise mistake_at(("name",), "is the name of a study in storage, and there is no storage")
        return self

    @property
    def place(self) -> str:
        """The source as the file names it; it holds no password."""
        return self.study or self.table or f"{self.storage}{f' ({self.name})' if self.name else ''}"

    def below(self, folder: Path) -> Self:
        """The same with its path made absolute: relative ones are those of ``folder``."""
        paths = {name: str(folder / place) for name, place in (("study", self.study), ("table", self.table)) if place}
        for prefix in _FILES:
            if self.storage is not None and self.storage.startswith(prefix):
                paths["storage"] = prefix + str(folder / Path(self.storage.removeprefix(prefix)).expanduser())
        return self.model_copy(update=paths)


class _Shorthand:
    """Annotation: bare text is a table, a database or a study, by what it looks like."""

    @staticmethod
    def expand(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if "://" in value or value.startswith("journal:"):
            return {"storage": value}
        return {"table" if Path(value).suffix in _TABLES else "study": value}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string"}]}


WarmStartOrPlace = Annotated[WarmStart, _Shorthand()]
