"""Tables of configurations and what came of them: measured trainings that a simulation draws its results from.

Read from JSON lines, JSON or CSV. A row is ``{"params": {...}, "metrics": {...}, "seconds": 12.5}``, or flat with columns
``params.NAME`` (or plain ``NAME``) and ``metrics.NAME``; ``survey export`` writes such tables, and so does a study's
own folder. Several rows of one configuration are its repeats, each with another seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.parameters import FixedParameter
from orchestrator.errors import UsageError
from orchestrator.search.space import validate
from orchestrator.store.rows import cell, names, number, read_rows, typed

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.model import Json

__all__ = ["Row", "Table", "read_table"]

_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training.

    Attributes
    ----------
    metrics : mapping or None
        None where it failed.
    seconds : float or None
        What it took.
    """

    params: Mapping[str, Json]
    metrics: Mapping[str, float] | None
    seconds: float | None = None
    progress: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Trainings of one study's space.

    Attributes
    ----------
    left_out : int
        Rows that are no point of the study's space.
    repeats : int
        Most trainings of one configuration.
    """

    rows: tuple[Row, ...]
    place: str
    left_out: int = 0
    repeats: int = 1

    @property
    def timed(self) -> bool:
        """Whether every row that has a result says how long it took."""
        return all(row.seconds is not None for row in self.rows if row.metrics is not None)

    def values(self, metric: str) -> list[float]:
        """The metric of every training that has one."""
        return [row.metrics[metric] for row in self.rows if row.metrics is not None]


def read_table(path: Path, study: Study, *, seconds: str = "seconds") -> Table:
    """Read the table of ``study``.

    Parameters
    ----------
    seconds : str
        Field or column that holds the run time.

    Raises
    ------
    ConfigError
        The file is not JSON, JSON lines or CSV; with the line.
    UsageError
        There is no file, a parameter or the objective is not in it, or hardly a row is a point of the space.
    """
    raw = _read(path)
    metrics = [item.metric for item in study.targets]
    rows: list[Row] = []
    problems: list[str] = []
    counts: dict[str, int] = {}
    for line, data in raw:
        row, problem = _row(data, study, metrics, seconds)
        if row is None:
            problems.append(f"{path}:{line}: {problem}")
            continue
        key = json.dumps(row.params, sort_keys=True)
        counts[key] = counts.get(key, 0) + 1
        rows.append(row)
    if sum(row.metrics is not None for row in rows) < _FEWEST:
        shown = f"; the first problem: {problems[0]}" if problems else ""
        raise UsageError(
            f"{path}: {len(rows)} of {len(raw)} rows are results of study {study.name!r}{shown}",
            hint=f"rows need the parameters {', '.join(study.space)} and the metric {metrics[0]}; "
            f"the first one has {names(raw)}",
        )
    return Table(rows=tuple(rows), place=str(path), left_out=len(problems), repeats=max(counts.values()))


def _read(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows with their line (or number), as they are."""
    if path.is_dir():
        from orchestrator.reports.export import rows as exported
        from orchestrator.studies.reader import read_study

        return list(enumerate(exported(read_study(path)), start=1))
    return read_rows(path)


def _row(data: Mapping[str, Any], study: Study, metrics: Sequence[str], seconds: str) -> tuple[Row | None, str]:
    """The row as a point of the study's space, or what is wrong with it."""
    params: dict[str, Json] = {}
    for name, parameter in study.space.items():
        found = cell(data, "params", name)
        if found is None:
            continue
        value = typed(parameter, found)
        if value is None:
            return None, f"parameter {name} cannot be {found!r}"
        params[name] = value
    for name, parameter in study.space.items():
        if isinstance(parameter, FixedParameter) and not parameter.when:
            params.setdefault(name, parameter.value)
    try:
        validate(study.space, params)
    except UsageError as error:
        return None, error.message
    took = number(data.get(seconds))
    if took is None and number(data.get("started")) is not None and number(data.get("ended")) is not None:
        took = float(data["ended"]) - float(data["started"])
    values = {name: number(cell(data, "metrics", name, "values")) for name in (*metrics, *study.metrics)}
    if any(values[name] is None for name in metrics):
        if data.get("failed") or data.get("state") == "failed":
            return Row(params=params, metrics=None, seconds=took), ""
        return None, f"no metric {next(name for name in metrics if values[name] is None)}"
    progress = data.get("progress")
    steps = tuple((int(step), float(value)) for step, value in progress) if isinstance(progress, list) else ()
    known = {name: value for name, value in values.items() if value is not None}
    return Row(params=params, metrics=known, seconds=took, progress=steps), ""
