"""A session takes jobs through their attempts on one site, and keeps a record that survives it.

The same session serves a plain survey and the study driver: ``await session.run(job)``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import BatchOptions, Site
from orchestrator.jobs.breaker import Breaker
from orchestrator.jobs.dispatch import Dispatcher
from orchestrator.jobs.early import Wish
from orchestrator.jobs.life import ABORTED, FORGOTTEN, INVALIDATED, Lives, noted
from orchestrator.jobs.maintenance import Maintenance
from orchestrator.jobs.packing import Packer
from orchestrator.jobs.placement import place
from orchestrator.jobs.recovery import Finder
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.jobs.script import scheduler_options
from orchestrator.jobs.space_left import SpaceLeft
from orchestrator.jobs.staging import stage_library
from orchestrator.jobs.submission import Submitter
from orchestrator.jobs.throttle import Throttle, shared_folder
from orchestrator.jobs.watched import Cadence
from orchestrator.jobs.watcher import Watcher
from orchestrator.model import Attempt, Job, Outcome, Resources
from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.store.atomic import read_json, write_json
from orchestrator.store.ledger import Ledger
from orchestrator.transports.base import Transport
from orchestrator.transports.registry import make_transport
from orchestrator.transports.remote import RemoteTransport
from orchestrator.transports.trouble import LoginNeeded

__all__ = ["Event", "Session"]

Event = Mapping[str, Any]

_MANY = 1 << 20
_LEAST_FOR_AUTO = 4  # jobs below which an array job saves nobody anything


class Session:
    """Jobs on one site, in flight at once up to a limit.

    Use it as an asynchronous context manager. Leaving it leaves running jobs alone: the next
    session on the same root finds them again.

    Parameters
    ----------
    root : Path
        The driver's folder of this study or survey; the ledger lies below it.
    name : str
        Name of the study or survey.
    site : Site
        Where the jobs run.
    batch : BatchOptions, optional
        Queue, group, modules... beyond what the site says.
    retry : RetryPolicy, optional
        Which verdicts are followed by another attempt.
    breaker : Breaker, optional
        How many failures in a row pause the study.
    limit : int, optional
        Largest number of jobs in flight; a packed job waits for no more than these.
    origin : Path, optional
        Folder that ``batch.template`` is relative to.
    fence : str
        Token of the driver's lease, recorded in each attempt.
    guard : callable, optional
        Called before each durable step; raises if the lease was lost.
    on_event : callable, optional
        Called with each event, a mapping with ``event``, ``key`` and ``time``.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        site: Site,
        batch: BatchOptions | None = None,
        retry: RetryPolicy | None = None,
        breaker: Breaker | None = None,
        limit: int | None = None,
        origin: Path | None = None,
        fence: str = "",
        guard: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        transport: Transport | None = None,
        scheduler: Scheduler | None = None,
        throttle: Throttle | None = None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.root = root.resolve()
        self.name = name
        self.site = site
        self.clock: Clock = clock or SystemClock()
        self._batch = _anchored(batch or BatchOptions(), origin)
        self._retry = retry or RetryPolicy()
        self._breaker = breaker or Breaker()
        self._fence = fence
        self._guard = guard
        self._on_event = on_event
        self._given_transport = transport
        self._given_scheduler = scheduler
        self._limit = limit
        self._room = asyncio.Semaphore(limit) if limit is not None else None
        self._maintenance = Maintenance(site.status_banner, self.clock.now)
        self._queries_wait = False
        # Time that is not the machine's own has nothing to share with drivers that live in it.
        shared = shared_folder(site) if isinstance(self.clock, SystemClock) else None
        self._throttle = throttle or Throttle(site.limits, self.clock, folder=shared)
        self._ledger = Ledger(self.root)
        self._orders: dict[str, str] = {}  # key -> abort | cancel | invalidate
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}

    async def __aenter__(self) -> Self:
        self._transport: Transport = self._given_transport or make_transport(self.site, self.clock)
        user = home = None
        if isinstance(self._transport, RemoteTransport):
            self._transport.on_login = self._login
            greeting = await self._transport.open()
            user, home = greeting.user, greeting.home
        self.work_root = self._find_work_root(user, home)
        library = await stage_library(self._transport, self.work_root)
        python = self.site.interpreter
        extra = {}
        if self.site.scheduler == "local":
            extra = {"python": python, "localq": library.localq, "spool": f"{self.work_root}/.localq"}
        self._scheduler: Scheduler = self._given_scheduler or make_scheduler(
            self.site.scheduler, scheduler_options(self.site, self._batch, extra=extra)
        )
        self._finder = Finder(
            self._transport, self._scheduler, self.clock, self._throttle, on_output=self._maintenance.read
        )
        self._submitter = Submitter(
            site=self.site,
            batch=self._batch,
            transport=self._transport,
            scheduler=self._scheduler,
            clock=self.clock,
            library=library,
            work_root=self.work_root,
            study=self.name,
            python=python,
            throttle=self._throttle,
            finder=self._finder,
            maintenance=self._maintenance,
            space=SpaceLeft(self._transport, self.work_root, self.clock, on_room=self._room_is_lacking),
            on_wait=self._waits,
            on_held=self._holds,
            unwanted=lambda key: key in self._orders,
        )
        self._dispatcher = Dispatcher(
            ledger=self._ledger,
            submitter=self._submitter,
            scheduler=self._scheduler,
            clock=self.clock,
            guard=self._guard,
            tell=self._tell,
        )
        self._packer = Packer(
            self.clock,
            wait=self._batch.pack_wait,
            each=self._each,
            send=self._dispatcher.send,
            on_wait=self._waits,
        )
        self._watcher = Watcher(
            self._transport,
            self._scheduler,
            self.clock,
            Cadence(
                look=self.site.poll.look,
                query_min=self.site.poll.query_min,
                query_max=self.site.poll.query_max,
                grace=self.site.grace,
            ),
            may_query=self._may_query,
            count_history=self._throttle.spent,
            on_output=self._maintenance.read,
            on_trouble=lambda words: self._tell("trouble", message=words),
        )
        self._lives = Lives(
            site=self.site,
            batch=self._batch,
            clock=self.clock,
            ledger=self._ledger,
            retry=self._retry,
            breaker=self._breaker,
            fence=self._fence,
            throttle=self._throttle,
            transport=self._transport,
            scheduler=self._scheduler,
            submitter=self._submitter,
            dispatcher=self._dispatcher,
            packer=self._packer,
            watcher=self._watcher,
            orders=self._orders,
            guard=self._guard,
            tell=self._tell,
        )
        if self.site.status_banner is not None:
            # A stop that is announced already holds for the first submit, too; any look-up shows the announcement.
            await self._finder.find("announcement", self.clock.now())
        self._watcher.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._packer.close()
        await self._finder.close()
        await self._watcher.stop()
        await self._throttle.close()
        await self._transport.close()

    def _find_work_root(self, user: str | None, home: str | None) -> str:
        if self.site.work_root is None:
            return str(self.root)
        # Two studies of one name, from two folders, must not meet in the site's work root.
        mark = self.root / "id"
        if (known := read_json(mark)) is None:
            known = {"id": secrets.token_hex(3)}
            write_json(mark, known)
        return self.site.resolved_work_root(
            self.root.parent,
            f"{self.name}-{known['id']}",
            group=self.site.group_of(self._batch),
            user=user,
            home=home,
        )

    # What a user of the session calls

    def submit(self, *jobs: Job) -> list[asyncio.Task[Outcome]]:
        """Begin to run ``jobs``; returns at once with a task for each."""
        for job in jobs:
            if job.key not in self._tasks or self._tasks[job.key].done():
                self._tasks[job.key] = asyncio.create_task(self.run(job), name=job.key)
        return [self._tasks[job.key] for job in jobs]

    def submit_array(self, *jobs: Job) -> list[asyncio.Task[Outcome]]:
        """As `submit`, as array jobs where that is wanted, possible and worth it."""
        self.expect_array(*jobs)
        return self.submit(*jobs)

    def expect_array(self, *jobs: Job) -> int:
        """Let those of ``jobs`` that begin now go out as array jobs; `submit` or `run` each of them next.

        Where array jobs are not allowed or not wanted, and for jobs that have begun before, nothing is
        different: they are submitted one by one.

        Returns
        -------
        int
            How many of the jobs are expected.
        """
        wanted = self._batch.array
        if wanted is False or not self.site.array_allowed or not self._dispatcher.arrays:
            return 0
        fresh: dict[Resources, list[str]] = {}
        for job in jobs[: self._limit]:
            if job.key not in self._lives.in_flight and not self.begun(job.key):
                fresh.setdefault(job.resources, []).append(job.key)
        most = min(self.site.limits.array_size, self.site.limits.queued or _MANY)
        expected = 0
        for needs, keys in fresh.items():
            each = self._each(needs, None)
            for start in range(0, len(keys), most * each):
                part = keys[start : start + most * each]
                if len(part) >= (2 * each if wanted is True else max(_LEAST_FOR_AUTO, 2 * each)):
                    self._packer.announce(part, each)
                    expected += len(part)
        return expected

    async def as_completed(self, jobs: Iterable[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        """Run ``jobs`` and yield each with its outcome as soon as it has ended."""
        by_task = dict(zip(self.submit(*(jobs := list(jobs))), jobs, strict=True))
        waiting = set(by_task)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield by_task[task], task.result()

    async def run(self, job: Job) -> Outcome:
        """Take one job through its attempts; returns the last one's outcome.

        A job that has ended in an earlier session is not run again; one that was in flight is
        found again.

        Raises
        ------
        Paused
            If the scheduler refuses the job for a reason that a person must mend, or too much has failed in a row.
        """
        if self._room is None:
            return await self._lives.run(job)
        async with self._room:
            return await self._lives.run(job)

    async def abort(self, *keys: str) -> None:
        """Stop jobs; the next session runs them again."""
        await self._stop(keys, ABORTED)

    async def abort_begun(self, *jobs: Job) -> None:
        """Take up jobs that earlier sessions left in flight, and stop them at once."""
        self.submit(*jobs)
        await asyncio.sleep(0)  # each is in view before the first one ends: one command cancels them all
        await self.abort(*(job.key for job in jobs))

    async def cancel(self, *keys: str) -> None:
        """Stop jobs and forget them, also those that have ended: the next session runs them again."""
        await self._stop(keys, FORGOTTEN)
        for key in keys:
            self.note(key, FORGOTTEN)

    async def invalidate(self, *keys: str) -> None:
        """Stop jobs and count them as finished for ever."""
        await self._stop(keys, INVALIDATED)

    async def call_off(self, key: str) -> None:
        """As `invalidate`, of a job that another task is running or is about to run: its `run` returns soon."""
        await self._lives.end([key], INVALIDATED)

    def settled(self, job: Job) -> Outcome | None:
        """The outcome of a job that `run` would not run again; None where there is something to run or to wait for."""
        return self._lives.settled(job)

    def outcome(self, key: str) -> Outcome | None:
        """The outcome of ``key`` in the record, None where it has none (yet)."""
        attempts = self._ledger.attempts(key)
        return attempts[-1].outcome if attempts else None

    def latest(self, key: str) -> Attempt | None:
        """The latest attempt of ``key`` in the record, None where there is none."""
        return self._ledger.latest(key)

    def begun(self, key: str) -> bool:
        """Whether an attempt of ``key`` was ever planned."""
        return bool(self._ledger.attempts(key))

    def note(self, key: str, words: str) -> None:
        """Keep ``words`` with the latest attempt of ``key``."""
        for attempt in self._ledger.attempts(key)[-1:]:
            self._ledger.save(noted(attempt, words))

    def noted(self, key: str, words: str) -> bool:
        """Whether `note` was called with ``words`` for the latest attempt of ``key``."""
        return any(words in attempt.notes for attempt in self._ledger.attempts(key)[-1:])

    async def ask_to_stop(self, key: str, wish: Wish) -> bool:
        """Let the program of ``key`` know that it should end early (the file ``stop`` in its folder).

        A program that does not look for it runs on; what it has come to at its end then counts as `judge` says.

        Returns
        -------
        bool
            False if nothing of ``key`` runs here, or it was told before.
        """
        return await self._lives.ask_to_stop(key, wish)

    async def remove(self, *paths: str) -> None:
        """Remove files and folders of this study on the site, soon; what is not there is fine."""
        ours = [path for path in paths if path.startswith(f"{self.work_root}/") and "/../" not in path]
        if isinstance(self._transport, RemoteTransport):
            self._transport.remove_later(ours)
        else:
            await self._transport.remove(ours)

    async def withdraw(self, key: str) -> bool:
        """Take back a job that has not begun, to be run elsewhere; False if it has, or may have.

        Its `run` returns soon, with an outcome that counts as no end: another `run` begins it anew.
        """
        return await self._lives.withdraw(key)

    @property
    def waiting(self) -> Mapping[str, float]:
        """Since when jobs have been waiting for their start, by key."""
        return dict(self._lives.waiting)

    @property
    def waits(self) -> Sequence[tuple[float, float]]:
        """When the latest jobs to start did so, and for how many seconds each had waited."""
        return tuple(self._lives.waits)

    @property
    def at_rest(self) -> int:
        """How many jobs are with the scheduler, and were looked at and asked about since this session has them."""
        return self._lives.at_rest

    @property
    def scheduler_queries(self) -> int:
        """How many live queries the scheduler has been asked so far."""
        return self._watcher.queries

    @property
    def stuck(self) -> Mapping[str, str]:
        """Jobs in flight that wait for something that never comes, by key, in the scheduler's words."""
        return dict(self._lives.stuck)

    @property
    def next_stop(self) -> float | None:
        """When the site stops for maintenance, as it has announced it; None if nothing is announced."""
        stop = self._maintenance.stop
        return stop if stop is not None and stop > self.clock.now() else None

    # Behind it

    async def _stop(self, keys: Iterable[str], why: str) -> None:
        running = {key for key, task in self._tasks.items() if not task.done()}
        await self._lives.end([key for key in keys if key in running or key in self._lives.in_flight], why)
        await asyncio.gather(*(self._tasks[key] for key in keys if key in self._tasks), return_exceptions=True)

    def _each(self, resources: Resources, attempts: int | None) -> int:
        """How many attempts of these resources one job carries, if there are so many."""
        return place(self.site, resources, self._batch, attempts=attempts or self._limit or _MANY).pack

    async def _may_query(self) -> float:
        pause = await self._throttle.query()
        if pause and not self._queries_wait:
            self._tell("waiting", message="the site's limit of queries a minute is used up by your studies")
        self._queries_wait = pause > 0
        return pause

    def _waits(self, tag: str, words: str) -> None:
        self._tell("waiting", tag=tag, message=words)

    def _login(self, needed: LoginNeeded | None) -> None:
        words = "somebody has logged in: going on"
        if needed is not None:
            words = f"{needed.message}. Type: survey login --site {self.site.name}  Then the study goes on by itself"
        self._tell("waiting", message=words, login=needed is not None)

    def _room_is_lacking(self, words: str, lacking: bool) -> None:
        self._tell("waiting", message=words, room=lacking)

    def _holds(self, tag: str, stop: float) -> None:
        words = f"the site stops at {Maintenance.words(stop)}: the job would run into it, and goes after it"
        self._tell("held", tag=tag, until=stop, message=words)

    def _tell(self, event: str, **fields: Any) -> None:
        self._on_event({"time": self.clock.now(), "event": event, **fields})


def _anchored(batch: BatchOptions, origin: Path | None) -> BatchOptions:
    """``batch`` with the path of its template made absolute."""
    if batch.template is None or "/" not in batch.template or origin is None:
        return batch
    return batch.model_copy(update={"template": str(origin / Path(batch.template).expanduser())})
