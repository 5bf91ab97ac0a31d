"""Rows of measured configurations, from CSV, JSON or JSON lines.

A row is ``{"params": {...}, "metrics": {...}}``, or flat with columns ``params.NAME`` and ``metrics.NAME``, or plain ``NAME``.
CSV has but text: `typed` makes of it what a parameter can have.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.parameters import CategoricalParameter, FixedParameter, IntParameter, same
from orchestrator.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from orchestrator.config.parameters import Parameter
    from orchestrator.model import Json

__all__ = ["cell", "names", "number", "read_rows", "typed"]


def read_rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows with their line (of JSON: their number), as they are; a line that says what the table is ``about`` is none.

    Raises
    ------
    ConfigError
        The file is not JSON, JSON lines or CSV; with the line.
    UsageError
        There is no file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such table", hint="name a CSV, JSON or JSON lines file, or a study's folder"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    if path.suffix == ".csv":
        return [(number, row) for number, row in enumerate(csv.DictReader(text.splitlines()), start=2)]
    if path.suffix == ".json":
        data = _parsed(text, path, 1)
        listed = data.get("trials", data.get("rows")) if isinstance(data, Mapping) else data
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise ConfigError(f'{path}: is neither a list of rows nor {{"rows": [...]}}')
        return [(number, row) for number, row in enumerate(listed, start=1) if isinstance(row, Mapping)]
    lines = text.splitlines()
    if not text.endswith("\n") and len(lines) > 1:
        lines.pop()  # what makes the table is about to write it
    rows = [(number, _parsed(line, path, number)) for number, line in enumerate(lines, start=1) if line.strip()]
    return [(number, row) for number, row in rows if isinstance(row, Mapping) and "about" not in row]


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        hint = "tables end in .csv, .json or .jsonl" if path.suffix not in {".json", ".jsonl"} else ""
        raise ConfigError(f"{path}:{line}: is not JSON ({error})", hint=hint) from None


def cell(data: Mapping[str, Any], *groups_and_name: str) -> Any:
    """A parameter or metric, in its group, under ``group.name`` or plain ``name``; None where a row lacks it."""
    first, name, *others = groups_and_name
    for group in (first, *others):
        inside = data.get(group)
        found = inside.get(name) if isinstance(inside, Mapping) else data.get(f"{group}.{name}")
        if found not in (None, ""):
            return found
    found = data.get(name)
    return None if found == "" else found


def names(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> str:
    """What the first row has, in words."""
    if not rows:
        return "nothing"
    _, data = rows[0]
    inside = data.get("params")
    return ", ".join(map(str, inside if isinstance(inside, Mapping) else data))


def typed(parameter: Parameter, found: Any) -> Json | None:
    """The value in the parameter's own type, be it in its range or not; None where it cannot be that."""
    if isinstance(parameter, CategoricalParameter | FixedParameter):
        choices = parameter.choices if isinstance(parameter, CategoricalParameter) else (parameter.value,)
        return next(
            (each for each in choices if same(each, found) or (isinstance(found, str) and _text(each) == found)), None
        )
    value = number(found)
    if value is None:
        return None
    if isinstance(parameter, IntParameter):
        return int(value) if value == int(value) else None
    return value


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def number(value: Any) -> float | None:
    """A finite number, also from text; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
