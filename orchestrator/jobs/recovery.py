"""What became of a submit whose outcome is not known.

A driver that was killed between its submit and the note of the job id, and a submit command that
timed out, are the same case: the job is looked up by its name, several times over the site's settle
time, in the queue, in history and in the attempt's own files. Only then is the attempt's claim taken
away, atomically, so that whatever still starts late finds that it may not.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.clock import Clock
from orchestrator.jobs.throttle import Throttle
from orchestrator.model import JobState, JobStatus
from orchestrator.schedulers.base import Found, Scheduler
from orchestrator.transports.base import Transport

__all__ = ["Fate", "Finder", "Located", "Sought", "locate"]

_LOOKS = 4
_PATIENCE = 30.0
_TELL_AFTER = 5


class Fate(enum.StrEnum):
    """What is known of the submit."""

    FOUND = "found"  # the scheduler lists a job of this name
    CLAIMED = "claimed"  # an agent has claimed the attempt; the job's id may not be known
    NEVER = "never"  # not found, and the claim is ours: it will never run


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Answer of `locate`; further jobs of the same name (a submit that was taken twice) are ``surplus``."""

    fate: Fate
    job_id: str | None = None
    surplus: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """An attempt whose job is looked for.

    Attributes
    ----------
    name : str
        The job's name; several attempts of a packed or an array job have the same.
    index : int or None
        The element of an array job.
    since : float
        When it can have been submitted at the earliest.
    """

    tag: str
    directory: str
    name: str
    since: float
    index: int | None = None


class Finder:
    """Looks jobs up by name: whoever asks while a look-up waits for its turn shares the next one.

    A driver that comes back to a hundred attempts must not ask its scheduler a hundred times.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        clock: Clock,
        throttle: Throttle,
        *,
        on_output: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._clock = clock
        self._throttle = throttle
        self._on_output = on_output
        self._asked: dict[str, float] = {}
        self._next: asyncio.Task[Found] | None = None
        self._looks: set[asyncio.Task[Found]] = set()
        self._turn = asyncio.Lock()
        self._kept: dict[str, str] = {}

    async def find(self, name: str, since: float) -> tuple[tuple[str, ...], Found]:
        """Ids of the jobs called ``name``, the one to keep first, and the answer they are from.

        Of an array job the id is the whole's. Once a job is chosen it stays the one to keep, so that
        the attempts of one job never part over which of two to follow.
        """
        self._asked[name] = min(since, self._asked.get(name, since))
        if self._next is None:
            self._next = asyncio.create_task(self._look(), name="look-up")
            self._looks.add(self._next)
            self._next.add_done_callback(self._looks.discard)
        found = await asyncio.shield(self._next)
        jobs = sorted(found.jobs.get(name, ()), key=_first)
        ids = list(dict.fromkeys(self._scheduler.whole(job.job_id) for job in jobs))
        if ids:
            kept = self._kept.setdefault(name, ids[0])
            ids = [kept, *(job_id for job_id in ids if job_id != kept)]
        return tuple(ids), found

    async def close(self) -> None:
        """End what is under way."""
        for look in (looks := list(self._looks)):
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _look(self) -> Found:
        async with self._turn:
            while pause := await self._throttle.query():
                await self._clock.sleep(pause)
            asked, self._asked, self._next = self._asked, {}, None
            commands = self._scheduler.find(list(asked), min(asked.values()))
            completions = [await self._transport.run(command) for command in commands]
            for completion in completions:
                self._on_output(completion.stdout)
            return self._scheduler.parse_find(completions, list(asked))


def _first(job: JobStatus) -> bool:
    # Of two jobs that may carry the same attempts, the one that runs has most likely claimed them.
    return job.state is not JobState.RUNNING


async def locate(
    transport: Transport,
    scheduler: Scheduler,
    clock: Clock,
    finder: Finder,
    sought: Sought,
    *,
    settle: float,
    on_wait: Callable[[str], None] = lambda _words: None,
) -> Located:
    """Find out whether the job that carries an attempt exists; returns only when that is certain.

    Queries that cannot be trusted are repeated, ever more slowly: they prove nothing.
    """
    looks, pause, vain, told = 0, settle / _LOOKS, 0, ""
    while True:
        if (claim := await _claimed(transport, sought.directory)) is not None:
            return Located(fate=Fate.CLAIMED, job_id=claim or None, evidence="the attempt's claim")
        ids, found = await finder.find(sought.name, sought.since)
        if ids:
            job_id = ids[0] if sought.index is None else scheduler.element(ids[0], sought.index)
            return Located(fate=Fate.FOUND, job_id=job_id, surplus=ids[1:], evidence=found.evidence)
        if found.trusted:
            looks += 1
            if looks > _LOOKS and await transport.revoke(sought.directory, sought.tag):
                return Located(fate=Fate.NEVER, evidence=found.evidence)
        else:
            vain += 1
            pause = min(pause * 2 + 1.0, _PATIENCE)
            if vain > _TELL_AFTER and found.evidence != told:
                told = found.evidence
                on_wait(f"the job {sought.name} cannot be looked up: {told}; nothing is submitted until it can")
        await clock.sleep(pause)


async def _claimed(transport: Transport, directory: str) -> str | None:
    """The claiming job's id ("" where the agent did not know it), or None without an agent's claim."""
    reply = await transport.look({"attempts": {directory: {"progress": 0}}, "query": None})
    claim = ((reply or {}).get("attempts", {}).get(directory) or {}).get("claim")
    if isinstance(claim, dict) and claim.get("by") == "agent":
        return str(claim.get("job_id") or "")
    return None
