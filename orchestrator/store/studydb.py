"""The study database as the driver uses it: ask, note, report, tell, and the records that readers see.

Every method blocks and may be called from any thread; one at a time gets in. Each is safe to be cut
off at any point: a trial is there whole or not at all, and why a trial ended is on disk before its state.
A server that is away is waited for (`orchestrator.store.patience`); what is in memory can be read meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self, TypeVar

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
    watched,
)
from orchestrator.store.definition import belong_to, find_or_make, refuse_older
from orchestrator.store.lease import Holder
from orchestrator.store.mirror import MirrorStorage
from orchestrator.store.patience import Patience
from orchestrator.store.serverlock import DRIVER
from orchestrator.store.trials import (
    RETRY_OF,
    SEAL,
    STATES,
    WORDS,
    checked_ending,
    last_value,
    own,
    retries,
    trial_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from pathlib import Path

    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from orchestrator.model import Json
    from orchestrator.store.record import TrialRecord

__all__ = ["StudyDatabase", "read_trials"]

T = TypeVar("T")


class StudyDatabase:
    """One study in its database, open for the one driver that holds the lease; made by `open`."""

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
        patience: Patience,
        url: str | None,
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
        self._patience = patience
        self._in_place = watched(local_file(url, root))
        self._lock = threading.RLock()
        self._asking = threading.Lock()

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
        on_wait: Callable[[str, bool], object] | None = None,
        storage: BaseStorage | None = None,
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
        on_wait : callable, optional
            See `orchestrator.store.patience.Patience`. A server that is away now is not waited for.
        storage : BaseStorage, optional
            An open storage in place of that of ``url``, as in memory.

        Raises
        ------
        ResumeMismatch
            The database holds another study, or this one with another definition.
        HeldByAnother
            A driver from elsewhere works on this study of the server.
        Paused, UsageError
            The database cannot be opened, or is older than the ledger beside it.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        place = describe(url, root)
        guard()
        real = open_storage(url, root, study=name) if storage is None else storage
        try:
            with explained(place):
                alone = local_file(url, root) is not None
                study_id = find_or_make(real, name, list(directions), definition, place, alone=alone)
                if not alone:
                    belong_to(root, real, study_id, name, place)
                    real.set_study_user_attr(study_id, DRIVER, str(Holder.myself(0, now())))
                mirror = MirrorStorage(real, study_id, now=now)
            refuse_older(root, len(mirror.get_all_trials(study_id, deepcopy=False)), place)
        except BaseException:
            close_storage(real)
            raise
        return cls(
            mirror, real, name=name, root=root, place=place, guard=guard, now=now, patience=Patience(on_wait), url=url
        )

    def stop_waiting(self) -> None:
        """Have nobody wait for a server that is away any more; may be called from any thread, never blocks."""
        self._patience.end()

    def close(self) -> None:
        """Let go of the database."""
        self.stop_waiting()
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

    def _write(self, step: Callable[[], T]) -> T:
        """Do a step that may be repeated; the lock is free while a server is waited for."""
        return self._patience.outlast(lambda: self._guarded(step))

    def _guarded(self, step: Callable[[], T]) -> T:
        with self._lock:
            self._guard()
            self._in_place()
            return self._read_now(step)

    def _read(self, step: Callable[[], T]) -> T:
        return self._patience.outlast(lambda: self._read_now(step))

    def _read_now(self, step: Callable[[], T]) -> T:
        with self._lock, explained(self._place):
            self._mirror.refresh()
            return step()

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
        with self._asking:
            number, params = self._write(lambda: self._propose(sampler, suggest, attributes or {}))
            try:
                # The guard once more: a model's fit may have taken long.
                self._write(self._mirror.commit)
            except BaseException:
                with self._lock:
                    self._mirror.discard()
                raise
            with self._lock:
                self._handed.add(number)
            return number, params

    def _propose(
        self,
        sampler: BaseSampler,
        suggest: Callable[[optuna.Trial], dict[str, Any]],
        attributes: Mapping[str, Json],
    ) -> tuple[int, dict[str, Any]]:
        """Find a running trial that nobody was told of, or make what the sampler says a draft."""
        for number, params in self._running(without=self._handed):
            return number, params
        study = optuna.study.Study(self._name, self._mirror, sampler=sampler, pruner=optuna.pruners.NopPruner())
        begun = time.perf_counter()
        try:
            trial = study.ask()
            params = dict(suggest(trial))
            survey: dict[str, Json] = {**attributes, "created": self._now()}
            if params != trial.params:
                survey["params"] = params
            trial.set_user_attr("ask_seconds", round(time.perf_counter() - begun, 6))
            trial.set_user_attr(SEAL, survey)
        except BaseException:
            self._mirror.discard()
            raise
        return trial.number, params

    @property
    def next_number(self) -> int:
        """Number of the trial that the next `ask` will give."""
        return self._read(self._find_next)

    def _find_next(self) -> int:
        for number, _ in self._running():
            if number not in self._handed:
                return number
        trials = self._trials()
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        return waiting[0] if waiting else len(trials)

    def note(self, number: int, name: str, value: Json) -> None:
        """Write one attribute of a running trial: one transition, one transaction."""
        self._write(lambda: self._mirror.set_trial_user_attr(self._known(number), name, value))

    def report(self, number: int, step: int, value: float) -> None:
        """Write the value of a running trial at a step (an epoch, a rung)."""
        self._write(lambda: self._mirror.set_trial_intermediate_value(self._known(number), step, float(value)))

    def would_prune(self, pruner: BasePruner, number: int, step: int, value: float) -> bool:
        """Whether one of Optuna's pruners ends a running trial by a report that is about to be written.

        The pruner may note in the trial what it has decided.
        """

        def judge() -> bool:
            trial = own(self._mirror.get_trial(self._known(number)))
            trial.intermediate_values[step] = value
            return pruner.prune(optuna.study.Study(self._name, self._mirror, pruner=pruner), trial)

        return self._write(judge)

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
            Of a ``pruned`` trial the last one that it reported, unless they are given.
        attributes : mapping, optional
            ``outcome``, ``metrics``, ``info``; what is empty is not written.

        Raises
        ------
        ValueError
            If a value is not finite, or their number or the state is wrong.
        SurveyError
            If the trial has ended otherwise before. Telling the same again does nothing.
        """
        told = checked_ending(number, state, values, len(self._mirror.get_study_directions(self._study_id)))
        kept = {name: value for name, value in (attributes or {}).items() if value not in (None, "", {}, [])}
        self._write(lambda: self._end(number, state, told, kept))

    def _end(self, number: int, state: str, told: list[float] | None, attributes: Mapping[str, Json]) -> None:
        trial = self._mirror.get_trial(self._known(number))
        if state == "pruned" and told is None and (last := last_value(trial)) is not None:
            told = [last]  # as `optuna.Study.tell` does
        if not trial.state.is_finished():
            self._mirror.finish_trial(number, attributes, STATES[state], told)
        elif (trial.state, trial.values) != (STATES[state], told):
            raise SurveyError(
                f"trial {number} of study {self._name!r} is {WORDS[trial.state]} with {trial.values}"
                f" and cannot become {state} with {told}",
                hint="a finished trial stays as it is",
            )

    def enqueue(self, params: Mapping[str, Json], *, retry_of: int | None = None) -> int:
        """Have one of the next asks take these parameters; what they leave out is sampled.

        ``retry_of`` names the trial whose place of the budget the new one takes; returns its number.
        """
        attributes = {} if retry_of is None else {RETRY_OF: retry_of}

        def step() -> int:
            known = retries(self._trials())
            if retry_of in known:  # a write whose answer was lost is done again
                return known[retry_of]
            optuna.study.Study(self._name, self._mirror).enqueue_trial(dict(params), attributes)
            return len(self._trials()) - 1

        return self._write(step)

    # --- what there is

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """List running trials with their parameters: what a driver takes up again after a stop."""
        return self._read(self._take_up)

    def _take_up(self) -> list[tuple[int, dict[str, Any]]]:
        running = self._running()
        self._handed.update(number for number, _ in running)
        return running

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state, in the words of `TrialRecord.state`; without those that were asked for again."""
        with self._lock:
            again = retries(trials := self._trials())
            return Counter(WORDS[trial.state] for trial in trials if trial.number not in again)

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
        return self._write(lambda: backup(self._real, self._root))

    def _trials(self) -> list[FrozenTrial]:
        return self._mirror.get_all_trials(self._study_id, deepcopy=False)

    def _running(self, *, without: Container[int] = ()) -> list[tuple[int, dict[str, Any]]]:
        return [
            (trial.number, dict(trial.user_attrs.get(SEAL, {}).get("params", trial.params)))
            for trial in self._trials()
            if trial.state == TrialState.RUNNING and trial.number not in without
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
