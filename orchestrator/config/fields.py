"""Field types that take what is written for what it is: ``true`` is no number, ``"3"`` is text."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from orchestrator.config.mistakes import mistake_at

__all__ = ["Flag", "Frozen", "Number", "OneLine", "PlainName", "Scalar", "Text", "Variables", "Whole", "check_name"]


class Frozen(BaseModel):
    """A part of a configuration file: it does not change, and it knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_text(value: Any) -> Any:
    # A whole number becomes again just what was written (the loader sees to that); 0.10 or true might not.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _one_line(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", value):
        raise ValueError(f"must be one line without control characters, found {value!r}")
    return value


def check_name(value: str) -> str:
    """Return ``value`` if it can be a folder, a job name and a word of a command line; else ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError(
            f'must be 1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit, found "{value}"'
        )
    return value


def _scalar(value: Any) -> Any:
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124  nan differs from itself
            raise mistake_at((), "expected a finite number")
        return value
    raise mistake_at((), "expected a number, text, true or false")


Whole: TypeAlias = Annotated[int, Strict()]
"""A whole number."""

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number."""

Flag: TypeAlias = Annotated[bool, Strict()]
"""true or false."""

Text: TypeAlias = Annotated[str, BeforeValidator(_as_text), AfterValidator(_no_nul)]
"""Text for a command or an environment; a whole number need not be quoted."""

OneLine: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""Text without line breaks and control characters."""

PlainName: TypeAlias = Annotated[
    str,
    AfterValidator(check_name),
    Field(json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
]
"""A name that can be a folder, a job name and a word of a command line."""

Scalar: TypeAlias = Annotated[
    Any,
    BeforeValidator(_scalar),
    Field(json_schema_extra={"type": ["number", "string", "boolean"]}),
]
"""What a parameter's value can be."""


def _variables(names: dict[str, str]) -> dict[str, str]:
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise mistake_at((name,), "not a name for an environment variable")
        if name.startswith("SURVEY_"):
            raise mistake_at((name,), "names that begin with SURVEY_ are the orchestrator's own")
    return names


Variables: TypeAlias = Annotated[dict[str, Text], AfterValidator(_variables)]
"""Environment variables by name."""
