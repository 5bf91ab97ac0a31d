"""Searches on a table of real trainings, by the driver that users run, in virtual time: one JSON line each.

What is measured is `orchestrator.simulate`'s study: the unchanged driver, samplers and store on an emulated cluster whose
jobs wait in a queue, each training looked up in the table, or interpolated between its rows. A line holds, by
trial, the value, what the configuration comes to on average over the table's seeds, and the times.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from versions import versions

from orchestrator.config.study import Study
from orchestrator.simulate.study_model import Machine, simulate_arm
from orchestrator.simulate.surrogate import Neighbours
from orchestrator.simulate.table import read_table
from orchestrator.simulate.times import parse_times
from orchestrator.store.record import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from orchestrator.simulate.study_model import Arm as Simulated
    from orchestrator.simulate.table import Table

__all__ = ["SAMPLERS", "Key", "Searches", "Setting", "begun_with", "load", "record"]

Key: TypeAlias = tuple[str, int, int]  # sampler, parallel, repeat

# A sampler is what `sampler:` of a study says; with Optuna's defaults, `tpe` is Optuna 5's and `tpe4` what it was in 4.
SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bo": ("bo", {}),
    "tpe": ("tpe", {}),
    "tpe4": ("tpe", {"multivariate": False, "constant_liar": False}),
    "gp": ("gp", {}),
    "cmaes": ("cmaes", {}),
    "skopt": ("skopt", {}),
    "random": ("random", {}),
}
WARM_UP = 3  # trials that must be complete before a model chooses, as in the experiment that is repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all searches of a file have in common.

    Attributes
    ----------
    study, table : Path
        The study whose space is searched, and its trainings.
    seconds : str
        The table's column of run times.
    stretch : float
        A training takes so many times as long as it did.
    queue_wait : str
        Of each job, in the words of ``survey simulate --queue-wait``.
    rows : int or None
        So many of the table's first trainings only, for one that still grows.
    """

    study: Path
    table: Path
    seconds: str = "cpu_seconds"
    stretch: float = 1200.0
    queue_wait: str = "lognormal:30m:1.2"
    trials: int = 50
    rows: int | None = None

    def about(self, table: Table) -> dict[str, Any]:
        """The first line of a file: what all of its searches share."""
        told = json.dumps([[row.params, row.metrics, row.seconds] for row in table.rows])
        return {
            "study": self.study.parent.name,
            "table": self.table.name,
            "checksum": hashlib.sha256(told.encode()).hexdigest()[:16],
            "rows": len(table.rows),
            "seconds": self.seconds,
            "stretch": self.stretch,
            "queue_wait": self.queue_wait,
            "trials": self.trials,
            "warm_up": WARM_UP,
        }


class Searches:
    """The table with a machine around it: runs searches, and appends each to a file as it ends."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        study = Study.load(setting.study)
        table = _first(read_table(setting.table, study, seconds=setting.seconds), setting.rows)
        took = sorted(row.seconds for row in table.rows if row.seconds is not None)
        # One GPU, so that hours are counted; a trial needs no more of the study's resources here.
        resources = study.resources.model_copy(update={"gpus": 1})
        self._study = study.model_copy(update={"trials": setting.trials, "resources": resources})
        self._model = Neighbours(table, study.space, study.targets[0].metric)
        self._typical = took[len(took) // 2] * setting.stretch
        self._machine = Machine(
            queue_wait=parse_times(setting.queue_wait, "wait", "--queue-wait"), stretch=setting.stretch
        )
        self._seeds = table.repeats
        self.about = setting.about(table)

    @property
    def fit(self) -> float:
        """Rank correlation of left-out configurations with their prediction."""
        return self._model.fit

    def run(
        self,
        path: Path,
        *,
        samplers: Sequence[str],
        parallel: Sequence[int],
        repeats: int,
        said: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run what ``path`` lacks, repeat by repeat, so that what is there at any moment is balanced."""
        done = load(path, self.about)
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            if torn:
                out.write("\n")
            if not done and path.stat().st_size == 0:
                out.write(json.dumps({"about": self.about}) + "\n")
            for repeat, slots, name in itertools.product(range(1, repeats + 1), parallel, samplers):
                if (name, slots, repeat) in done:
                    continue
                row = self._search(name, slots, repeat)
                out.write(json.dumps(row) + "\n")
                out.flush()
                best = max((value for value in row["values"] if value is not None), default=float("nan"))
                said(f"{name} N={slots} repeat {repeat}: best {best:.4f}")

    def _search(self, name: str, slots: int, repeat: int) -> dict[str, Any]:
        sampler, options = SAMPLERS[name]
        chosen = self._study.sampler.model_copy(
            update={"name": sampler, "options": dict(options), "startup_trials": WARM_UP}
        )
        arm = simulate_arm(
            self._study.model_copy(update={"sampler": chosen}),
            self._model.expect,
            self._machine,
            way="asynchronous",
            parallel=slots,
            repeat=repeat,
            typical=self._typical,
        )
        return {"sampler": name, "parallel": slots, "repeat": repeat, **self._columns(arm), "versions": versions(name)}

    def _columns(self, arm: Simulated) -> dict[str, Any]:
        """One list for each thing, by the trials' numbers; times in seconds since the first trial was made."""
        trials = arm.record.trials
        began = min(trial.created for trial in trials if trial.created is not None)

        def since(times: Sequence[float | None]) -> list[int | None]:
            return [None if time is None else round(time - began) for time in times]

        return {
            "values": [_rounded(trial.values[0]) if trial.values else None for trial in trials],
            "on_average": [_rounded(self._on_average(trial)) if trial.values else None for trial in trials],
            "created": since([trial.created for trial in trials]),
            "started": since([trial.started for trial in trials]),
            "ended": since([trial.ended for trial in trials]),
        }

    def _on_average(self, trial: TrialRecord) -> float:
        """The objective over the table's seeds, whichever of them the trial met."""
        metric = self._study.targets[0].metric
        found = [self._model.repeat(trial.params, index) for index in range(self._seeds)]
        known = [each.metrics[metric] for each in found if each.metrics is not None]
        return sum(known) / len(known)


def begun_with(path: Path) -> int | None:
    """How many trainings the searches of a file were made with; None where it has none yet."""
    try:
        with path.open(encoding="utf-8") as lines:
            return int(json.loads(next(lines))["about"]["rows"])
    except (OSError, StopIteration, ValueError, KeyError, TypeError):
        return None


def load(path: Path, about: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    """Read the searches of a file; a last line that was cut short is passed over.

    Raises
    ------
    ValueError
        If the file's searches were made with another table or another machine.
    """
    found: dict[Key, Mapping[str, Any]] = {}
    if not path.exists():
        return found
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "about" in row:
            changed = [key for key, value in about.items() if row["about"].get(key) != value]
            if changed:
                was = ", ".join(f"{key} {row['about'].get(key)} (now {about[key]})" for key in changed)
                raise ValueError(f"{path}: its searches were made with {was}; write to another file by --out")
            continue
        found[row["sampler"], row["parallel"], row["repeat"]] = row
    return found


def record(row: Mapping[str, Any], *, objective: str, direction: str, values: str = "values") -> StudyRecord:
    """The search as a study's record, for the reports; ``values`` may be ``on_average``."""
    columns = zip(row["values"], row[values], row["created"], row["started"], row["ended"], strict=True)
    trials = tuple(
        TrialRecord(
            number=number,
            state="failed" if value is None else "complete",
            values=None if value is None else (shown,),
            gpus=("0",),
            created=float(created),
            started=None if started is None else float(started),
            ended=float(ended),
        )
        for number, (value, shown, created, started, ended) in enumerate(columns)
    )
    return StudyRecord(
        name=f"{row['sampler']}-n{row['parallel']}-r{row['repeat']}",
        objectives=(objective,),
        directions=(direction,),
        space={},
        sampler={"name": row["sampler"]},
        planned=len(trials),
        parallel=row["parallel"],
        site="simulated",
        state="done",
        trials=trials,
    )


def _first(table: Table, count: int | None) -> Table:
    rows = table.rows[:count]
    repeats = Counter(json.dumps(row.params, sort_keys=True) for row in rows)
    return dataclasses.replace(table, rows=rows, repeats=max(repeats.values()))


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
