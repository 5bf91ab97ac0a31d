"""The look at a study: whether its database, its ledger, its lease and its results agree. It writes nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.config.units import format_duration
from orchestrator.doctor.far_side import room
from orchestrator.doctor.findings import Finding, error, of_error, ok, some, warn
from orchestrator.doctor.folders import judge_room
from orchestrator.errors import SurveyError
from orchestrator.search.ending import mean
from orchestrator.search.layout import StudyFolder, trial_number
from orchestrator.store.atomic import read_bytes, read_json
from orchestrator.store.database import BACKUP, DATABASE, describe, local_file
from orchestrator.store.lease import EXPIRY, read_holder
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord
from orchestrator.store.snapshot import SNAPSHOT
from orchestrator.store.studydb import read_trials
from orchestrator.studies.reader import trial_directory

if TYPE_CHECKING:
    from orchestrator.config.site import Site
    from orchestrator.model import Attempt, Outcome
    from orchestrator.store.record import TrialRecord

__all__ = ["examine_study"]

_OLD_SNAPSHOT = 120.0  # seconds; a driver publishes every few
_RESUME = "run the study again: it takes up what was left"


def examine_study(root: Path, *, now: float) -> list[Finding]:
    """Look at the study in the folder ``root``."""
    check = _Check(folder=StudyFolder(root), now=now)
    check.files()
    check.driver()
    check.snapshot()
    check.database()
    check.ledger()
    check.results()
    check.space()
    return check.found


@dataclass(slots=True)
class _Check:
    """What is known so far; each look adds to it and relies on what came before."""

    folder: StudyFolder
    now: float
    found: list[Finding] = field(default_factory=list)
    study: Study | None = None
    site: Site | None = None
    alive: bool = False
    record: StudyRecord | None = None
    trials: Sequence[TrialRecord] | None = None
    attempts: dict[str, tuple[Attempt, ...]] = field(default_factory=dict)

    def files(self) -> None:
        """study.yaml and site.yaml as they were frozen, and the events."""
        root = self.folder.root
        for name, path in (("study", self.folder.study), ("site", self.folder.site)):
            if name == "site" and not path.exists() and not list(Ledger(root).keys()):
                self.found.append(ok("files", "no site yet: no driver has worked on it"))
                continue
            try:
                if name == "study":
                    self.study = Study.load(path)
                else:
                    self.site = load_site(path)
            except SurveyError as failure:
                hint = "Put back the file that the study was begun with; `survey run` of it writes it anew."
                self.found.append(of_error(f"{name}.yaml", failure, hint))
        if self.study is not None and self.site is not None:
            self.found.append(ok("files", f"study {self.study.name} on site {self.site.name}, in {root}"))
        if not os.access(root, os.W_OK | os.X_OK):
            self.found.append(error("files", f"{root} cannot be written by you", "Mend its owner or its permissions."))
        torn = _torn_events(self.folder.events)
        if torn:
            text = f"events.jsonl: {torn} lines are torn; only plots of what happened when miss them"
            self.found.append(warn("files", text, "Nothing has to be done."))

    def driver(self) -> None:
        """The lease: by whom it is held, and whether that driver is alive."""
        try:
            holder, self.alive = read_holder(self.folder.root, now=self.now)
        except SurveyError as failure:
            self.found.append(of_error("driver", failure, "Mend the permissions of its folder lease/."))
            return
        if holder is None:
            self.found.append(ok("driver", "none has ever held the lease"))
        elif holder.released is not None:
            self.found.append(ok("driver", f"none; the last one was {holder}"))
        elif not self.alive:
            why = "it is dead" if holder.is_dead else f"no sign of life for {_ago(self.now, holder.renewed)}"
            self.found.append(warn("driver", f"{holder} did not give the lease back: {why}", f"To go on, {_RESUME}."))
        elif holder.is_here:
            self.found.append(ok("driver", f"{holder} is at work"))
        else:
            left = max(0.0, EXPIRY - (self.now - holder.renewed))
            text = f"{holder}, last sign of life {_ago(self.now, holder.renewed)} ago, holds the lease"
            if self.now - holder.renewed < EXPIRY / 3:
                self.found.append(ok("driver", text))
            else:
                hint = f"See on {holder.host} whether it runs; if it does not, the lease expires in {left:.0f} s."
                self.found.append(warn("driver", text, hint))

    def snapshot(self) -> None:
        """What readers see: whether it can be read, and how old it is."""
        path = self.folder.root / SNAPSHOT
        if not path.exists():
            if self.alive:
                self.found.append(ok("snapshot", "none yet; the driver is just starting"))
            return
        data = read_json(path)
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            self.record = None if data is None else StudyRecord.from_json(data)
        if self.record is None:
            hint = "The driver writes it anew; without one, `survey status` reads the database."
            self.found.append(warn("snapshot", f"{path} cannot be read by this version", hint))
            return
        age = self.now - self.record.updated
        text = f"{self.record.state}, {format_duration(max(0.0, round(age)))} old"
        if self.alive and age > _OLD_SNAPSHOT:
            hint = "Does the driver hang, or the file system? See its terminal; end it with kill -INT and run again."
            self.found.append(warn("snapshot", f"{text}, although a driver is alive", hint))
        else:
            self.found.append(ok("snapshot", text))

    def database(self) -> None:
        """Whether the database opens and is whole; its trials."""
        if self.study is None:
            return
        if self.alive:
            self.trials = self.record.trials if self.record is not None else None
            self.found.append(ok("database", "the driver has it; trials are those of the snapshot"))
            return
        root, path = self.folder.root, None
        try:
            url = self.study.storage_url()
            path, place = local_file(url, root), describe(url, root)
            if path is not None and path.is_file() and not (url or "").startswith("journal:"):
                self._integrity(path)
            self.trials = read_trials(root, name=self.study.name, url=url)
        except SurveyError as failure:
            hint = failure.hint or "See that the server is up, and the URL right."
            if path is not None:
                hint, spare = f"{self._rebuild()}; the old one is kept aside.", root / BACKUP
                if spare.is_file():
                    hint += f" Its copy {spare} is {_ago(self.now, spare.stat().st_mtime)} old."
            self.found.append(error("database", failure.message, hint))
            return
        except OSError as failure:
            self.found.append(error("database", f"{failure}", "See whether its file system is well."))
            return
        counts = {state: sum(trial.state == state for trial in self.trials) for state in _STATES}
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials"
        self.found.append(ok("database", f"{place}: whole; {shown}"))

    def _integrity(self, path: Path) -> None:
        """Check a copy: neither a lock nor the rollback of a killed driver touches the study's own file."""
        with tempfile.TemporaryDirectory(prefix="survey-doctor-") as folder:
            copy = Path(folder) / path.name
            for suffix in ("", "-journal"):
                source = path.with_name(path.name + suffix)
                if source.is_file():
                    shutil.copyfile(source, copy.with_name(copy.name + suffix))
            try:
                with contextlib.closing(sqlite3.connect(copy)) as connection:
                    said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            except sqlite3.Error as failure:
                said = [str(failure)]
        if said != ["ok"]:
            raise SurveyError(f"the study database {path} is damaged: {some(said, 2)}")

    def _rebuild(self) -> str:
        return f"`survey doctor {self.folder.root} --rebuild` makes it again from the attempt files"

    def ledger(self) -> None:
        """Attempts against trials: each running trial has one, each that ended has its outcome."""
        ledger = Ledger(self.folder.root)
        try:
            keys = ledger.keys()
        except SurveyError as failure:
            self.found.append(of_error("ledger", failure, "Mend its permissions."))
            return
        broken = 0
        for key in keys:
            try:
                self.attempts[key] = ledger.attempts(key)
            except SurveyError as failure:
                broken += 1
                hint = "Restore it; or see with the scheduler that its job is gone, and move the file away."
                self.found.append(of_error("ledger", failure, hint))
                continue
            numbers = [attempt.number for attempt in self.attempts[key]]
            if missing := sorted(set(range(1, max(numbers) + 1)) - set(numbers)):
                text = f"trial {key}: attempt {some([str(number) for number in missing])} has no file"
                self.found.append(error("ledger", text, "Restore it from a backup: its job may still run."))
        if self.trials is None:
            return
        known = {trial.number: trial for trial in self.trials}
        attempted = {trial_number(key) for key in keys if key.split("/")[0].isdigit()}
        lines = self._trials(known, attempted)
        self.found += lines
        if not lines and not broken:
            flying = sum(attempts[-1].outcome is None for attempts in self.attempts.values())
            count = sum(map(len, self.attempts.values()))
            self.found.append(ok("ledger", f"{count} attempts agree with the trials; {flying} in flight"))

    def _trials(self, known: Mapping[int, TrialRecord], attempted: set[int]) -> list[Finding]:
        lines = []
        running = [number for number, trial in known.items() if trial.state == "running"]
        if (never := [number for number in running if number not in attempted]) and not self.alive:
            text = f"{_trials(never)} asked for, never planned: the driver was stopped between the two"
            lines.append(warn("ledger", text, f"To go on, {_RESUME}."))
        ended = {number for number, trial in known.items() if trial.state in {"complete", "failed", "pruned"}}
        elsewhere = {number for number, trial in known.items() if "imported_from" in trial.info}
        if alone := sorted(ended - attempted - elsewhere):
            text = f"{_trials(alone)} ended by the database, without a single attempt"
            lines.append(error("ledger", text, "Restore the folder ledger/ from a backup of the same day."))
        # A live driver's snapshot is a little older than its ledger.
        if (strange := sorted(attempted - set(known))) and not self.alive:
            text = f"{_trials(strange)} of the ledger not in the database: is the database older than the ledger?"
            lines.append(error("ledger", text, f"Put the latest {DATABASE} back; or {self._rebuild()}."))
        open_ended, untold, different = [], [], []
        for number, outcomes in self._outcomes().items():
            if (trial := known.get(number)) is None:
                continue
            if number in ended and None in outcomes:
                open_ended.append(number)
            elif trial.state == "running" and None not in outcomes and self._is_over(outcomes):
                untold.append(number)
            elif trial.state == "complete" and not self._agree(trial, [each.metrics for each in outcomes if each]):
                different.append(number)
        if open_ended:
            text = f"{_trials(open_ended)} ended by the database, and in flight by the ledger"
            lines.append(error("ledger", text, "Restore the folder ledger/ from a backup of the same day."))
        if untold and not self.alive:
            text = f"{_trials(untold)} ended, and the database was not told: the driver was stopped between the two"
            lines.append(warn("ledger", text, f"To go on, {_RESUME}."))
        if different:
            text = f"{_trials(different)} with other values in the database than in the ledger"
            lines.append(error("values", text, f"The ledger has what was measured: {self._rebuild()}."))
        return lines

    def _outcomes(self) -> dict[int, list[Outcome | None]]:
        """How the last attempts of each trial's runs ended, None for those in flight."""
        found: dict[int, list[Outcome | None]] = {}
        for key, attempts in self.attempts.items():
            if attempts and key.split("/")[0].isdigit():
                found.setdefault(trial_number(key), []).append(attempts[-1].outcome)
        return found

    def _is_over(self, outcomes: Sequence[Outcome | None]) -> bool:
        """Whether nothing more of a trial is to be run: all its runs have ended, or one without a result."""
        lost = any(outcome is not None and not outcome.succeeded for outcome in outcomes)
        return lost or self.study is None or len(outcomes) == self.study.repeats

    def _agree(self, trial: TrialRecord, measured: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a trial's values are those that were measured, of several runs their means."""
        if self.study is None or trial.values is None:
            return True
        for item, told in zip(self.study.targets, trial.values, strict=False):
            values = [float(metrics[item.metric]) for metrics in measured if metrics.get(item.metric) is not None]
            if values and not math.isclose(mean(values), told, rel_tol=1e-12, abs_tol=1e-300):
                return False
        return len(self.study.targets) == len(trial.values)

    def results(self) -> None:
        """The attempts' own files, where the work root can be seen from here."""
        if self.site is None or self.study is None or not self.attempts:
            return
        if self.site.transport.kind != "local":
            self.found.append(ok("results", f"lie on site {self.site.name}; they are not compared from here"))
            return
        gone: list[str] = []
        lost: list[str] = []
        differ: list[str] = []
        compared = 0
        for key, attempts in self.attempts.items():
            if not attempts:
                continue
            last = attempts[-1]
            try:
                directory = trial_directory(self.folder.root, last)
            except SurveyError as failure:
                self.found.append(of_error("results", failure, "Mend site.yaml in the study's folder."))
                return
            if not directory.is_dir():
                (gone if last.outcome is not None else lost).append(key)
                continue
            if last.outcome is None:
                if last.job_id is not None and not (directory / "job.json").is_file():
                    lost.append(key)
                continue
            if last.outcome.succeeded and (measured := _measured(directory)) is not None:
                compared += 1
                if any(measured.get(name) != value for name, value in last.outcome.metrics.items()):
                    differ.append(key)
        self.found += _of_results(gone, lost, differ, compared)

    def space(self) -> None:
        """Room for what is to come."""
        try:
            facts = room(str(self.folder.root))
        except OSError as failure:
            self.found.append(error("space", f"{failure}", "See whether its file system is well."))
            return
        self.found += judge_room(facts)


_STATES = ("complete", "pruned", "failed", "running", "paused", "waiting")


def _of_results(gone: Sequence[str], lost: Sequence[str], differ: Sequence[str], compared: int) -> list[Finding]:
    lines = []
    if lost:
        text = f"the folders of attempts in flight are gone or empty: {some(lost)}"
        hint = "Was a scratch area tidied up? Their jobs count as lost after a while, and are tried again."
        lines.append(error("results", text, hint))
    if differ:
        text = f"result.json has other numbers than the ledger: {some(differ)}"
        lines.append(
            error("results", text, "The ledger has what was read when the trial ended. Who changed the files?")
        )
    if gone:
        text = f"the folders of {len(gone)} ended attempts are gone ({some(gone, 3)}); their values are safe"
        lines.append(warn("results", text, "Models and artifacts of these trials cannot be exported any more."))
    if not differ:
        lines.append(ok("results", f"{compared} result.json compared with the ledger, none differs"))
    return lines


def _measured(directory: Path) -> Mapping[str, Any] | None:
    """Metrics of ``result.json``; None where there is none (metrics may be read from other files)."""
    try:
        data = json.loads(read_bytes(directory / "result.json") or b"null")
    except (OSError, ValueError):
        return None
    metrics = data.get("metrics") if isinstance(data, dict) else None
    return metrics if isinstance(metrics, dict) else None


def _torn_events(path: Path) -> int:
    torn = 0
    try:
        with path.open("rb") as stream:
            for line in stream:
                try:
                    json.loads(line)
                except ValueError:
                    torn += 1
    except OSError:
        return 0
    return torn


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {some([str(number) for number in numbers])}:"


def _ago(now: float, then: float) -> str:
    return format_duration(max(0.0, round(now - then)))
