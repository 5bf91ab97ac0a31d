"""A study as readers see it: plain records, made from the study database or from a snapshot.

Status, reports and exports read these and nothing else, so that reading never disturbs a driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.model import Json

__all__ = ["SNAPSHOT_VERSION", "StudyRecord", "TrialRecord"]

SNAPSHOT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial. Times are seconds since the epoch (UTC), None where they are not known.

    Attributes
    ----------
    state : str
        ``waiting``, ``running``, ``paused``, ``complete``, ``pruned`` or ``failed``.
    values : tuple of float or None
        Objective values, in the study's order; only of complete trials. Of a pruned one the last value that it reported.
    metrics : mapping
        All numbers the trial reported, objectives included.
    steps : mapping
        Intermediate values by step.
    promoted : float or None
        When it was last taken up again after a pause.
    verdict, reason :
        Why it ended, in our word and in words.
    directory : str
        Folder of the last attempt, in the work root.
    """

    number: int
    state: str
    params: Mapping[str, Json] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[int, float] = field(default_factory=dict)
    verdict: str | None = None
    reason: str = ""
    attempts: int = 0
    job_id: str = ""
    host: str = ""
    gpus: tuple[str, ...] = ()
    max_rss: float | None = None
    gpu_memory: float | None = None
    created: float | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    ask_seconds: float | None = None
    promoted: float | None = None
    retry_of: int | None = None
    directory: str = ""
    info: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study with its trials, in the order of their numbers.

    Attributes
    ----------
    objectives : tuple of str
        Metric names; ``directions`` (``maximize`` / ``minimize``) in the same order.
    space : mapping
        Parameter name to ``{"type", "low", "high", "log", "step", "choices", "value", "when"}``,
        with the keys that apply.
    state : str
        ``new``, ``running``, ``interrupted`` (no driver, not finished), ``paused`` or ``done``.
    message : str
        Why it is paused, or was done before its budget was spent.
    used : mapping
        ``gpu_hours`` and ``node_hours`` of all attempts that have ended.
    """

    name: str
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Mapping[str, Json]]
    sampler: Mapping[str, Json]
    planned: int
    parallel: int
    site: str
    state: str
    message: str = ""
    updated: float = 0.0
    root: str = ""
    used: Mapping[str, float] = field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()
    provenance: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dump``."""
        return {"snapshot_version": SNAPSHOT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StudyRecord:
        """Make the record again from `to_json`'s data.

        Raises
        ------
        ValueError
            If the data is of another snapshot version.
        """
        data = dict(data)
        version = data.pop("snapshot_version", None)
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version {version!r}, expected {SNAPSHOT_VERSION}")
        trials = []
        for item in data.pop("trials"):
            fields = dict(item)
            fields["values"] = None if fields["values"] is None else tuple(fields["values"])
            fields["gpus"] = tuple(fields["gpus"])
            fields["steps"] = {int(step): value for step, value in fields["steps"].items()}
            trials.append(TrialRecord(**fields))
        for name in ("objectives", "directions"):
            data[name] = tuple(data[name])
        return cls(**data, trials=tuple(trials))

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        """Trials that have ended, in the order in which they ended."""
        ended = [trial for trial in self.trials if trial.state in {"complete", "pruned", "failed"}]
        return tuple(sorted(ended, key=lambda trial: (trial.ended or 0.0, trial.number)))

    @property
    def counted(self) -> tuple[TrialRecord, ...]:
        """Those of `finished` that count in the budget: a retry has the place of the failed trial that it repeats."""
        superseded = {trial.retry_of for trial in self.trials if trial.retry_of is not None}
        return tuple(trial for trial in self.finished if trial.number not in superseded)

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Complete trials, in the order of their numbers."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    def best(self, count: int = 1) -> tuple[TrialRecord, ...]:
        """The ``count`` best complete trials by the first objective, best first."""
        sign = -1.0 if self.directions[0] == "maximize" else 1.0
        ranked = sorted(self.complete, key=lambda trial: (sign * (trial.values or (0.0,))[0], trial.number))
        return tuple(ranked[:count])
