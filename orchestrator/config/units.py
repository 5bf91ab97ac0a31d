"""Durations and memory sizes as people write them: ``90s``, ``2h``, ``01:30:00``, ``16GB``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

__all__ = [
    "Duration",
    "MemorySize",
    "Walltime",
    "format_duration",
    "format_hms",
    "parse_duration",
    "parse_memory",
]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Schedulers count memory in powers of 1024 whether one writes G, GB or GiB; so do we.
_MEBIBYTES = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}

_NUMBER = re.compile(r"\d+(\.\d+)?")
_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)\s*([smhd])\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d{1,2}):(\d{2})")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)


def _checked(value: float, raw: object) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"must be a finite number, zero or more, found {raw!r}")
    return value


def parse_duration(value: object) -> float:
    """Seconds of ``90``, ``"90s"``, ``"1h30m"``, ``"MM:SS"``, ``"HH:MM:SS"`` or ``"D-HH:MM:SS"``.

    Raises
    ------
    ValueError
        If ``value`` is none of these.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _checked(float(value), value)
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        if _PARTS.fullmatch(text):
            return sum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(text))
        if (match := _CLOCK.fullmatch(text)) and (match[1] is None or match[2] is not None):
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            if seconds < 60 and (minutes < 60 or match[2] is None):
                return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)
    raise ValueError(f'expected a duration such as 90, "90s", "30m", "2h", "1d" or "01:30:00", found {value!r}')


def parse_memory(value: object) -> int:
    """MiB of ``512`` (MiB), ``"16GB"``, ``"512MiB"``; part of a MiB is rounded up.

    Raises
    ------
    ValueError
        If ``value`` is none of these.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.ceil(_checked(float(value), value))
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return math.ceil(float(text))
        if match := _MEMORY.fullmatch(text):
            return math.ceil(float(match[1]) * _MEBIBYTES[match[2].lower()])
    raise ValueError(f'expected a memory size such as "16GB", "512MiB" or 512 (MiB), found {value!r}')


def _walltime(value: object) -> int:
    seconds = math.ceil(parse_duration(value))
    if seconds < 1:
        raise ValueError(f"must be longer than zero, found {value!r}")
    return seconds


class _Parsed:
    """Annotation: parse by a function before the type is checked; tell JSON Schema what may be written."""

    def __init__(self, parse: Callable[[object], float], description: str) -> None:
        self.parse = parse
        self.description = description

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}], "description": self.description}


Duration: TypeAlias = Annotated[float, _Parsed(parse_duration, 'Seconds, or "90s", "30m", "2h", "1d", "HH:MM:SS".')]
"""Seconds."""

Walltime: TypeAlias = Annotated[int, _Parsed(_walltime, 'Seconds, or "90s", "30m", "2h", "1d", "HH:MM:SS".')]
"""Whole seconds, at least one."""

MemorySize: TypeAlias = Annotated[int, _Parsed(parse_memory, 'MiB, or "16GB", "512MiB".')]
"""MiB."""


def format_duration(seconds: float) -> str:
    """``seconds`` in the two largest units that matter: ``2d 3h``, ``1h 30m``, ``45s``, ``0.25s``."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.2g}s"
    left = round(seconds)
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append((size, f"{count}{unit}"))
    if not words:
        return "0s"
    # A unit that does not follow on the largest one is noise: 2d 5s is 2d.
    largest = words[0][0]
    return " ".join(word for size, word in words[:2] if largest / size <= 60)


def format_hms(seconds: float) -> str:
    """``seconds``, rounded up, as ``HH:MM:SS`` with as many hours as it takes (batch scripts' form)."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
