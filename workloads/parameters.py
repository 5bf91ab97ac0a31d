"""Hyperparameters of a task as data: name, range, default; and the values of one trial, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workloads.errors import WorkloadError, did_you_mean

__all__ = ["Parameter", "parse_assignments", "resolve"]

Value = int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One hyperparameter.

    Attributes
    ----------
    low, high :
        Range of numbers that make sense, both ends included. Both int for a whole number.
    log : bool
        Whether its order of magnitude matters more than its value: a sampler should search it so.
    choices : tuple of str
        The values of a categorical parameter, which has no ``low`` and ``high``.
    meaning : str
        One line for people, with the unit.
    when : mapping
        Other parameters and the values that they must have for this one to exist.
    """

    name: str
    default: Value
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    meaning: str = ""
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether the value is a whole number."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def describe(self) -> str:
        """The range in words: ``1e-05 to 0.1 (log)`` or ``adam | sgd``."""
        if self.choices:
            return " | ".join(self.choices)
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")

    def condition(self) -> str:
        """When it exists, in words: ``with optimizer sgd``; empty where it always does."""
        return " and ".join(
            f"with {parent} " + " or ".join(str(value) for value in allowed) for parent, allowed in self.when.items()
        )

    def check(self, value: Any) -> Value:
        """``value`` in the parameter's own type.

        Raises
        ------
        WorkloadError
            If it is of another type, not finite, outside the range or none of the choices.
        """
        if self.choices:
            if value not in self.choices:
                raise WorkloadError(
                    f"parameter {self.name!r}: {value!r} is not a choice",
                    hint=did_you_mean(str(value), self.choices),
                )
            return str(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WorkloadError(f"parameter {self.name!r}: {value!r} is not a finite number")
        if self.whole and value != int(value):
            raise WorkloadError(f"parameter {self.name!r}: {value!r} is not a whole number")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise WorkloadError(
                f"parameter {self.name!r}: {value!r} is out of range", hint=f"it goes from {self.describe()}"
            )
        return int(value) if self.whole else float(value)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``["lr=1e-3", "optimizer=sgd"]`` as a mapping; a value that is no JSON number is a string."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise WorkloadError(f"--set {assignment!r} is not of the form name=value")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def resolve(parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every active parameter's value: the given one, checked, else its default.

    Parameters
    ----------
    parameters : iterable of Parameter
        A parameter comes after those of its ``when``. One that does not exist there is left out, given or not.

    Raises
    ------
    WorkloadError
        If a name is not a parameter of the task, or a value does not fit.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            raise WorkloadError(f"no parameter is called {name!r}", hint=did_you_mean(name, known))
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        value = parameter.check(given.get(name, parameter.default))
        if all(values.get(parent) in allowed for parent, allowed in parameter.when.items()):
            values[name] = value
    return values
