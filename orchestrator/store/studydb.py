"""The study database as the driver uses it: ask, note, report, tell, and the records that readers see.

Every method blocks and may be called from any thread; one at a time gets in. Each is safe to be cut
off at any point: a trial is there whole or not at all, and why a trial ended is on disk before its state.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import SurveyError
from orchestrator.store.database import (
    backup,
    close_storage,
    describe,
    explained,
    local_file,
    open_for_reading,
    open_storage,
)
from orchestrator.store.definition import find_or_make
from orchestrator.store.mirror import MirrorStorage
from orchestrator.store.trials import SEAL, STATES, WORDS, trial_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from orchestrator.model import Json
    from orchestrator.store.record import TrialRecord

__all__ = ["StudyDatabase", "read_trials"]


class StudyDatabase:
    """One study in its database, open for the one driver that holds the lease.

    Make it with `StudyDatabase.open`.
    """

    def __init__(
        self,
        mirror: MirrorStorage,
        real: BaseStorage,
        *,
        name: str,
        root: Path,
        place: str,
        guard: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._mirror = mirror
        self._real = real
        self._name = name
        self._root = root
        self._place = place
        self._guard = guard
        self._now = now
        self._study_id = mirror.get_study_id_from_name(name)
        self._handed: set[int] = set()
        self._records: dict[int, TrialRecord] = {}
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        name: str,
        directions: Sequence[str],
        url: str | None = None,
        definition: Mapping[str, Json],
        guard: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> Self:
        """Open the study, or make it.

        Parameters
        ----------
        root : Path
            The study's folder.
        directions : sequence of str
            ``maximize`` or ``minimize`` for each objective.
        url : str, optional
            See `orchestrator.store.database.open_storage`.
        definition : mapping
            What may not change as long as the study lives (its space, its objectives); plain JSON.
        guard : callable
            Called before each write; raises if the lease is lost.
        now : callable
            Seconds since the epoch.

        Raises
        ------
        ResumeMismatch
            The database holds another study, or this one with another definition.
        Paused, UsageError
            The database cannot be opened.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        place = describe(url, root)
        guard()
        real = open_storage(url, root)
        try:
            with explained(place):
                alone = local_file(url, root) is not None
                study_id = find_or_make(real, name, list(directions), definition, place, alone=alone)
                mirror = MirrorStorage(real, study_id, now=now)
        except BaseException:
            close_storage(real)
            raise
        return cls(mirror, real, name=name, root=root, place=place, guard=guard, now=now)

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            close_storage(self._real)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def storage(self) -> MirrorStorage:
        """The storage, for an `optuna.Study` of one's own (grid exhaustion, importances)."""
        return self._mirror

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._guard()
            with explained(self._place):
                self._mirror.refresh()
                yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, explained(self._place):
            self._mirror.refresh()
            yield

    # --- the life of a trial

    def ask(
        self,
        sampler: BaseSampler,
        suggest: Callable[[optuna.Trial], dict[str, Any]],
        attributes: Mapping[str, Json] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Have a sampler propose a trial and write it whole, in one transaction.

        A running trial that nobody was told of (its ask was cut off after the write) is handed out
        first, so that no intent is lost and none is counted twice.

        Parameters
        ----------
        sampler : BaseSampler
            A fresh one, seeded by study seed and `next_number`.
        suggest : callable
            Walks the space with ``trial.suggest_*`` and returns the parameters, constants included.
        attributes : mapping, optional
            Kept with the trial in its ``survey`` attribute.

        Returns
        -------
        number, params
            The trial, now running.
        """
        with self._writing():
            for number, params in self._running():
                if number not in self._handed:
                    self._handed.add(number)
                    return number, params
            study = optuna.study.Study(self._name, self._mirror, sampler=sampler, pruner=optuna.pruners.NopPruner())
            begun = time.perf_counter()
            try:
                trial = study.ask()
                params = dict(suggest(trial))
                survey: dict[str, Json] = {**(attributes or {}), "created": self._now()}
                if params != trial.params:
                    survey["params"] = params
                trial.set_user_attr("ask_seconds", round(time.perf_counter() - begun, 6))
                trial.set_user_attr(SEAL, survey)
                self._guard()  # a model's fit may have taken long
                self._mirror.commit()
            except BaseException:
                self._mirror.discard()
                raise
            self._handed.add(trial.number)
            return trial.number, params

    @property
    def next_number(self) -> int:
        """Number of the trial that the next `ask` will give."""
        with self._reading():
            for number, _ in self._running():
                if number not in self._handed:
                    return number
            trials = self._trials()
            waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
            return waiting[0] if waiting else len(trials)

    def note(self, number: int, name: str, value: Json) -> None:
        """Write one attribute of a running trial: one transition, one transaction."""
        with self._writing():
            self._mirror.set_trial_user_attr(self._known(number), name, value)

    def report(self, number: int, step: int, value: float) -> None:
        """Write the value of a running trial at a step (an epoch, a rung)."""
        with self._writing():
            self._mirror.set_trial_intermediate_value(self._known(number), step, float(value))

    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Json] | None = None,
    ) -> None:
        """End a trial: its attributes (why it ended) before or together with its state.

        Parameters
        ----------
        state : str
            ``complete``, ``failed`` or ``pruned``.
        values : sequence of float or None
            Objective values, finite, one for each direction; needed by ``complete``, refused by ``failed``.
        attributes : mapping, optional
            ``outcome``, ``metrics``, ``info``; what is empty is not written.

        Raises
        ------
        ValueError
            If a value is not finite, or their number or the state is wrong.
        SurveyError
            If the trial has ended otherwise before. Telling the same again does nothing.
        """
        if state not in {"complete", "failed", "pruned"}:
            raise ValueError(f"a trial ends complete, failed or pruned, not {state!r}")
        told = None if values is None else [float(value) for value in values]
        if told is not None:
            if not all(math.isfinite(value) for value in told):
                raise ValueError(f"trial {number}: objective values must be finite numbers, not {told}")
            if len(told) != len(self._mirror.get_study_directions(self._study_id)):
                raise ValueError(f"trial {number}: {len(told)} values for another number of objectives")
        if (state == "complete" and told is None) or (state == "failed" and told is not None):
            raise ValueError(f"trial {number}: {state} goes {'with' if told is None else 'without'} values")
        with self._writing():
            trial = self._mirror.get_trial(self._known(number))
            if trial.state.is_finished():
                if trial.state == STATES[state] and trial.values == told:
                    return
                raise SurveyError(
                    f"trial {number} of study {self._name!r} is {WORDS[trial.state]} with {trial.values}"
                    f" and cannot become {state} with {told}",
                    hint="a finished trial stays as it is",
                )
            kept = {name: value for name, value in (attributes or {}).items() if value not in (None, "", {}, [])}
            self._mirror.finish_trial(number, kept, STATES[state], told)

    def enqueue(self, params: Mapping[str, Json]) -> None:
        """Have one of the next asks take these parameters; what they leave out is sampled."""
        with self._writing():
            study = optuna.study.Study(self._name, self._mirror)
            study.enqueue_trial(dict(params))

    # --- what there is

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """List running trials with their parameters: what a driver takes up again after a stop."""
        with self._reading():
            running = self._running()
            self._handed.update(number for number, _ in running)
            return running

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state, in the words of `TrialRecord.state`."""
        with self._lock:
            return Counter(WORDS[trial.state] for trial in self._trials())

    def trials(self) -> Sequence[FrozenTrial]:
        """Optuna's view of all trials by number; not to be changed."""
        with self._lock:
            return self._trials()

    def attributes(self, number: int) -> Mapping[str, Any]:
        """User attributes of a trial."""
        return self._mirror.get_trial(self._known(number)).user_attrs

    def record(self) -> tuple[TrialRecord, ...]:
        """All trials as readers see them; those of finished trials are the same objects each time."""
        with self._lock:
            records = []
            for trial in self._trials():
                known = self._records.get(trial.number)
                if known is None:
                    known = trial_record(trial)
                    if trial.state.is_finished():
                        self._records[trial.number] = known
                records.append(known)
            return tuple(records)

    def backup(self) -> Path | None:
        """Write ``study.db.backup`` (SQLite only; None otherwise)."""
        with self._writing():
            return backup(self._real, self._root)

    def _trials(self) -> list[FrozenTrial]:
        return self._mirror.get_all_trials(self._study_id, deepcopy=False)

    def _running(self) -> list[tuple[int, dict[str, Any]]]:
        return [
            (trial.number, dict(trial.user_attrs.get(SEAL, {}).get("params", trial.params)))
            for trial in self._trials()
            if trial.state == TrialState.RUNNING
        ]

    def _known(self, number: int) -> int:
        try:
            return self._mirror.get_trial(number).number
        except KeyError:
            raise SurveyError(f"study {self._name!r} has no trial {number}") from None


def read_trials(root: Path, *, name: str, url: str | None = None) -> tuple[TrialRecord, ...]:
    """Read a study's trials from its database, when no driver is alive; nothing is touched.

    Raises
    ------
    SurveyError
        There is no database, or no such study in it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with explained(describe(url, root)), open_for_reading(url, root) as real:
        try:
            study_id = real.get_study_id_from_name(name)
        except KeyError:
            raise SurveyError(f"{describe(url, root)} holds no study {name!r}") from None
        mirror = MirrorStorage(real, study_id)
        return tuple(trial_record(trial) for trial in mirror.get_all_trials(study_id, deepcopy=False))
