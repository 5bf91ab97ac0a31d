"""What the evaluation of a study's best trials has given: the file ``evaluation.json``, for readers.

It is made from the attempt files below ``evaluation/`` each time that a run ends, and can be made again from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from orchestrator.errors import SurveyError
from orchestrator.model import Json
from orchestrator.store.atomic import read_in_words, write_json

__all__ = ["EvaluatedRun", "EvaluatedTrial", "EvaluationRecord", "read_evaluation", "write_evaluation"]

_FILE = "evaluation.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """One run of a trial on the test cases, from 1; its verdict in our word."""

    run: int
    seed: int
    verdict: str
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Json] = field(default_factory=dict)
    job_id: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedTrial:
    """One of the best trials, with the values by which it was chosen and its runs that have ended."""

    number: int
    values: tuple[float, ...]
    params: Mapping[str, Json]
    runs: tuple[EvaluatedRun, ...] = ()

    def result(self, metric: str) -> tuple[float, float | None, int] | None:
        """Mean and standard deviation of a metric over the runs with a result, and their number; None without one."""
        found = [run.metrics[metric] for run in self.runs if run.verdict == "succeeded" and metric in run.metrics]
        if not found:
            return None
        middle = fmean(found)
        if len(found) == 1:
            return middle, None, 1
        return middle, math.hypot(*(value - middle for value in found)) / math.sqrt(len(found) - 1), len(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """All trials that were evaluated, in the order of the search's own values.

    Attributes
    ----------
    definition : mapping
        The command and what else makes its numbers what they are.
    metrics : tuple of str
        What every run reports.
    """

    definition: Mapping[str, Json]
    metrics: tuple[str, ...]
    updated: float
    trials: tuple[EvaluatedTrial, ...] = ()


def write_evaluation(root: Path, record: EvaluationRecord) -> None:
    """Write the record of the study in ``root``.

    Raises
    ------
    Paused, UsageError, SurveyError
        As `orchestrator.store.atomic.write_bytes`.
    """
    write_json(root / _FILE, {"version": _VERSION, **dataclasses.asdict(record)})


def read_evaluation(root: Path) -> EvaluationRecord | None:
    """The record of the study in ``root``; None where nothing was evaluated.

    Raises
    ------
    SurveyError
        The file cannot be read.
    """
    data: Any = read_in_words(root / _FILE)
    if data is None:
        return None
    try:
        trials = tuple(
            EvaluatedTrial(
                **{
                    **trial,
                    "values": tuple(trial["values"]),
                    "runs": tuple(EvaluatedRun(**run) for run in trial["runs"]),
                }
            )
            for trial in data["trials"]
        )
        return EvaluationRecord(
            definition=data["definition"], metrics=tuple(data["metrics"]), updated=data["updated"], trials=trials
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SurveyError(
            f"{root / _FILE} cannot be read: {type(error).__name__}: {error}",
            hint="move it away: `survey best --evaluate` makes it again from the attempt files",
        ) from error
