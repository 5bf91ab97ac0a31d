"""Several sites at once: each job goes where it is likely to start first.

A fleet looks like one session. Every site keeps a session of its own, and a share: the most jobs in
flight there. A job that waits on one site while another would start it now is taken back, if it has
certainly not begun, and goes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import ResumeMismatch
from orchestrator.jobs.early import Wish
from orchestrator.jobs.life import FORGOTTEN, MOVED
from orchestrator.jobs.session import Session
from orchestrator.model import Job, Outcome

__all__ = ["Berth", "Fleet", "delay"]

# Waits that differ by less than this are the same: a poll interval lies between them.
_ALIKE = 30.0
# What was seen of a queue is worth nothing after a day.
_STALE = 86400.0
# A job stays where it is for at least so long, and as long again as the other site is likely to need.
_PATIENCE = 120.0
_LOOK = 15.0


@dataclass(slots=True, eq=False)
class Berth:
    """A site's place in a fleet.

    Attributes
    ----------
    session : Session
        Runs the jobs there.
    share : int
        Most jobs in flight there at a time.
    fit : callable
        The job as it is run there: environment, working directory.
    taken : int
        Jobs in flight there.
    """

    session: Session
    share: int
    fit: Callable[[Job], Job] = lambda job: job
    taken: int = 0

    @property
    def name(self) -> str:
        """The site's name."""
        return self.session.site.name


def delay(waiting: Iterable[float], waits: Sequence[tuple[float, float]], now: float) -> float:
    """Seconds that one more job is likely to wait on a site.

    Parameters
    ----------
    waiting : iterable of float
        Since when jobs wait there.
    waits : sequence of (float, float)
        When the latest jobs started there, and how long each had waited.
    """
    seen = [seconds for when, seconds in waits if now - when < _STALE]
    return max([statistics.median(seen) if seen else 0.0, *(now - since for since in waiting)])


class Fleet:
    """Sessions on several sites, as one.

    Parameters
    ----------
    berths : sequence of Berth
        Of one study: their sessions share one root.
    limit : int
        Largest number of jobs in flight, over all sites.
    """

    def __init__(self, berths: Sequence[Berth], *, limit: int, clock: Clock | None = None) -> None:
        self._berths = tuple(berths)
        self._clock: Clock = clock or SystemClock()
        self._room = asyncio.Semaphore(limit)
        self._free = asyncio.Condition()
        self._where: dict[str, str] = {}
        self._promised: dict[str, Berth] = {}
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            for berth in self._berths:
                await stack.enter_async_context(berth.session)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, trace)

    async def run(self, job: Job) -> Outcome:
        """Take one job through its attempts, on one site or another; as `Session.run`."""
        async with self._room:
            while True:
                berth = await self._take(job.key)
                self._where[job.key] = berth.name
                try:
                    outcome = await self._run_on(berth, job)
                finally:
                    await self._leave(berth)
                if not berth.session.noted(job.key, MOVED):
                    return outcome

    async def ask_to_stop(self, key: str, wish: Wish) -> bool:
        """As `Session.ask_to_stop`, on whichever site the job is in flight."""
        for berth in self._berths:
            if await berth.session.ask_to_stop(key, wish):
                return True
        return False

    def settled(self, job: Job) -> Outcome | None:
        """As `Session.settled`, on the site that had the job last."""
        latest = self._berths[0].session.latest(job.key)
        if latest is None or latest.outcome is None:
            return None
        berth = next((berth for berth in self._berths if berth.name == latest.site), self._berths[0])
        outcome = berth.session.settled(berth.fit(job))
        if outcome is not None:
            self._where[job.key] = latest.site or berth.name
        return outcome

    def forget(self, key: str) -> None:
        """Have a job that has ended run again: its next `run` begins anew."""
        if not self.in_flight(key):
            self._berths[0].session.note(key, FORGOTTEN)

    def in_flight(self, key: str) -> bool:
        """Whether a job has an attempt that has not ended, of this fleet or of an earlier one."""
        latest = self._berths[0].session.latest(key)
        return latest is not None and latest.outcome is None

    async def call_off(self, key: str) -> None:
        """As `Session.call_off`, wherever the job is or is about to be."""
        for berth in self._berths:
            await berth.session.call_off(key)

    async def abort(self, *jobs: Job) -> None:
        """Stop jobs of earlier fleets that are in flight; the next fleet runs them again."""
        taken: dict[str, list[Job]] = {}
        for job in jobs:
            berth = self._bound(job.key) or self._berths[0]
            taken.setdefault(berth.name, []).append(berth.fit(job))
        await asyncio.gather(
            *(berth.session.abort_begun(*taken[berth.name]) for berth in self._berths if berth.name in taken)
        )

    def expect_array(self, *jobs: Job) -> int:
        """As `Session.expect_array`; no job of several sites is expected: where it goes is decided one by one."""
        return self._berths[0].session.expect_array(*jobs) if len(self._berths) == 1 else 0

    async def remove(self, *paths: str) -> None:
        """Remove files and folders of this study, on whichever site they are."""
        # An attempt's folder is on one site only, and what is not there is fine.
        for berth in self._berths:
            await berth.session.remove(*paths)

    def site_of(self, key: str) -> str:
        """Name of the site on which a job was run last."""
        return self._where.get(key, "")

    @property
    def stuck(self) -> Mapping[str, str]:
        """As `Session.stuck`, over all sites."""
        return {key: words for berth in self._berths for key, words in berth.session.stuck.items()}

    @property
    def next_stop(self) -> float | None:
        """As `Session.next_stop`: the first of all sites."""
        return min((stop for berth in self._berths if (stop := berth.session.next_stop) is not None), default=None)

    @property
    def at_rest(self) -> int:
        """As `Session.at_rest`, over all sites."""
        return sum(berth.session.at_rest for berth in self._berths)

    @property
    def scheduler_queries(self) -> int:
        """How many live queries the schedulers have been asked so far."""
        return sum(berth.session.scheduler_queries for berth in self._berths)

    # Behind it

    async def _take(self, key: str) -> Berth:
        """A place on the site where the job is already, or on the one where it is likely to start first."""
        async with self._free:
            if (promised := self._promised.pop(key, None)) is not None:
                return promised
            bound = self._bound(key)
            while True:
                berth = bound or self._best([berth for berth in self._berths if berth.taken < berth.share])
                if berth is not None:
                    berth.taken += 1
                    return berth
                await self._free.wait()

    async def _leave(self, berth: Berth) -> None:
        async with self._free:
            berth.taken -= 1
            self._free.notify_all()

    def _bound(self, key: str) -> Berth | None:
        """The site that has the job's latest attempt, whether it is in flight or needs another one there."""
        attempt = self._berths[0].session.latest(key)
        if attempt is None or (MOVED in attempt.notes and attempt.outcome is not None):
            return None
        if len(self._berths) == 1 or not attempt.site:
            return self._berths[0]
        for berth in self._berths:
            if berth.name == attempt.site:
                return berth
        if attempt.outcome is None:
            raise ResumeMismatch(
                f"job {key} is in flight on site {attempt.site!r}, which the study does not name any more",
                hint=f"put {attempt.site} back into `sites:` until it has ended",
            )
        return None

    def _best(self, berths: Sequence[Berth]) -> Berth | None:
        now = self._clock.now()

        def rank(berth: Berth) -> tuple[int, float]:
            seconds = delay(berth.session.waiting.values(), berth.session.waits, now)
            return int(math.log2(1.0 + seconds / _ALIKE)), berth.taken / berth.share

        return min(berths, key=rank, default=None)

    async def _run_on(self, berth: Berth, job: Job) -> Outcome:
        task = asyncio.create_task(berth.session.run(berth.fit(job)), name=job.key)
        try:
            while len(self._berths) > 1 and not task.done():
                nap = asyncio.create_task(self._clock.sleep(_LOOK))
                await asyncio.wait({task, nap}, return_when=asyncio.FIRST_COMPLETED)
                nap.cancel()
                since = berth.session.waiting.get(job.key)
                if since is None:
                    break  # it has begun, and stays
                if (other := self._sooner_elsewhere(berth, since)) is not None:
                    await self._move(job.key, berth, other)
            return await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _sooner_elsewhere(self, here: Berth, since: float) -> Berth | None:
        """A site with a free place where nothing waits, and where a job has so far waited for less than this one."""
        now = self._clock.now()
        for berth in self._berths:
            idle = berth.taken < berth.share and not berth.session.waiting and berth not in self._promised.values()
            if idle and berth is not here and now - since > _PATIENCE + 2.0 * delay((), berth.session.waits, now):
                return berth
        return None

    async def _move(self, key: str, here: Berth, there: Berth) -> None:
        there.taken += 1
        self._promised[key] = there
        if not await here.session.withdraw(key):
            del self._promised[key]
            await self._leave(there)
