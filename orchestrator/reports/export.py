"""A study's trials as flat rows, CSV and JSON.

What a program reported as ``info`` stays out: it is free text, where names of files or patients
could hide. In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front
(OWASP, "CSV Injection"); numbers stay numbers, and JSON is left as it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["columns", "csv_of", "rows", "rows_of_runs", "to_csv", "to_json"]

FIRST = ("number", "state", "verdict")
FRONT, FEASIBLE = "pareto", "feasible"
LAST = (
    "reason",
    "attempts",
    "retry_of",
    "job_id",
    "host",
    "gpus",
    "max_rss",
    "gpu_memory",
    "created",
    "submitted",
    "started",
    "ended",
    "ask_seconds",
    "directory",
)
OF_A_RUN = (
    "reason",
    "attempts",
    "site",
    "job_id",
    "host",
    "max_rss",
    "submitted",
    "started",
    "ended",
    "directory",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns(record: StudyRecord) -> tuple[str, ...]:
    """Name the columns, in an order that depends on the study's definition and names alone.

    ``number, state, verdict``, ``values.*`` as the study lists its objectives, ``params.*`` as its
    space lists them (others after them, by name), ``metrics.*`` by name, ``spread.*`` (their standard deviations
    over several runs), then the job's attributes.
    Before the values: ``feasible`` (whether a complete trial keeps to all constraints) where the study has some, and
    ``pareto`` (whether it is on the front) where it has several objectives.
    """
    params = list(record.space)
    params += sorted({name for trial in record.trials for name in trial.params} - set(params))
    metrics = sorted({name for trial in record.trials for name in trial.metrics})
    spreads = sorted({name for trial in record.trials for name in trial.spread})
    return (
        *FIRST,
        *([FEASIBLE] if record.constraints else []),
        *([FRONT] if len(record.objectives) > 1 else []),
        *(f"values.{name}" for name in record.objectives),
        *(f"params.{name}" for name in params),
        *(f"metrics.{name}" for name in metrics),
        *(f"spread.{name}" for name in spreads),
        *LAST,
    )


def rows(record: StudyRecord) -> list[dict[str, Any]]:
    """Make one flat row per trial, by number, with all `columns`; None where a trial has no such thing."""
    names = columns(record)
    front = {trial.number for trial in record.front()} if FRONT in names else set()
    return [{name: _cell(record, trial, name, front) for name in names} for trial in record.trials]


def to_csv(record: StudyRecord) -> str:
    """Write `rows` as CSV (RFC 4180, lines end in CR LF), safe to open in a spreadsheet."""
    return csv_of(columns(record), rows(record))


def rows_of_runs(record: StudyRecord) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Make one flat row per run of each trial, in order: the columns, and the rows with all of them.

    A trial of one run is its own run.
    """
    params = [name for name in columns(record) if name.startswith("params.")]
    metrics = sorted({name for trial in record.trials for run in trial.runs or (trial,) for name in run.metrics})
    names = ("number", "run", "verdict", *params, *(f"metrics.{name}" for name in metrics), *OF_A_RUN)
    found = []
    for trial in record.trials:
        for run in trial.runs or (trial,):
            row: dict[str, Any] = {name: trial.params.get(name.removeprefix("params.")) for name in params}
            row |= {f"metrics.{name}": run.metrics.get(name) for name in metrics}
            row |= {name: getattr(run, name, None) for name in ("verdict", *OF_A_RUN)}
            row |= {"number": trial.number, "run": getattr(run, "run", 1)}
            found.append({name: row[name] for name in names})
    return names, found


def csv_of(names: Sequence[str], table: Iterable[Mapping[str, Any]]) -> str:
    """Write rows as CSV (RFC 4180, lines end in CR LF), safe to open in a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_safe(name) for name in names])
    writer.writerows([_safe(value) for value in row.values()] for row in table)
    return buffer.getvalue()


def to_json(record: StudyRecord) -> str:
    """Write `rows` as a JSON list, one trial a line; a number that is not finite becomes null."""
    lines = [
        json.dumps({name: _finite(value) for name, value in row.items()}, ensure_ascii=False, allow_nan=False)
        for row in rows(record)
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def _cell(record: StudyRecord, trial: TrialRecord, name: str, front: Container[int]) -> Any:
    kind, _, key = name.partition(".")
    if kind == "params":
        return trial.params.get(key)
    if kind == "metrics":
        return trial.metrics.get(key)
    if kind == "spread":
        return trial.spread.get(key)
    if kind == "values":
        index = record.objectives.index(key)
        return trial.values[index] if trial.values and index < len(trial.values) else None
    if name in {FEASIBLE, FRONT}:
        yes = trial.feasible if name == FEASIBLE else trial.number in front
        return yes if trial.state == "complete" else None
    return " ".join(trial.gpus) if name == "gpus" else getattr(trial, name)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _safe(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
