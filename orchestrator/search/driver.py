"""The study driver: N slots, each asking, running and telling, until the budget is spent.

A slot that frees up asks at once, with the other slots' trials pending in view. Crash-only: all that
is needed to go on lies in the study database and the ledger, and ``run`` on an old folder resumes it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import Site
from orchestrator.config.study import Study
from orchestrator.errors import HeldByAnother, Paused, SurveyError, TooManyFailures
from orchestrator.jobs.fleet import Berth, Fleet
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.jobs.session import Event, Session
from orchestrator.model import Job, Json, Outcome, ReadRule, Resources, Verdict
from orchestrator.search import space as space_tools
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.freeze import freeze
from orchestrator.search.keep import Keeper
from orchestrator.search.layout import StudyFolder, trial_key, trial_number
from orchestrator.search.places import Place
from orchestrator.store.lease import Lease
from orchestrator.store.record import StudyRecord
from orchestrator.store.studydb import StudyDatabase
from orchestrator.transports.base import Transport

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["StudyDriver", "run_study"]

T = TypeVar("T")

_RENEW_PAUSE = 20.0
_REPORT_PAUSE = 1.0
_SLOW_ASK = 1.0


class Blocking(Protocol):
    """Runs a function that may block, one at a time, without making the other coroutines wait."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


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
        self._draining = False
        self._leaving = asyncio.Event()
        self._asking = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._ready: deque[tuple[int, Mapping[str, Json]]] = deque()
        self._planned = 0
        self._in_a_row = 0
        self._reported: dict[int, float] = {}
        self._chores: set[asyncio.Task[object]] = set()
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
        self._draining = True
        self._event("draining")

    def leave(self) -> None:
        """Leave jobs to run and end the driver."""
        self._leaving.set()

    @property
    def record(self) -> StudyRecord:
        """The study as it was last published."""
        return self._chronicle.record

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

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
        self._lease = Lease.acquire(self.folder.root, self.clock)
        try:
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
        finally:
            self._lease.release()

    # The search

    async def _search(self, provenance: Mapping[str, Json]) -> StudyRecord:
        unfinished = self._database.unfinished()
        self._ready.extend(unfinished)
        counts = self._database.counts
        self._planned = counts.total() - counts["waiting"]
        self._budget = await self._blocking(self._total)
        self._keeper = Keeper(self.study.keep.best, maximize=self.study.targets[0].direction == "maximize")
        state, problem = "interrupted", None
        async with self._make_fleet() as fleet:
            self._fleet = fleet
            self._chronicle.begin(
                database=self._database,
                fleet=fleet,
                planned=self._budget,
                provenance=provenance,
                blocking=self._blocking,
            )
            await self._keeper.resume(
                {trial.directory: trial.values[0] for trial in self._database.record() if trial.values}, fleet
            )
            self._event("started", trials=self._budget, done=self._planned - len(unfinished), resumed=len(unfinished))
            await self._chronicle.publish("running", force=True)
            try:
                await self._until_done_or_left()
                counts = self._database.counts
                if counts["complete"] + counts["pruned"] + counts["failed"] >= self._budget:
                    state = "done"
                    # A copy that nobody holds open: for dashboards, and for the day the database is damaged.
                    await self._blocking(self._database.backup)
            except HeldByAnother:
                # The study is another driver's now: not one more byte of it is ours to write.
                raise
            except SurveyError as error:
                state, problem, self._chronicle.message = "paused", error, error.message
            finally:
                await asyncio.gather(*self._chores, return_exceptions=True)
        self._event("paused" if problem else state, message=self._chronicle.message)
        record = await self._chronicle.publish(state, force=True)
        if problem is not None:
            raise problem
        self._count_failures(record)
        return record

    def _make_fleet(self) -> Fleet:
        parallel = self.study.parallel
        berths = [
            Berth(
                session=Session(
                    self.folder.root,
                    name=self.study.name,
                    site=place.site,
                    batch=place.study.batch,
                    retry=RetryPolicy(limits=self.study.retry.limits()),
                    limit=place.share or parallel,
                    origin=self.origin,
                    fence=self._lease.fence,
                    guard=self._lease.check,
                    clock=self.clock,
                    transport=place.transport,
                    on_event=self._hearer(place.site.name),
                ),
                share=place.share or parallel,
                fit=place.fit(self.origin),
            )
            for place in self.places
        ]
        return Fleet(berths, limit=parallel, clock=self.clock)

    async def _until_done_or_left(self) -> None:
        # The first fill asks for all slots at once, before any of them waits for a submit.
        while len(self._ready) < self.study.parallel and (asked := await self._ask()) is not None:
            self._ready.append(asked)
        if self.study.sampler.name in {"random", "grid"}:
            # Nothing that a result could change: these may go to the scheduler as one array.
            self._fleet.expect_array(*(self._job(number, params) for number, params in self._ready))
        slots = [asyncio.create_task(self._slot(), name=f"slot-{index}") for index in range(self.study.parallel)]
        keeper = asyncio.create_task(self._renew(), name="lease")
        shower = asyncio.create_task(self._chronicle.keep_shown(), name="snapshot")
        leaving = asyncio.create_task(self._leaving.wait(), name="leave")
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
        while (trial := await self._next()) is not None:
            number, params = trial
            outcome = await self._fleet.run(self._job(number, params))
            await self._record(number, outcome)

    async def _next(self) -> tuple[int, Mapping[str, Json]] | None:
        if self._ready:
            return self._ready.popleft()
        return await self._ask()

    async def _ask(self) -> tuple[int, Mapping[str, Json]] | None:
        """A new trial, created whole in the database; None where the budget is spent."""
        async with self._asking:
            if self._draining or self._planned >= self._budget:
                return None
            self._planned += 1
            begun = time.perf_counter()
            number, params = await self._blocking(self._ask_now)
            seconds = time.perf_counter() - begun
        self._event("asked", number=number, params=params, seconds=round(seconds, 4), slow=seconds > _SLOW_ASK)
        return number, params

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
        await asyncio.gather(*[task for task in self._chores if task.get_name() == str(number)])
        values: list[float] | None = None
        if outcome.verdict is Verdict.SUCCEEDED:
            state, values = "complete", [outcome.metrics[item.metric] for item in self.study.targets]
        elif outcome.verdict is Verdict.STOPPED:
            state = "pruned"
        else:
            state = "failed"
        attributes = _attributes(outcome, self._fleet.site_of(trial_key(number)))
        self._lease.check()
        await self._blocking(lambda: self._database.tell(number, state, values, attributes))
        self._event("told", number=number, state=state, values=values, verdict=str(outcome.verdict))
        self._in_a_row = 0 if state != "failed" else self._in_a_row + 1
        # The slot asks for its next trial first; these come after it.
        if values is not None:
            self._afterwards(self._keeper.add(outcome.directory, values[0], self._fleet))
        self._afterwards(self._chronicle.publish("running"))
        limit = self.study.failures.stop_after
        if limit is not None and self._in_a_row >= limit:
            raise Paused(
                f"{self._in_a_row} trials in a row failed, the last one: {outcome.reason}",
                hint=f"see `survey logs {number}`; mend it, then run the study again",
            )

    def _count_failures(self, record: StudyRecord) -> None:
        failed = [trial for trial in record.trials if trial.state == "failed"]
        finished = len(record.finished)
        if record.state == "done" and finished and len(failed) > self.study.failures.most * finished:
            raise TooManyFailures(
                f"{len(failed)} of {finished} trials failed, the first one: {failed[0].reason}",
                hint=f"see `survey logs {failed[0].number}` and `survey report`",
            )

    def _job(self, number: int, params: Mapping[str, Json]) -> Job:
        from orchestrator.samplers import trial_seed

        study = self.study
        needed = [item.metric for item in study.targets]
        resources = study.resources
        return Job(
            key=trial_key(number),
            number=number,
            command=study.command if isinstance(study.command, str) else tuple(study.command),
            params=params,
            resources=Resources(
                gpus=resources.gpus,
                cpus=resources.cpus,
                memory=resources.memory,
                walltime=resources.walltime,
                nodes=resources.nodes,
            ),
            metrics=tuple(needed),
            read=tuple(
                ReadRule(metric=rule.metric, stdout=rule.stdout, json=rule.json_, csv=rule.csv) for rule in study.read
            ),
            seed=trial_seed(study.sampler.seed, number) % 2**31,
        )

    # Events, reports, snapshots, the lease

    def _hearer(self, site: str) -> Callable[[Event], None]:
        """What listens to a session's events; of several sites, each event says where it happens."""
        if len(self.places) == 1:
            return self._heard
        return lambda event: self._heard({**event, "site": site})

    def _heard(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                self._report(trial_number(event["key"]), event["step"], event["value"])
            case "submitted":
                number = trial_number(event["key"])
                job = {"job_id": event["job_id"], "attempt": event["attempt"], "submitted": event["time"]}
                self._later(number, lambda: self._database.note(number, "job", job))
        self._chronicle.write(event)

    def _report(self, number: int, step: int, value: float) -> None:
        # A program that reports ten thousand steps must not keep the database busy with them.
        now = self.clock.now()
        if now - self._reported.get(number, -1e9) < _REPORT_PAUSE:
            return
        self._reported[number] = now
        self._later(number, lambda: self._database.report(number, step, value))

    def _later(self, number: int, write: Callable[[], None]) -> None:
        """Write something of a running trial without making anybody wait; `_record` comes after it."""
        self._afterwards(self._blocking(write), name=str(number))

    def _afterwards(self, work: Coroutine[Any, Any, object], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _event(self, name: str, **fields: Any) -> None:
        self._chronicle.event(name, **fields)

    def _changed(self, lines: list[str]) -> None:
        for line in lines:
            self._event("changed", message=line)

    async def _renew(self) -> None:
        while True:
            await self.clock.sleep(_RENEW_PAUSE)
            self._lease.renew()

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
        )


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


def _attributes(outcome: Outcome, site: str) -> dict[str, Json]:
    return {
        "outcome": {
            "site": site,
            "verdict": str(outcome.verdict),
            "reason": outcome.reason,
            "attempts": outcome.attempts,
            "tag": outcome.tag,
            "job_id": outcome.job_id,
            "host": outcome.host,
            "submitted": outcome.submitted,
            "started": outcome.started,
            "ended": outcome.ended,
            "queue_wait": outcome.queue_wait,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "max_rss": outcome.max_rss,
            "gpus": list(outcome.gpus),
            "gpu_memory": outcome.gpu_memory,
            "directory": outcome.directory,
        },
        "metrics": dict(outcome.metrics),
        "info": dict(outcome.info),
    }
