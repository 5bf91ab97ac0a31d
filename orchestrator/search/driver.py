"""The study driver: N slots, each asking, running and telling, until the budget is spent.

A slot that frees up asks at once, with the other slots' trials pending in view. Crash-only: all that
is needed to go on lies in the study database and the ledger, and ``run`` on an old folder resumes it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import Site
from orchestrator.config.stopping import Stopping
from orchestrator.config.study import Study
from orchestrator.errors import HeldByAnother, Paused, SurveyError, TooManyFailures
from orchestrator.jobs.fleet import Fleet
from orchestrator.jobs.session import Event
from orchestrator.model import Job, Json, Outcome, Verdict
from orchestrator.search import space as space_tools
from orchestrator.search.assignment import study_fleet, study_job
from orchestrator.search.chores import Chores
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.departure import Departure
from orchestrator.search.ending import ending
from orchestrator.search.freeze import freeze
from orchestrator.search.keep import Keeper
from orchestrator.search.layout import StudyFolder, trial_key, trial_number
from orchestrator.search.places import Place
from orchestrator.search.pruning import Pruning
from orchestrator.search.requests import take_request
from orchestrator.search.stopping import why_stop
from orchestrator.search.usage import Usage
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger
from orchestrator.store.readers import shared
from orchestrator.store.record import StudyRecord
from orchestrator.store.studydb import StudyDatabase
from orchestrator.transports.base import Transport

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["StudyDriver", "run_study"]

T = TypeVar("T")
_Item = tuple[int, Mapping[str, Json], int]

_RENEW_PAUSE = 20.0
_REQUEST_PAUSE = 2.0
_SLOW_ASK = 1.0


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
        self._ended_by = ""
        self._asking = asyncio.Lock()
        self._choosing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._ready: deque[_Item] = deque()
        self._busy = self._idle = 0
        self._planned = 0
        self._in_a_row = 0
        self._chores = Chores(self._blocking)
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
            )
            self._database = await self._blocking(self._open)
            try:
                return await self._search(provenance)
            finally:
                await self._blocking(self._database.close)

    # The search

    async def _search(self, provenance: Mapping[str, Json]) -> StudyRecord:
        unfinished = self._database.unfinished()
        counts = self._database.counts
        self._planned = counts.total() - counts["waiting"]
        self._budget = await self._blocking(self._total)
        self._usage = Usage(Ledger(self.folder.root), self.places)
        await self._blocking(self._usage.load)
        self._keeper = Keeper(self.study.keep.best, maximize=self.study.targets[0].direction == "maximize")
        state, problem = "interrupted", None
        async with self._make_fleet() as fleet:
            self._fleet = fleet
            self._chronicle.begin(
                database=self._database,
                fleet=fleet,
                usage=self._usage,
                planned=self._budget,
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
                closing=lambda: self._planned >= self._last,
            )
            for number, params in unfinished:
                beyond = self._pruning.take_up(number, params)
                if number not in self._pruning.paused:
                    self._ready.append((number, params, beyond))
            await self._keeper.resume(
                {
                    trial.directory: trial.values[0]
                    for trial in self._database.record()
                    if trial.state == "complete" and trial.values
                },
                fleet,
            )
            self._event("started", trials=self._budget, done=self._planned - len(unfinished), resumed=len(unfinished))
            await self._chronicle.publish("running", force=True)
            try:
                if not self._departure.leaving:
                    await self._until_done_or_left()
                counts = self._database.counts
                if counts["complete"] + counts["pruned"] + counts["failed"] >= self._last:
                    state, self._departure.requested, self._chronicle.message = "done", False, self._ended_by
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
            await self._blocking(functools.partial(self._database.note, trial_number(key), "job", none))
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
        # The first fill asks for all slots at once, before any of them waits for a submit.
        while len(self._ready) < self.study.parallel and (item := await self._begin()) is not None:
            self._ready.append(item)
        if self.study.sampler.name in {"random", "grid"}:
            # Nothing that a result could change: these may go to the scheduler as one array.
            self._fleet.expect_array(*(self._job(*item) for item in self._ready))
        slots = [asyncio.create_task(self._slot(), name=f"slot-{index}") for index in range(self.study.parallel)]

        def all_at_rest() -> bool:
            return self._fleet.at_rest + self._idle >= sum(not slot.done() for slot in slots)

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

    async def _slot(self) -> None:
        while (item := await self._next()) is not None:
            try:
                await self._run(*item)
            finally:
                self._busy -= 1
                await self._pruning.notify()

    async def _run(self, number: int, params: Mapping[str, Json], beyond: int) -> None:
        outcome = await self._fleet.run(self._job(number, params, beyond))
        if outcome.verdict is not Verdict.PAUSED:
            await self._record(number, outcome)
            return
        await self._pruning.pause(number, params, outcome)
        await self._blocking(functools.partial(self._usage.count, trial_key(number)))

    async def _next(self) -> _Item | None:
        """What a slot runs next; it is busy from then on. None where there is nothing more for it."""
        while True:
            seen = self._pruning.changes
            async with self._choosing:
                item = self._ready.popleft() if self._ready else await self._begin()
                if item is not None:
                    self._busy += 1
                    return item
                if self._pruning.paused and not self._departure.draining and not self._busy:
                    await self._give_up_paused()
                if not self._pruning.paused or self._departure.draining:
                    return None
            # A trial that is set aside goes on if those that run turn out to be worse.
            self._idle += 1
            try:
                await self._pruning.wait(seen)
            finally:
                self._idle -= 1

    async def _begin(self) -> _Item | None:
        """A paused trial that is to go on, else a new one; None if there is neither."""
        if not self._departure.draining and not self._ended_by:
            aside = await self._pruning.promote()
            if aside is not None:
                return aside.number, aside.params, aside.attempt
        asked = await self._ask()
        return None if asked is None else (*asked, 0)

    async def _give_up_paused(self) -> None:
        """End the trials that are set aside: nothing runs that could turn out to be worse than they are."""
        for number in sorted(self._pruning.paused):
            outcome = Ledger(self.folder.root).attempts(trial_key(number))[-1].outcome
            assert outcome is not None
            why = self._ended_by or "no trial is left that could make it one of the best"
            await self._record(
                number, dataclasses.replace(outcome, reason=f"{outcome.reason}; it did not go on: {why}")
            )
            del self._pruning.paused[number]
        await self._pruning.notify()

    async def _ask(self) -> tuple[int, Mapping[str, Json]] | None:
        """A new trial, created whole in the database; None where the budget is spent."""
        async with self._asking:
            if self._departure.draining or self._planned >= self._last or await self._ends_early():
                return None
            self._planned += 1
            begun = time.perf_counter()
            number, params = await self._blocking(self._ask_now)
            seconds = time.perf_counter() - begun
        self._event("asked", number=number, params=params, seconds=round(seconds, 4), slow=seconds > _SLOW_ASK)
        return number, params

    @property
    def _last(self) -> int:
        """How many trials there will have been at the end."""
        return self._planned if self._ended_by else self._budget

    async def _ends_early(self) -> bool:
        """Whether a rule of the study's holds: from then on this driver begins no new trial."""
        if self.study.stop == Stopping():
            return False
        trials = await self._blocking(self._database.record)
        self._ended_by = why_stop(
            self.study.stop,
            trials,
            self._usage,
            direction=self.study.targets[0].direction,
            in_flight=sum(trial.state == "running" for trial in trials),
            now=self.clock.now(),
        )
        if self._ended_by:
            self._event("enough", message=self._ended_by)
        return bool(self._ended_by)

    def _ask_now(self) -> tuple[int, Mapping[str, Json]]:
        self._lease.check()
        return self._database.ask(self._sampler(), lambda trial: space_tools.suggest(self.study.space, trial), {})

    def _sampler(self) -> BaseSampler:
        """A fresh one for each ask: what it draws depends on seed, trial number and history alone."""
        from orchestrator.samplers import make_sampler

        chosen = self.study.sampler
        return make_sampler(
            chosen.name,
            seed=chosen.seed,
            startup_trials=chosen.startup_trials,
            options=chosen.options,
            space=space_tools.distributions(self.study.space),
            grid=self._grid,
        )

    def _total(self) -> int:
        self._grid = space_tools.grid(self.study.space) if self.study.sampler.name == "grid" else None
        # An unknown sampler, option or missing extra is told before anything is submitted.
        self._sampler()
        return self.study.trials if self._grid is None else min(self.study.trials, len(self._grid))

    async def _record(self, number: int, outcome: Outcome) -> None:
        await self._pruning.settle(number)
        end = ending(outcome, self.study.targets, self._fleet.site_of(trial_key(number)))
        state, values = end.state, end.values
        self._lease.check()

        def tell() -> None:
            self._database.tell(number, state, values, end.attributes)
            self._usage.count(trial_key(number))

        await self._blocking(tell)
        self._event("told", number=number, state=state, values=values, verdict=str(outcome.verdict))
        self._in_a_row = 0 if state != "failed" else self._in_a_row + 1
        # The slot asks for its next trial first; these come after it.
        if values is not None:
            self._chores.add(self._keeper.add(outcome.directory, values[0], self._fleet))
        self._chores.add(self._chronicle.publish("running"))
        limit = self.study.failures.stop_after
        if state == "complete":
            self._pruning.complain(number)
        if limit is not None and self._in_a_row >= limit:
            raise Paused(
                f"{self._in_a_row} trials in a row failed, the last one: {outcome.reason}",
                hint=f"see `survey logs {number}`; mend it, then run the study again",
            )

    def _count_failures(self, record: StudyRecord) -> None:
        failed = [trial for trial in record.counted if trial.state == "failed"]
        finished = len(record.counted)
        if record.state == "done" and finished and len(failed) > self.study.failures.most * finished:
            raise TooManyFailures(
                f"{len(failed)} of {finished} trials failed, the first one: {failed[0].reason}",
                hint=f"see `survey logs {failed[0].number}` and `survey report`",
            )

    def _job(self, number: int, params: Mapping[str, Json], beyond: int) -> Job:
        return dataclasses.replace(study_job(self.study, number, params), beyond=beyond)

    # Events, reports, snapshots, the lease

    def _hearer(self, site: str) -> Callable[[Event], None]:
        """What listens to a session's events; of several sites, each event says where it happens."""
        if len(self.places) == 1:
            return self._heard
        return lambda event: self._heard({**event, "site": site})

    def _heard(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                self._pruning.report(trial_number(event["key"]), event["step"], event["value"])
            case "submitted":
                number = trial_number(event["key"])
                job = {"job_id": event["job_id"], "attempt": event["attempt"], "submitted": event["time"]}
                self._chores.later(number, lambda: self._database.note(number, "job", job))
        self._chronicle.write(event)

    def _event(self, name: str, **fields: Any) -> None:
        self._chronicle.event(name, **fields)

    def _changed(self, lines: list[str]) -> None:
        for line in lines:
            self._event("changed", message=line)

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
