"""Where values lie on an axis: of each parameter, and of the objective. Shared by all figures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.model import Json
    from orchestrator.store.record import StudyRecord

__all__ = ["NOT_SET", "ParameterAxis", "label", "parameter_axes", "value_range"]

LABEL_LENGTH = 18
NOT_SET = -0.16  # where an axis shows trials that have no value for the parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterAxis:
    """One parameter's axis, from 0 to 1.

    Attributes
    ----------
    choices : tuple
        Of a categorical parameter, in the study's order; empty for a number.
    low, high : float
        Range of a number; both are above 0 if ``log``.
    """

    name: str
    choices: tuple[Json, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False

    def place(self, value: Json) -> float | None:
        """Position of ``value`` on the axis; None for what does not lie on it."""
        if self.choices:
            keys = [_key(choice) for choice in self.choices]
            key = _key(value)
            return (keys.index(key) + 0.5) / len(keys) if key in keys else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.log:
            if value <= 0:
                return None
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Positions and labels: each choice, or five numbers (a power of ten each, if they fit)."""
        if self.choices:
            return tuple(((index + 0.5) / len(self.choices), label(c)) for index, c in enumerate(self.choices))
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first >= 1:
                step = -(-(last - first) // 5)
                powers = [10.0**power for power in range(first, last + 1, step)]
                return tuple((self.place(power) or 0.0, f"{power:.4g}") for power in powers)
            values = [self.low * (self.high / self.low) ** (index / 2) for index in range(3)]
            return tuple((index / 2, f"{value:.3g}") for index, value in enumerate(values))
        numbers = [self.low + (self.high - self.low) * index / 4 for index in range(5)]
        if self.whole:
            numbers = [float(number) for number in sorted({round(number) for number in numbers})]
        return tuple((self.place(number) or 0.0, f"{number:.4g}") for number in numbers)


def parameter_axes(record: StudyRecord) -> tuple[ParameterAxis, ...]:
    """Make the axes of all parameters that can vary, in the order of the space.

    A parameter that the space does not describe takes its range from the trials.
    """
    names = list(record.space)
    names += sorted({name for trial in record.trials for name in trial.params} - set(names))
    axes = [_axis(name, record.space.get(name, {}), _values(record, name)) for name in names]
    return tuple(axis for axis in axes if axis is not None)


def value_range(values: Iterable[float], direction: str) -> tuple[float, float] | None:
    """Choose the lowest and the highest value to show; None without a finite value.

    On the worse side that is at most the outer fence, three interquartile ranges off (Tukey,
    Exploratory Data Analysis, 1977), so that one diverged training does not flatten the rest.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return None
    first, third = np.quantile(finite, [0.25, 0.75])
    fence = 3 * (third - first)
    low, high = float(finite.min()), float(finite.max())
    if fence > 0 and direction == "maximize":
        low = max(low, float(first - fence))
    elif fence > 0:
        high = min(high, float(third + fence))
    return low, high


def label(value: Json) -> str:
    """Write a value for a tick or a table cell, cut short where it is long."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"


def _values(record: StudyRecord, name: str) -> list[Json]:
    return [trial.params[name] for trial in record.trials if name in trial.params]


def _axis(name: str, entry: Mapping[str, Json], values: list[Json]) -> ParameterAxis | None:
    listed = entry.get("choices")
    if isinstance(listed, list | tuple) and listed:
        return ParameterAxis(name=name, choices=tuple(listed)) if len(listed) > 1 else None
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    low, high = entry.get("low"), entry.get("high")
    if isinstance(low, int | float) and isinstance(high, int | float):
        # A trial that a user added by hand may lie outside the space.
        numbers += [float(low), float(high)]
    elif len(numbers) < len(values):
        found = {_key(value): value for value in values}
        return ParameterAxis(name=name, choices=tuple(found[key] for key in sorted(found))) if len(found) > 1 else None
    if not numbers or min(numbers) == max(numbers):
        return None
    log = bool(entry.get("log")) and min(numbers) > 0
    return ParameterAxis(name=name, low=min(numbers), high=max(numbers), log=log, whole=entry.get("type") == "int")


def _key(value: Json) -> str:
    # 1, 1.0 and True are equal in Python, but not as choices.
    return json.dumps(value, sort_keys=True)
