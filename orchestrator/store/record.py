"""A study as readers see it: plain records, made from the study database or from a snapshot.

Status, reports and exports read these and nothing else, so that reading never disturbs a driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.model import Json
from orchestrator.store.front import front, fronts

__all__ = ["SNAPSHOT_VERSION", "RunRecord", "StudyRecord", "TrialRecord"]

SNAPSHOT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One of a trial's several runs; ``verdict`` is None as long as it has not ended."""

    run: int
    verdict: str | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    job_id: str = ""
    site: str = ""
    host: str = ""
    max_rss: float | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    directory: str = ""
    info: Mapping[str, Json] = field(default_factory=dict)


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
    constraints : mapping
        By how much it is beyond each bound of the study, by the bound in words; zero or less where it keeps to it.
    steps : mapping
        Intermediate values by step.
    promoted : float or None
        When it was last taken up again after a pause.
    verdict, reason :
        Why it ended, in our word and in words.
    directory : str
        Folder of the last attempt, in the work root.
    used : mapping
        As of `StudyRecord`, of the trial's own attempts, once it has ended.
    spread : mapping
        Standard deviation of each metric over the trial's runs; ``metrics`` are the means.
    runs : tuple of RunRecord
        Those that were begun, of a trial that has several.
    """

    number: int
    state: str
    params: Mapping[str, Json] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
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
    used: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[RunRecord, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether it is complete and keeps to all bounds."""
        return self.state == "complete" and not any(amount > 0.0 for amount in self.constraints.values())

    @property
    def directories(self) -> tuple[str, ...]:
        """Folders of the last attempts of all its runs."""
        return tuple(run.directory for run in self.runs if run.directory) or (
            (self.directory,) if self.directory else ()
        )


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
    constraints : tuple of mapping
        Bounds of metrics: ``{"metric", "at_most", "at_least"}``.
    where : tuple of str
        Conditions between parameters that all trials meet.
    message : str
        Why it is paused, or was done before its budget was spent.
    used : mapping
        ``gpu_hours`` and ``node_hours`` of all attempts that have ended.
    slow_asks : int
        How often a slot has waited for its next trial's parameters for more than a second, under the latest driver.
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
    slow_asks: int = 0
    constraints: tuple[Mapping[str, Json], ...] = ()
    where: tuple[str, ...] = ()
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
            fields["runs"] = tuple(RunRecord(**run) for run in fields.get("runs", ()))
            fields["steps"] = {int(step): value for step, value in fields["steps"].items()}
            trials.append(TrialRecord(**fields))
        for name in ("objectives", "directions", "constraints", "where"):
            data[name] = tuple(data.get(name, ()))
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

    @property
    def feasible(self) -> tuple[TrialRecord, ...]:
        """Complete trials that keep to all bounds, in the order of their numbers; without bounds all complete ones."""
        return tuple(trial for trial in self.trials if trial.feasible and trial.values)

    @property
    def nothing_feasible(self) -> str:
        """Says in words that no complete trial keeps to all bounds, and which comes nearest; empty if one does."""
        if self.feasible or not self.complete:
            return ""
        nearest = min(self.complete, key=lambda trial: sum(max(0.0, amount) for amount in trial.constraints.values()))
        beyond = ", ".join(f"{words} by {amount:.4g}" for words, amount in nearest.constraints.items() if amount > 0.0)
        count = len(self.complete)
        none = f"none of {count} complete trials keeps" if count > 1 else "the one complete trial does not keep"
        return f"{none} to the constraints; the nearest, trial {nearest.number}, breaks {beyond}"

    def front(self) -> tuple[TrialRecord, ...]:
        """Feasible trials that no other one dominates, best first by the first objective: of one objective the best."""
        found = self.feasible
        on = front([trial.values or () for trial in found], self.directions)
        return tuple(sorted((found[place] for place in on), key=self._rank))

    def best(self, count: int = 1) -> tuple[TrialRecord, ...]:
        """The ``count`` best feasible trials, best first; of several objectives front by front, by the first of them."""
        found = self.feasible
        if len(self.directions) == 1:
            return tuple(sorted(found, key=self._rank)[:count])
        chosen: list[TrialRecord] = []
        for on in fronts([trial.values or () for trial in found], self.directions):
            chosen += sorted((found[place] for place in on), key=self._rank)
            if len(chosen) >= count:
                break
        return tuple(chosen[:count])

    def kept(self, count: int) -> tuple[TrialRecord, ...]:
        """Those that keep their files: the ``count`` best; of several objectives the whole front, unless count is 0."""
        several = len(self.directions) > 1 and count > 0
        return self.best(max(count, len(self.front())) if several else count)

    def _rank(self, trial: TrialRecord) -> tuple[float, int]:
        sign = -1.0 if self.directions[0] == "maximize" else 1.0
        return sign * (trial.values or (0.0,))[0], trial.number
