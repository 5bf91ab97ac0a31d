"""The study driver: the life of one study from its folder and its lease to its last snapshot; its slots do the work.

Crash-only: all that is needed to go on lies in the study database and the ledger, and ``run`` on an old
folder resumes it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import Site
from orchestrator.config.study import Study
from orchestrator.errors import HeldByAnother, NothingFeasible, SurveyError, TooManyFailures
from orchestrator.jobs.fleet import Fleet
from orchestrator.jobs.session import Event
from orchestrator.model import Json
from orchestrator.search.asking import Asker
from orchestrator.search.assignment import study_fleet
from orchestrator.search.chores import Chores
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.departure import Departure
from orchestrator.search.freeze import freeze
from orchestrator.search.keep import Keeper
from orchestrator.search.layout import StudyFolder, run_of, trial_number
from orchestrator.search.places import Place
from orchestrator.search.pruning import Pruning
from orchestrator.search.requests import take_request
from orchestrator.search.slots import Slots
from orchestrator.search.usage import Usage
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger
from orchestrator.store.readers import shared
from orchestrator.store.record import StudyRecord
from orchestrator.store.studydb import StudyDatabase
from orchestrator.store.trials import run_name
from orchestrator.transports.base import Transport

__all__ = ["StudyDriver", "run_study"]

T = TypeVar("T")

_RENEW_PAUSE = 20.0
_REQUEST_PAUSE = 2.0


class StudyDriver:
    """Drives one study to the end of its budget.

    Parameters
    ----------
    study : Study
        What study.yaml says.
    where : Site or sequence of Place
        Where its jobs run.
    root : Path
        Folder that holds this study's folder, ``root/<name>``.
    origin : Path
        The folder of study.yaml, where commands run.
    transport : Transport, optional
        In place of the one site's own.
    on_event : callable, optional
        Called with each event of the session and of the search.
    """

    slots: type[Slots] = Slots

    def __init__(
        self,
        study: Study,
        where: Site | Sequence[Place],
        root: Path,
        *,
        origin: Path,
        clock: Clock | None = None,
        transport: Transport | None = None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.study = study
        places = [Place(study=study, site=where, transport=transport)] if isinstance(where, Site) else where
        self.places = tuple(places)
        self.folder = StudyFolder((root / study.name).resolve())
        self.origin = origin.resolve()
        self.clock: Clock = clock or SystemClock()
        self._departure = Departure()
        self._writing = asyncio.Lock()
        self._chores = Chores(self.clock, self._blocking, runs=study.repeats)
        self._chronicle = Chronicle(
            self.folder,
            study,
            site=", ".join(place.site.name for place in self.places),
            clock=self.clock,
            listener=on_event,
        )

    # What the command line calls

    def drain(self) -> None:
        """Ask for no new trials; those that run finish."""
        self._departure.draining = True
        self._event("draining")

    def leave(self) -> None:
        """Leave jobs to run and end the driver."""
        self._departure.leave()

    def cancel(self) -> None:
        """Cancel the jobs in flight and end the driver; their trials stay unfinished, to be run again.

        Before `run`, nothing is asked for or submitted: only what earlier drivers left in flight is cancelled.
        """
        self._departure.cancelling = True
        self.leave()

    def pass_once(self, patience: float) -> None:
        """Let `run` leave as soon as what was in flight is known of, what has ended is told, and the slots are full.

        Parameters
        ----------
        patience : float
            Seconds after which it leaves in any case: limits may hold jobs back, a scheduler may be away.
        """
        self._departure.patience = patience

    @property
    def record(self) -> StudyRecord:
        """The study as it was last published."""
        return self._chronicle.record

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked for its end by a request in the study's folder."""
        return self._departure.requested

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._departure.draining

    async def run(self) -> StudyRecord:
        """Run the study, or what is left of it.

        Raises
        ------
        HeldByAnother
            Another driver has it.
        ResumeMismatch
            The folder holds a study that differs in what may not change.
        Paused
            Something needs a person; nothing is lost.
        TooManyFailures
            The budget is spent, and more trials failed than the study allows.
        """
        self._loop = asyncio.get_running_loop()
        with (
            shared(self.folder.root, self.study.readers),
            Lease.acquire(self.folder.root, self.clock) as self._lease,
        ):
            provenance = freeze(
                self.study,
                [place.site for place in self.places],
                self.folder,
                origin=self.origin,
                now=self.clock.now(),
                on_change=self._changed,
                on_warm_start=self._warmed,
            )
            self._database = await self._blocking(self._open)
            try:
                return await self._search(provenance)
            finally:
                await self._blocking(self._database.close)

    # The search

    async def _search(self, provenance: Mapping[str, Json]) -> StudyRecord:
        unfinished = self._database.unfinished()
        self._usage = Usage(Ledger(self.folder.root), self.places)
        self._asker = Asker(
            self.study,
            self.folder,
            database=self._database,
            usage=self._usage,
            clock=self.clock,
            guard=self._lease.check,
            blocking=self._blocking,
            tell=self._event,
        )
        await self._asker.prepare()
        trials = await self._blocking(self._database.record)
        await self._blocking(lambda: self._usage.load(trials))
        keeper = Keeper(self.study.keep.best, [target.direction for target in self.study.targets])
        state, problem = "interrupted", None
        async with self._make_fleet() as fleet:
            self._fleet = fleet
            self._chronicle.begin(
                database=self._database,
                fleet=fleet,
                usage=self._usage,
                planned=self._asker.budget,
                provenance=provenance,
            )
            self._pruning = Pruning(
                self.study,
                database=self._database,
                fleet=fleet,
                clock=self.clock,
                chores=self._chores,
                blocking=self._blocking,
                tell=self._event,
                closing=lambda: self._asker.closed,
            )
            self._slots = self.slots(
                self.study,
                self.folder.root,
                asker=self._asker,
                database=self._database,
                fleet=fleet,
                usage=self._usage,
                pruning=self._pruning,
                keeper=keeper,
                chronicle=self._chronicle,
                chores=self._chores,
                draining=lambda: self._departure.draining,
                guard=self._lease.check,
                blocking=self._blocking,
                tell=self._event,
            )
            await keeper.resume(
                {
                    each.directories: each.values if each.feasible else None
                    for each in trials
                    if each.state == "complete" and each.values
                },
                fleet,
            )
            paused = [each.number for each in trials if each.state == "paused"]
            resumed = len(unfinished) - len(paused)
            done = self._asker.planned - len(unfinished)
            self._event("started", trials=self._asker.budget, done=done, resumed=resumed, paused=paused)
            await self._chronicle.publish("running", force=True)
            try:
                if not self._departure.leaving:
                    for number, params in unfinished:
                        await self._slots.take_up(number, params)
                    await self._until_done_or_left()
                counts = self._database.counts
                if counts["complete"] + counts["pruned"] + counts["failed"] >= self._asker.last:
                    state, self._departure.requested, self._chronicle.message = "done", False, self._asker.ended_by
                    # A copy that nobody holds open: for dashboards, and for the day the database is damaged.
                    await self._blocking(self._database.backup)
            except HeldByAnother:
                # The study is another driver's now: not one more byte of it is ours to write.
                raise
            except SurveyError as error:
                state, problem, self._chronicle.message = "paused", error, error.message
            finally:
                self._database.stop_waiting()
                await self._chores.done()
        if self._departure.cancelling:
            await self._cancel_left()
        self._event("paused" if problem else state, message=self._chronicle.message)
        record = await self._chronicle.publish(state, force=True)
        if problem is not None:
            raise problem
        self._count_failures(record)
        return record

    async def _cancel_left(self) -> None:
        async with self._make_fleet() as fleet:
            cancelled = await self._departure.cancel(self.study, self.folder.root, fleet)
        for key in cancelled:
            none: Json = {"job_id": "", "attempt": 0, "submitted": None}
            await self._blocking(functools.partial(self._database.note, trial_number(key), self._job_name(key), none))
        self._event("cancelled", keys=cancelled)

    def _make_fleet(self) -> Fleet:
        return study_fleet(
            self.study,
            self.places,
            self.folder.root,
            origin=self.origin,
            lease=self._lease,
            clock=self.clock,
            on_event=self._hearer,
        )

    async def _until_done_or_left(self) -> None:
        await self._slots.fill()
        slots = [asyncio.create_task(self._slots.work(), name=f"slot-{index}") for index in range(self.study.parallel)]

        def all_at_rest() -> bool:
            return self._fleet.at_rest + self._slots.idle >= sum(not slot.done() for slot in slots)

        keeper = asyncio.create_task(self._keep(), name="lease")
        shower = asyncio.create_task(self._chronicle.keep_shown(), name="snapshot")
        leaving = asyncio.create_task(self._departure.wait(self.clock, all_at_rest), name="leave")
        try:
            waiting: set[asyncio.Task[Any]] = {*slots, keeper, shower, leaving}
            while any(slot in waiting for slot in slots):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if leaving in done:
                    return
        finally:
            for task in (*slots, keeper, shower, leaving):
                task.cancel()
            await asyncio.gather(*slots, keeper, shower, leaving, return_exceptions=True)

    def _count_failures(self, record: StudyRecord) -> None:
        failed = [trial for trial in record.counted if trial.state == "failed"]
        finished = len(record.counted)
        if record.state == "done" and finished and len(failed) > self.study.failures.most * finished:
            raise TooManyFailures(
                f"{len(failed)} of {finished} trials failed, the first one: {failed[0].reason}",
                hint=f"see `survey logs {failed[0].number}` and `survey report`",
            )
        if record.state == "done" and record.nothing_feasible:
            raise NothingFeasible(record.nothing_feasible, hint="see `survey report`; raise `trials` to go on")

    # Events, reports, snapshots, the lease

    def _hearer(self, site: str) -> Callable[[Event], None]:
        """What listens to a session's events; of several sites, each event says where it happens."""
        if len(self.places) == 1:
            return self._heard
        return lambda event: self._heard({**event, "site": site})

    def _heard(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                key, step = event["key"], event["step"]
                if self.study.pruner is None:
                    self._chores.report(self._database, trial_number(key), run_of(key), step, event["value"])
                else:
                    self._pruning.report(trial_number(key), step, event["value"])
            case "submitted":
                number = trial_number(event["key"])
                job = {"job_id": event["job_id"], "attempt": event["attempt"], "submitted": event["time"]}
                self._chores.later(number, lambda: self._database.note(number, self._job_name(event["key"]), job))
        self._chronicle.write(event)

    def _job_name(self, key: str) -> str:
        """The attribute that names the job in flight of a trial, or of its run."""
        return "job" if self.study.repeats == 1 else run_name(run_of(key))

    def _event(self, name: str, **fields: Any) -> None:
        self._chronicle.event(name, **fields)

    def _changed(self, lines: list[str]) -> None:
        for line in lines:
            self._event("changed", message=line)

    def _warmed(self, lines: tuple[str, ...]) -> None:
        for line in lines:
            self._event("warm-start", message=line)

    async def _keep(self) -> None:
        """Keep the lease, and look whether somebody asks for the driver's end."""
        # Only people are in a hurry, and they live in the machine's own time.
        pause = _REQUEST_PAUSE if isinstance(self.clock, SystemClock) else _RENEW_PAUSE
        renewed = self.clock.now()
        while True:
            await self.clock.sleep(pause)
            if (request := take_request(self.folder.root, self._lease.token)) is not None:
                self._event("stopping", message=f"{request.by} asks to {request.how}", how=str(request.how))
                self._departure.obey(request)
            if self.clock.now() - renewed > _RENEW_PAUSE - pause / 2:
                self._lease.renew()
                renewed = self.clock.now()

    async def _blocking(self, function: Callable[[], T]) -> T:
        async with self._writing:
            return await self.clock.blocking(function)

    def _open(self) -> StudyDatabase:
        return StudyDatabase.open(
            self.folder.root,
            name=self.study.name,
            directions=[item.direction for item in self.study.targets],
            url=self.study.storage_url(),
            definition=self.study.frozen(),
            guard=self._lease.check,
            now=self.clock.now,
            on_wait=lambda words, away: self._loop.call_soon_threadsafe(self._server_waits, words, away),
        )

    def _server_waits(self, words: str, away: bool) -> None:
        self._event("waiting", message=words, server=away)


async def run_study(
    study: Study,
    where: Site | Sequence[Place],
    root: Path,
    *,
    origin: Path,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> StudyRecord:
    """Run ``study`` to its end and return its record; see `StudyDriver`."""
    return await StudyDriver(study, where, root, origin=origin, on_event=on_event).run()
