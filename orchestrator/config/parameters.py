"""One parameter of a study's space: a range, a choice or a fixed value, perhaps under a condition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from orchestrator.config.fields import Flag, Frozen, Number, Scalar, Whole
from orchestrator.config.loading import did_you_mean
from orchestrator.config.mistakes import mistake_at

if TYPE_CHECKING:
    from orchestrator.config.loading import KeyPath

__all__ = [
    "CategoricalParameter",
    "FixedParameter",
    "FloatParameter",
    "IntParameter",
    "Parameter",
    "Space",
    "in_order",
    "same",
]


def same(one: object, other: object) -> bool:
    """Whether two scalars are the same value: 1 and 1.0 are, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _listed(value: Any) -> Any:
    return (
        {name: allowed if isinstance(allowed, list | tuple) else [allowed] for name, allowed in value.items()}
        if (isinstance(value, Mapping))
        else value
    )


When: TypeAlias = Annotated[
    dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]],
    BeforeValidator(_listed),
    Field(
        json_schema_extra={
            "additionalProperties": {
                "anyOf": [
                    {"type": ["number", "string", "boolean"]},
                    {"type": "array", "items": {"type": ["number", "string", "boolean"]}, "minItems": 1},
                ]
            }
        }
    ),
]


class _Parameter(Frozen):
    when: When = Field(
        default={},
        description="Other parameters and the value, or list of values, that they must have for this one to exist.",
    )

    def admits(self, value: object) -> bool:
        """Whether the parameter can have ``value``."""
        raise NotImplementedError


class _Range(_Parameter):
    low: float
    high: float
    log: Flag = Field(default=False, description="Search the logarithm; low must be above zero.")

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        step = getattr(self, "step", None)
        if self.low > self.high:
            raise mistake_at(("low",), f"low ({self.low}) is above high ({self.high})")
        if self.log and self.low <= 0:
            raise mistake_at(("low",), f"low must be above zero where log is true, found {self.low}")
        if self.log and "step" in self.model_fields_set and step is not None:
            raise mistake_at(("step",), "step and log cannot go together: leave one out")
        if step is not None and self.low < self.high and step > self.high - self.low:
            raise mistake_at(("step",), f"step ({step}) is larger than the range from {self.low} to {self.high}")
        return self

    def _on_step(self, value: float, step: float) -> bool:
        steps = (value - self.low) / step
        return math.isclose(steps, round(steps), abs_tol=1e-6)


class FloatParameter(_Range):
    """A real number between ``low`` and ``high``, both included."""

    type: Literal["float"]
    low: Number = Field(description="Smallest value.")
    high: Number = Field(description="Largest value.")
    step: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="Only low, low + step, low + 2 step, ... up to high; not with log."
    )

    def admits(self, value: object) -> bool:
        """Whether ``value`` is a number in the range and on the step."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return self.step is None or self._on_step(value, self.step)


class IntParameter(_Range):
    """A whole number between ``low`` and ``high``, both included."""

    type: Literal["int"]
    low: Whole = Field(description="Smallest value.")
    high: Whole = Field(description="Largest value.")
    step: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="Only low, low + step, ... up to high; 1 if not given; not with log."
    )

    def admits(self, value: object) -> bool:
        """Whether ``value`` is a whole number in the range and on the step."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return self._on_step(value, self.step or 1)


class CategoricalParameter(_Parameter):
    """One of a few values without an order."""

    type: Literal["categorical"]
    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)] = Field(
        description="The values: numbers, text, true or false."
    )

    @model_validator(mode="after")
    def _different(self) -> CategoricalParameter:
        for index, choice in enumerate(self.choices):
            for earlier in self.choices[:index]:
                # Optuna tells choices apart by ==, for which 1, 1.0 and true are one.
                if choice == earlier:
                    raise mistake_at(
                        ("choices", index),
                        f"choice {choice!r} is there twice"
                        + ("" if repr(choice) == repr(earlier) else f" ({earlier!r})"),
                    )
        return self

    def admits(self, value: object) -> bool:
        """Whether ``value`` is one of the choices."""
        return any(same(value, choice) for choice in self.choices)


class FixedParameter(_Parameter):
    """A value that every trial gets; the short form is the bare value."""

    type: Literal["fixed"] = "fixed"
    value: Scalar = Field(description="The value.")

    def admits(self, value: object) -> bool:
        """Whether ``value`` is this one."""
        return same(value, self.value)


class _Shorthand:
    """Annotation: a bare value, or a mapping with ``value`` and no ``type``, is a fixed parameter."""

    @staticmethod
    def expand(value: Any) -> Any:
        if isinstance(value, str | bool | int | float):
            return {"type": "fixed", "value": value}
        if isinstance(value, list | tuple):
            raise mistake_at((), "a list is no parameter; for a choice write {type: categorical, choices: [...]}")
        if isinstance(value, Mapping) and "type" not in value:
            if "value" in value:
                return {"type": "fixed", **value}
            near = next((key for key in value if did_you_mean(str(key), ["type"])), None)
            if near is None:
                raise mistake_at((), 'missing key "type": float, int or categorical (or "value" for a fixed one)')
            raise mistake_at((near,), 'unknown key; did you mean "type"?')
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        written = handler(schema)
        # Editors check the file as written: the discriminator would ask for `type` in the short form too.
        members = written.get("oneOf", [written])
        return {"anyOf": [*members, {"type": ["number", "string", "boolean"]}]}


Parameter: TypeAlias = Annotated[
    Annotated[FloatParameter | IntParameter | CategoricalParameter | FixedParameter, Field(discriminator="type")],
    _Shorthand(),
]


def _problem(name: str, space: Mapping[str, _Parameter]) -> tuple[KeyPath, str] | None:
    """Say what is wrong with the condition of ``name``, and where."""
    for parent, allowed in space[name].when.items():
        keys: KeyPath = (name, "when", parent)
        if parent == name:
            return keys, "a parameter cannot depend on itself"
        if parent not in space:
            near = did_you_mean(parent, space)
            return keys, f"there is no parameter {parent}; {near or 'the parameters are ' + ', '.join(space)}"
        impossible = [value for value in allowed if not space[parent].admits(value)]
        if impossible:
            chosen = space[parent]
            choices = chosen.choices if isinstance(chosen, CategoricalParameter) else ()
            near = did_you_mean(str(impossible[0]), [str(choice) for choice in choices])
            return keys, f"{parent} never has the value {impossible[0]!r}" + (f"; {near}" if near else "")
    return None


def in_order(space: Mapping[str, _Parameter]) -> tuple[str, ...]:
    """Names of the parameters, each after those that it depends on; else in the order of the file.

    Raises
    ------
    ValueError
        If parameters depend on each other in a circle.
    """
    order: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in path:
            raise ValueError(" -> ".join((*path[path.index(name) :], name)))
        for parent in space[name].when:
            visit(parent, (*path, name))
        order[name] = None

    for name in space:
        visit(name, ())
    return tuple(order)


def _checked(space: dict[str, Any]) -> dict[str, Any]:
    for name in space:
        if not name.isprintable() or name != name.strip():
            raise mistake_at((name,), "a parameter's name must be printable text")
        if problem := _problem(name, space):
            raise mistake_at(*problem)
    try:
        in_order(space)
    except ValueError as error:
        raise mistake_at((), f"parameters depend on each other in a circle: {error}") from None
    return space


Space: TypeAlias = Annotated[dict[str, Parameter], Field(min_length=1), AfterValidator(_checked)]
