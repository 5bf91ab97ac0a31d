"""The study driver: N slots, each asking, running and telling, until the budget is spent.

A slot that frees up asks at once, with the other slots' trials pending in view. Crash-only: all that
is needed to go on lies in the study database and the ledger, and ``run`` on an old folder resumes it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import Site
from orchestrator.config.stopping import Stopping
from orchestrator.config.study import Study
from orchestrator.errors import HeldByAnother, NothingFeasible, Paused, SurveyError, TooManyFailures
from orchestrator.jobs.fleet import Fleet
from orchestrator.jobs.session import Event
from orchestrator.model import Job, Json, Outcome, Verdict
from orchestrator.search import space as space_tools
from orchestrator.search.agenda import Agenda, Item
from orchestrator.search.assignment import study_fleet, study_job
from orchestrator.search.chores import Chores
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.departure import Departure
from orchestrator.search.ending import decisive, ending, run_facts
from orchestrator.search.freeze import freeze
from orchestrator.search.keep import Keeper
from orchestrator.search.layout import StudyFolder, run_key, run_of, trial_key, trial_number
from orchestrator.search.places import Place
from orchestrator.search.pruning import Pruning
from orchestrator.search.requests import take_request
from orchestrator.search.sampling import refuse_impossible, study_grid, study_sampler
from orchestrator.search.stopping import why_stop
from orchestrator.search.usage import Usage
from orchestrator.search.warm_start import begin_warm
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger
from orchestrator.store.readers import shared
from orchestrator.store.record import StudyRecord
from orchestrator.store.studydb import StudyDatabase
from orchestrator.store.trials import USED, run_name
from orchestrator.transports.base import Transport

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["StudyDriver", "run_study"]

T = TypeVar("T")

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
        self._writing = asyncio.Lock()
        self._agenda = Agenda(study.repeats)
        self._busy = self._idle = 0
        self._planned = 0
        self._in_a_row = 0
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
        counts = self._database.counts
        self._planned = counts.total() - counts["waiting"]
        self._budget = await self._blocking(self._total)
        self._usage = Usage(Ledger(self.folder.root), self.places)
        await self._blocking(lambda: self._usage.load(self._database.record()))
        self._keeper = Keeper(self.study.keep.best, [target.direction for target in self.study.targets])
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
            await self._keeper.resume(
                {
                    each.directories: each.values if each.feasible else None
                    for each in self._database.record()
                    if each.state == "complete" and each.values
                },
                fleet,
            )
            paused = [each.number for each in self._database.record() if each.state == "paused"]
            resumed = len(unfinished) - len(paused)
            done = self._planned - len(unfinished)
            self._event("started", trials=self._budget, done=done, resumed=resumed, paused=paused)
            await self._chronicle.publish("running", force=True)
            try:
                if not self._departure.leaving:
                    for number, params in unfinished:
                        await self._take_up(number, params)
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
        # The first fill asks for all slots at once, before any of them waits for a submit.
        while len(self._agenda.ready) < self.study.parallel and await self._begin():
            pass
        if self.study.sampler.name in {"random", "grid"}:
            # Nothing that a result could change: these may go to the scheduler as one array.
            self._fleet.expect_array(*(self._job(item) for item in self._agenda.ready))
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
                outcome = await self._fleet.run(self._job(item))
                await self._run_ended(item, outcome)
            finally:
                self._busy -= 1
                await self._pruning.notify()

    async def _next(self) -> Item | None:
        """What a free slot is to run, busy from now on; None where nothing is left to begin."""
        while (item := self._agenda.take()) is None:
            seen = self._pruning.changes
            async with self._asking:
                # Another slot may have asked meanwhile, for a trial with a run for this one too.
                if self._agenda.ready or await self._begin():
                    continue
                if not self._busy and not self._departure.draining:
                    await self._give_up_paused()
                if not self._pruning.paused or self._departure.draining:
                    return None
            # A trial that is set aside goes on if those that run turn out to be worse.
            self._idle += 1
            try:
                await self._pruning.wait(seen)
            finally:
                self._idle -= 1
        self._busy += 1
        return item

    async def _begin(self) -> bool:
        """Put a paused trial that is to go on, else a new one, on the agenda; False if there is neither."""
        if not self._departure.draining and not self._ended_by and (aside := await self._pruning.promote()):
            self._agenda.go_on(aside.number, aside.params, aside.attempt)
            return True
        return await self._ask()

    async def _give_up_paused(self) -> None:
        """End the trials that are set aside: nothing runs that could turn out to be worse than they are."""
        for number in sorted(self._pruning.paused):
            outcome = Ledger(self.folder.root).attempts(trial_key(number))[-1].outcome
            assert outcome is not None
            why = self._ended_by or "no trial is left that could make it one of the best"
            reason = f"{outcome.reason}; it did not go on: {why}"
            await self._record(number, {1: dataclasses.replace(outcome, reason=reason)})
            del self._pruning.paused[number]
        await self._pruning.notify()

    async def _ask(self) -> bool:
        """Put a new trial, created whole in the database, on the agenda; False where the budget is spent."""
        if self._departure.draining or self._planned >= self._last or await self._ends_early():
            return False
        self._planned += 1
        begun = time.perf_counter()
        number, params = await self._blocking(self._ask_now)
        seconds = time.perf_counter() - begun
        self._event("asked", number=number, params=params, seconds=round(seconds, 4), slow=seconds > _SLOW_ASK)
        self._agenda.add(number, params)
        return True

    async def _take_up(self, number: int, params: Mapping[str, Json]) -> None:
        """Put a trial that an earlier driver left unfinished on the agenda; those of its runs that have ended stay so."""
        if (beyond := self._pruning.take_up(number, params)) or number in self._pruning.paused:
            if beyond:
                self._agenda.go_on(number, params, beyond)
            return
        runs = range(1, self.study.repeats + 1)
        jobs = {run: study_job(self.study, number, params, run) for run in runs}
        settled = {run: self._fleet.settled(job) for run, job in jobs.items()}
        # One that was paused is set aside by the slot that finds it so.
        known = {run: each for run, each in settled.items() if each and each.verdict is not Verdict.PAUSED}
        self._agenda.add(number, params, known)
        for run in known:
            told = self._database.attributes(number).get(run_name(run), {})
            self._chores.take_up(number, run, told.get("steps", {}))
        if self._agenda.lost(number):
            flying = [run for run in runs if run not in known and self._fleet.in_flight(jobs[run].key)]
            self._agenda.strike(number, but=flying)
            for run in flying:
                await self._fleet.call_off(jobs[run].key)
        if (outcomes := self._agenda.close(number)) is not None:
            await self._record(number, outcomes)

    async def _run_ended(self, item: Item, outcome: Outcome) -> None:
        """A slot has run a job to its end: that of its trial, or of one of its runs."""
        number = item.number
        if outcome.verdict is Verdict.PAUSED:
            await self._pruning.pause(number, item.params, outcome)
            await self._blocking(functools.partial(self._usage.count, number))
            self._agenda.set_aside(item)
            return
        self._agenda.ended(item, outcome)
        if (outcomes := self._agenda.close(number)) is not None:
            await self._record(number, outcomes)
            return
        facts = run_facts(outcome, self._site(number, item.run)) | {"steps": self._chores.steps(number, item.run)}

        def note() -> None:
            self._database.note(number, run_name(item.run), facts)
            self._usage.count(number)

        self._chores.later(number, note)
        if not outcome.succeeded:
            for other in self._agenda.in_flight(number):
                self._event("called-off", number=number, run=other.run, message=f"run {item.run} has no result")
                await self._fleet.call_off(run_key(number, other.run, self.study.repeats))

    def _site(self, number: int, run: int) -> str:
        """The site that had a trial's run last."""
        return self._fleet.site_of(run_key(number, run, self.study.repeats))

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
        return study_sampler(self.study, self._grid, source=self._source)

    def _total(self) -> int:
        self._grid = study_grid(self.study)
        refuse_impossible(self.study)
        self._source = begin_warm(self.study, self.folder, self._database)
        # An unknown sampler, option or missing extra is told before anything is submitted.
        self._sampler()
        return self.study.trials if self._grid is None else min(self.study.trials, len(self._grid))

    async def _record(self, number: int, outcomes: Mapping[int, Outcome]) -> None:
        await self._pruning.settle(number)
        end = ending(self.study, outcomes, {run: self._site(number, run) for run in outcomes})
        state, values, outcome = end.state, end.values, outcomes[decisive(outcomes)]
        self._lease.check()

        def tell() -> None:
            used = dataclasses.asdict(self._usage.count(number))
            self._database.tell(number, state, values, {**end.attributes, USED: used})

        await self._blocking(tell)
        broken = {"broken": end.broken} if end.broken else {}
        self._event("told", number=number, state=state, values=values, verdict=str(outcome.verdict), **broken)
        self._in_a_row = 0 if state != "failed" else self._in_a_row + 1
        # The slot asks for its next trial first; these come after it.
        if values is not None:
            directories = [each.directory for each in outcomes.values()]
            self._chores.add(self._keeper.add(directories, None if broken else values, self._fleet))
        self._chores.add(self._chronicle.publish("running"))
        if state == "complete":
            self._pruning.complain(number)
        limit = self.study.failures.stop_after
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
        if record.state == "done" and record.nothing_feasible:
            raise NothingFeasible(record.nothing_feasible, hint="see `survey report`; raise `trials` to go on")

    def _job(self, item: Item) -> Job:
        return dataclasses.replace(study_job(self.study, item.number, item.params, item.run), beyond=item.beyond)

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
