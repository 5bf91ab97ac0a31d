"""What a driver lets others see of its study: events as they happen, and snapshots for readers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.maintenance import Maintenance
from orchestrator.search.layout import StudyFolder, trial_number
from orchestrator.store.atomic import FILE_MODE, told_in_words
from orchestrator.store.readers import settled
from orchestrator.store.record import StudyRecord
from orchestrator.store.snapshot import publish

if TYPE_CHECKING:
    from orchestrator.clock import Clock
    from orchestrator.config.study import Study
    from orchestrator.jobs.fleet import Fleet
    from orchestrator.jobs.session import Event
    from orchestrator.model import Json
    from orchestrator.search.usage import Usage
    from orchestrator.store.record import TrialRecord
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["Chronicle", "study_record"]

_PAUSE = 1.0
_SHARE = 50.0
_SHOW_PAUSE = 5.0
_NEEDS = ("login", "room", "server")
"""Fields of "waiting" events that say, true or false, whether the study is held up by this."""


class Chronicle:
    """Writes ``events.jsonl`` and publishes ``snapshot.json``.

    Parameters
    ----------
    site : str
        What readers are told of where the study runs.
    listener : callable
        Called with each event.
    """

    def __init__(
        self, folder: StudyFolder, study: Study, *, site: str, clock: Clock, listener: Callable[[Event], None]
    ) -> None:
        self._folder = folder
        self._study = study
        self._site = site
        self._clock = clock
        self._listener = listener
        self._needed: dict[str, str] = {}  # what holds the study up, in words
        self._publishing = asyncio.Lock()
        self._unseen = False
        self._slow_asks = 0
        self._next = 0.0
        self.message = ""
        """Why the study does not go on, where it does not."""

    def begin(
        self,
        *,
        database: StudyDatabase,
        fleet: Fleet,
        usage: Usage,
        planned: int,
        provenance: Mapping[str, Json],
    ) -> None:
        """From now on snapshots can be made: of ``database``, with the ``fleet``'s word on jobs that are stuck."""
        self._database, self._fleet, self._usage = database, fleet, usage
        self._planned, self._provenance = planned, provenance

    @property
    def record(self) -> StudyRecord:
        """The study as it was last published."""
        return self._latest

    def event(self, name: str, **fields: Any) -> None:
        """Something happens in the search."""
        self.write({"time": self._clock.now(), "event": name, **fields})

    def write(self, event: Event) -> None:
        """Something has happened, here or in the session."""
        if event["event"] == "waiting":
            self._needed |= {need: event["message"] if event[need] else "" for need in _NEEDS if need in event}
        self._slow_asks += bool(event["event"] == "asked" and event["slow"])
        self._unseen = True
        path = self._folder.events
        with told_in_words(path), open(path, "a", encoding="utf-8", opener=_private) as file:
            file.write(json.dumps(event, default=str) + "\n")
        self._listener(event)

    async def publish(self, state: str, *, force: bool = False) -> StudyRecord:
        """Publish a snapshot, unless the last one is young and this one is not forced."""
        now = self._clock.now()
        if force or now >= self._next:
            begun = time.perf_counter()
            # Not in turn with the database's writes: readers are to see that its server is away.
            async with self._publishing:
                self._latest = await self._clock.blocking(lambda: self._snapshot(state, now))
            # A snapshot of a long study costs more: it takes at most a small share of the driver's time.
            self._next = now + max(_PAUSE, _SHARE * (time.perf_counter() - begun))
        return self._latest

    async def keep_shown(self) -> None:
        """Let readers see what is in flight: hours may lie between two results."""
        while True:
            await self._clock.sleep(_SHOW_PAUSE)
            if self._unseen:
                self._unseen = False
                # Cut off half-way, its thread could publish "running" after the last word was published.
                await asyncio.shield(self.publish("running"))

    def _snapshot(self, state: str, now: float) -> StudyRecord:
        needed = next(filter(None, self._needed.values()), "")
        record = study_record(
            self._study,
            self._with_stuck(self._database.record()),
            site=self._site,
            state="paused" if state == "running" and needed else state,
            message=self.message or needed or self._announced(state),
            root=self._folder.root,
            planned=self._planned,
            updated=now,
            used=dataclasses.asdict(self._usage.total),
            slow_asks=self._slow_asks,
            provenance=self._provenance,
        )
        publish(self._folder.root, record)
        return record

    def _with_stuck(self, trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
        """Give those whose jobs may never start the scheduler's words for it."""
        stuck = {trial_number(key): words for key, words in self._fleet.stuck.items()}
        return tuple(
            dataclasses.replace(each, reason=stuck[each.number]) if each.number in stuck else each for each in trials
        )

    def _announced(self, state: str) -> str:
        stop = self._fleet.next_stop
        return f"the site stops at {Maintenance.words(stop)}" if stop is not None and state == "running" else ""


def _private(path: str, flags: int) -> int:
    return settled(os.open(path, flags | os.O_CLOEXEC, FILE_MODE), Path(path))


def study_record(
    study: Study,
    trials: tuple[TrialRecord, ...],
    *,
    site: str,
    state: str,
    message: str,
    root: Path,
    planned: int,
    updated: float,
    used: Mapping[str, float],
    slow_asks: int = 0,
    provenance: Mapping[str, Json],
) -> StudyRecord:
    """The study as readers see it."""
    frozen = study.frozen()
    return StudyRecord(
        name=study.name,
        objectives=tuple(item.metric for item in study.targets),
        directions=tuple(item.direction for item in study.targets),
        space=frozen["space"],
        sampler=frozen["sampler"],
        planned=planned,
        parallel=study.parallel,
        site=site,
        state=state,
        message=message,
        updated=updated,
        used=used,
        slow_asks=slow_asks,
        constraints=tuple(frozen.get("constraints", ())),
        where=study.where or (),
        root=str(root),
        trials=trials,
        provenance=provenance,
    )
