"""One job's life: planned, submitted, watched, judged, and perhaps once more.

Every step is on disk before the next one, so that the life can be taken up at any of them.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable

from orchestrator.clock import Clock
from orchestrator.config.site import BatchOptions, Site
from orchestrator.errors import Paused
from orchestrator.jobs.breaker import Breaker
from orchestrator.jobs.collect import Remains, judge
from orchestrator.jobs.dispatch import Dispatcher
from orchestrator.jobs.early import Wish, granted, wish_of
from orchestrator.jobs.packing import Packer, Withdrawn
from orchestrator.jobs.retry import (
    CHECKPOINTED,
    NEVER_RAN,
    Decision,
    RetryPolicy,
    asked_for,
    left_checkpoint,
    with_more_memory,
)
from orchestrator.jobs.submission import Accepted, NotThere, Rejected, Submitter, Unsettled, job_key, job_name
from orchestrator.jobs.throttle import Throttle
from orchestrator.jobs.watched import Watched
from orchestrator.jobs.watcher import Watcher
from orchestrator.model import Answer, Attempt, Job, JobStatus, Outcome, Resources, Verdict
from orchestrator.schedulers.base import Scheduler
from orchestrator.store.ledger import Ledger, new_tag
from orchestrator.transports.base import Transport

__all__ = ["ABORTED", "FORGOTTEN", "INVALIDATED", "MOVED", "Lives", "noted"]

ABORTED = "aborted"
INVALIDATED = "invalidated"
FORGOTTEN = "forgotten"
MOVED = "moved"
_REMEMBERED_WAITS = 5
_TO_BE_RUN_AGAIN = {ABORTED, FORGOTTEN, MOVED}
_ORDERS = {ABORTED, FORGOTTEN, INVALIDATED}
_RESULTS = {Verdict.SUCCEEDED, Verdict.STOPPED, Verdict.PAUSED}


class Lives:
    """The lives of a session's jobs.

    Parameters
    ----------
    site, batch : Site, BatchOptions
        Where the jobs run, and what they want of it: for the ledger, and for what a further attempt may ask for.
    orders : dict
        Jobs that are to end, by key, with one of the notes above; shared with whoever gives the orders.
    guard : callable
        Called before each durable step; raises if the lease was lost.
    tell : callable
        Called with an event's name and its fields.

    Attributes
    ----------
    in_flight : dict
        What is watched, by key.
    stuck : dict
        Jobs that wait for something that never comes, by key, in the scheduler's words.
    waiting : dict
        Since when each job's attempt has been waiting for its start, by key.
    waits : deque of (time, seconds)
        How long the latest attempts to start had waited, and when they started.
    """

    def __init__(
        self,
        *,
        site: Site,
        batch: BatchOptions,
        clock: Clock,
        ledger: Ledger,
        retry: RetryPolicy,
        breaker: Breaker,
        fence: str,
        throttle: Throttle,
        transport: Transport,
        scheduler: Scheduler,
        submitter: Submitter,
        dispatcher: Dispatcher,
        packer: Packer,
        watcher: Watcher,
        orders: dict[str, str],
        guard: Callable[[], None],
        tell: Callable[..., None],
    ) -> None:
        self._site = site
        self._batch = batch
        self._clock = clock
        self._ledger = ledger
        self._retry = retry
        self._breaker = breaker
        self._fence = fence
        self._throttle = throttle
        self._transport = transport
        self._scheduler = scheduler
        self._submitter = submitter
        self._dispatcher = dispatcher
        self._packer = packer
        self._watcher = watcher
        self._guard = guard
        self._tell = tell
        self.orders = orders
        self._to_begin_anew: set[str] = set()
        self.in_flight: dict[str, Watched] = {}
        self.stuck: dict[str, str] = {}
        self.waiting: dict[str, float] = {}
        self.waits: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED_WAITS)

    async def run(self, job: Job) -> Outcome:
        """Take one job through its attempts, those of earlier drivers included; returns the last one's outcome.

        Raises
        ------
        Paused
            If the scheduler refuses the job for a reason that a person must mend, or too much has failed in a row.
        """
        if (known := self.settled(job)) is not None:
            return known
        attempts = list(self._ledger.attempts(job.key))
        while True:
            try:
                if attempts and attempts[-1].outcome is None:
                    self.waiting[job.key] = attempts[-1].planned
                    attempt = await self._resume(job, attempts[-1])
                else:
                    self._breaker.check()
                    self.waiting[job.key] = self._clock.now()
                    further = self._next(job, attempts)[1]
                    more = None if further.resources == job.resources else further.resources.memory
                    attempt = await self._begin(further, memory=more)
            finally:
                self.waiting.pop(job.key, None)
            attempts = list(self._ledger.attempts(job.key))
            outcome = attempt.outcome
            assert outcome is not None
            if outcome.verdict is Verdict.REJECTED:
                raise Paused(
                    f"the scheduler of site {self._site.name!r} refuses {job.key}: {outcome.reason}",
                    hint="mend the study or the site, then run it again; nothing was lost",
                )
            if job.key in self._to_begin_anew:
                self._to_begin_anew.remove(job.key)
                continue
            if not {INVALIDATED, *_TO_BE_RUN_AGAIN}.isdisjoint(attempt.notes):
                return outcome
            decision, further = self._next(job, attempts)
            facts = {"key": job.key, "attempt": attempt.number, "verdict": str(outcome.verdict), "why": decision.why}
            if not decision.again:
                if outcome.verdict not in _RESULTS:
                    self._tell("given-up", **facts)
                return outcome
            if further.resources != asked_for(job, attempt):
                facts["memory"] = further.resources.memory
            self._tell("retry", **facts, message=outcome.reason)

    def settled(self, job: Job) -> Outcome | None:
        """The outcome of a job that would not be run (again); None if there is something to run or to wait for."""
        attempts = list(self._ledger.attempts(job.key))
        return attempts[-1].outcome if attempts and self._final(job, attempts) else None

    def _next(self, job: Job, attempts: list[Attempt]) -> tuple[Decision, Job]:
        """Decide whether another attempt follows, and make the job as that one would ask for it."""
        if not attempts:
            return Decision(again=True, why="it is the first attempt"), job
        last = attempts[-1]
        needs: Resources | None = asked_for(job, last)
        if last.outcome is not None and last.outcome.verdict is Verdict.OUT_OF_MEMORY:
            needs = with_more_memory(self._site, self._batch, asked_for(job, last), last, self._retry.memory_factor)
        decision = self._retry.decide(attempts, roomier=needs is not None)
        return decision, job if needs is None else dataclasses.replace(job, resources=needs)

    def _final(self, job: Job, attempts: list[Attempt]) -> bool:
        last = attempts[-1]
        if last.outcome is None or last.outcome.verdict is Verdict.REJECTED:
            return False
        if INVALIDATED in last.notes:
            return True
        if not _TO_BE_RUN_AGAIN.isdisjoint(last.notes):
            return False
        if last.outcome.verdict is Verdict.PAUSED:
            return last.number > job.beyond
        return not self._next(job, attempts)[0].again

    async def _begin(self, job: Job, *, memory: int | None) -> Attempt:
        self._guard()
        attempt = self._ledger.plan(
            job.key,
            tag=new_tag(job.number),
            fence=self._fence,
            params=job.params,
            now=self._clock.now(),
            site=self._site.name,
            memory=memory,
        )
        self._tell("planned", key=job.key, attempt=attempt.number, tag=attempt.tag)
        if (asked := self.orders.pop(job.key, None)) is not None:
            return self._end(
                noted(attempt, asked), self._void(job, attempt, Verdict.CANCELLED, f"{asked} before it was submitted")
            )
        try:
            sent = await self._packer.add(job, attempt)
        except Withdrawn:
            asked = self.orders.pop(job.key)
            return self._end(
                noted(attempt, asked), self._void(job, attempt, Verdict.CANCELLED, f"{asked} before it was submitted")
            )
        if isinstance(sent.answer, Accepted):
            self._breaker.accepted()
            return await self._watch(job, sent.attempt)
        if not isinstance(sent.answer, Unsettled):
            return await self._follow(job, sent.attempt, sent.answer)
        found = await self._submitter.recover(sent.attempt)
        if isinstance(found, NotThere):
            self._breaker.in_vain(sent.attempt, sent.answer.reason, self._clock.now())
        else:
            self._breaker.accepted()
        return await self._follow(job, sent.attempt, found)

    async def _resume(self, job: Job, attempt: Attempt) -> Attempt:
        self._tell("found", key=job.key, attempt=attempt.number, tag=attempt.tag, job_id=attempt.job_id or "")
        if attempt.job_id is not None:
            return await self._watch(job, attempt)
        return await self._follow(job, attempt, await self._submitter.recover(attempt))

    async def _follow(self, job: Job, attempt: Attempt, answer: Accepted | Rejected | NotThere) -> Attempt:
        if isinstance(answer, NotThere):
            self._throttle.leave(job_key(attempt), attempt.tag)
            reason = "never submitted: the driver ended, or the submit failed, before the scheduler took it"
            return self._end(noted(attempt, NEVER_RAN), self._void(job, attempt, Verdict.LOST, reason))
        if isinstance(answer, Rejected):
            return self._end(attempt, self._void(job, attempt, Verdict.REJECTED, answer.reason))
        self._guard()
        return await self._watch(job, self._dispatcher.accepted(attempt, answer.job_id, found=True))

    async def _watch(self, job: Job, attempt: Attempt) -> Attempt:
        directory = self._submitter.directory(attempt)

        def suspect(since: float | None) -> None:
            self._ledger.save(dataclasses.replace(self._latest(attempt), suspect_since=since))
            self._tell("suspect" if since else "back", key=job.key, attempt=attempt.number)

        def state(status: JobStatus) -> None:
            if status.stuck:
                self.stuck[job.key] = f"{status.word}: {status.reason}" if status.reason else status.word
            elif status.answer is not Answer.UNKNOWN:
                self.stuck.pop(job.key, None)
            self._tell(
                "state",
                key=job.key,
                state=str(status.state),
                word=status.word,
                message=status.reason,
                stuck=status.stuck,
            )

        def claimed() -> None:
            if (since := self.waiting.pop(job.key, None)) is not None:
                self.waits.append((self._clock.now(), self._clock.now() - since))

        watched = Watched(
            tag=attempt.tag,
            directory=directory,
            name=job_name(attempt),
            job_id=attempt.job_id,
            submitted=attempt.submitted or attempt.planned,
            suspect_since=attempt.suspect_since,
            stopped=wish_of(attempt) is not None,
            answered=attempt.fence == self._fence,  # it was submitted just now: nobody knows more
            on_progress=lambda step, value: self._tell("progress", key=job.key, step=step, value=value),
            on_state=state,
            on_suspect=suspect,
            on_claim=claimed,
        )
        self.in_flight[job.key] = watched
        self._throttle.enter(job_key(attempt), attempt.tag)
        try:
            if (wish := wish_of(attempt)) is not None:
                await self._tell_program(watched, wish)  # the driver that wished it may not have come to this
            if job.key in self.orders:
                await self.end([job.key], self.orders[job.key])
            remains: Remains = await self._watcher.watch(watched)
        finally:
            del self.in_flight[job.key]
            self.stuck.pop(job.key, None)
            self._throttle.leave(job_key(attempt), attempt.tag)
        if not remains.claimed:
            # The job is gone and its agent never came: nothing may start under this tag any more.
            await self._transport.revoke(directory, attempt.tag)
        attempt = self._latest(attempt)
        attempt = dataclasses.replace(attempt, job_id=attempt.job_id or watched.job_id)
        outcome = judge(job, attempt, remains, directory=directory, now=self._clock.now())
        if (wish := wish_of(attempt)) is not None:
            outcome = granted(wish, outcome)
        if left_checkpoint(remains.report, attempt.tag):
            attempt = noted(attempt, CHECKPOINTED)
        if MOVED in attempt.notes:
            if not remains.claimed:
                reason = "taken back before it began, to be run on another site"
                return self._end(attempt, dataclasses.replace(outcome, verdict=Verdict.CANCELLED, reason=reason))
            attempt = _unnoted(attempt, MOVED)
        asked = self.orders.pop(job.key, None)
        if asked is None and (before := _ORDERS.intersection(attempt.notes)):
            # An earlier driver gave the order, and died before it saw the job's end: nobody here wants the job ended.
            asked = before.pop()
            if asked != INVALIDATED and not outcome.succeeded:
                self._to_begin_anew.add(job.key)
        if asked is not None and outcome.succeeded:
            attempt = _unnoted(attempt, asked)
        elif asked is not None:
            attempt = noted(attempt, asked)
            outcome = dataclasses.replace(outcome, verdict=Verdict.CANCELLED, reason=f"{asked} on request")
        return self._end(attempt, outcome)

    def _latest(self, attempt: Attempt) -> Attempt:
        """The attempt as the ledger has it: notes may have come to it meanwhile."""
        return self._ledger.attempts(attempt.key)[-1]

    def _end(self, attempt: Attempt, outcome: Outcome) -> Attempt:
        self._guard()
        attempt = dataclasses.replace(attempt, outcome=outcome)
        self._ledger.save(attempt)
        self._breaker.ended(outcome)
        self._tell(
            "ended", key=attempt.key, attempt=attempt.number, verdict=str(outcome.verdict), message=outcome.reason
        )
        return attempt

    def _void(self, job: Job, attempt: Attempt, verdict: Verdict, reason: str) -> Outcome:
        return Outcome(
            key=job.key,
            verdict=verdict,
            reason=reason,
            attempts=attempt.number,
            tag=attempt.tag,
            ended=self._clock.now(),
            directory=self._submitter.directory(attempt),
        )

    @property
    def at_rest(self) -> int:
        """How many jobs are with the scheduler, with all known that can be until time has passed."""
        return sum(
            watched.looked and (watched.answered or watched.job_id is None) and not watched.remains.done()
            for watched in self.in_flight.values()
        )

    async def ask_to_stop(self, key: str, wish: Wish) -> bool:
        """Have the program of an attempt in flight end early; False if there is none, or it has been told before."""
        watched = self.in_flight.get(key)
        if watched is None or watched.stopped or watched.remains.done():
            return False
        self._guard()
        # Written ahead: whoever finds what the program leaves then finds out that it is no result.
        self._ledger.save(noted(self._ledger.attempts(key)[-1], str(wish)))
        watched.stopped = True
        await self._tell_program(watched, wish)
        return True

    async def _tell_program(self, watched: Watched, wish: Wish) -> None:
        await self._transport.put({f"{watched.directory}/stop": f"{wish}\n".encode()})

    async def withdraw(self, key: str) -> bool:
        """Take back a job whose attempt has not begun; False if it has, or may have: then nothing changes.

        The `run` of the job returns when its attempt is closed, and no late starter can follow.
        """
        watched = self.in_flight.get(key)
        if watched is None or watched.claimed or key in self.orders:
            return False  # on its way to the scheduler, or begun
        attempt = self._ledger.attempts(key)[-1]
        self._guard()
        # The note comes before the claim is taken: a driver that dies in between leaves nothing to be misread.
        self._ledger.save(noted(attempt, MOVED))
        if not await self._transport.revoke(watched.directory, watched.tag):
            self._ledger.save(_unnoted(self._latest(attempt), MOVED))
            return False
        alone = attempt.packed == 1 or not await self._clock.blocking(lambda: self._has_company(attempt))
        if alone and watched.job_id is not None:
            await self._transport.run(self._scheduler.cancel([watched.job_id]))
        self._watcher.abandon(watched)
        return True

    async def end(self, keys: Iterable[str], why: str) -> None:
        """Order the end of jobs; the `run` of each returns when it has come."""
        keys = list(keys)
        self.orders.update(dict.fromkeys(keys, why))
        whole: list[str] = []
        for key in keys:
            if (watched := self.in_flight.get(key)) is None:
                self._packer.withdraw(key)
                continue
            self._guard()
            # Written ahead: whoever finds the job cancelled finds out that it was wanted.
            self._ledger.save(noted(self._ledger.attempts(key)[-1], why))
            if (job_id := await self._halt(key, watched)) is not None:
                whole.append(job_id)
        if whole:
            await self._transport.run(self._scheduler.cancel(list(dict.fromkeys(whole))))
            self._watcher.hurry()

    async def _halt(self, key: str, watched: Watched) -> str | None:
        """End one attempt; the id of its job if nothing else that is wanted runs in it, and it is to be cancelled."""
        attempt = self._ledger.attempts(key)[-1]
        if attempt.packed == 1 or not await self._clock.blocking(lambda: self._has_company(attempt)):
            return watched.job_id
        if await self._transport.revoke(watched.directory, watched.tag):
            self._watcher.abandon(watched)
        else:
            await self._transport.put({f"{watched.directory}/cancel": b"cancel\n"})
            self._watcher.hurry()
        return None

    def _has_company(self, attempt: Attempt) -> bool:
        """Whether its job carries another attempt that is to go on, be it of a job that is not taken up yet."""
        if any(
            watched.job_id is not None and watched.job_id == attempt.job_id and key not in self.orders
            for key, watched in list(self.in_flight.items())
        ):
            return True
        known = self._ledger.keys()
        return any(
            key not in self.orders and other.outcome is None and job_key(other) == job_key(attempt)
            for key in known
            for other in self._ledger.attempts(key)
        )


def noted(attempt: Attempt, note: str) -> Attempt:
    """``attempt`` with one more note."""
    return attempt if note in attempt.notes else dataclasses.replace(attempt, notes=(*attempt.notes, note))


def _unnoted(attempt: Attempt, note: str) -> Attempt:
    return dataclasses.replace(attempt, notes=tuple(each for each in attempt.notes if each != note))
