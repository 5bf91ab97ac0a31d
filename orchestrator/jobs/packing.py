"""Which attempts share a batch job: side by side on a node, or as elements of an array job.

On a site that hands out whole nodes an attempt waits a little for others of the same resources, and
the job goes when the node is full or the wait is over. Attempts that were announced together go as
one array job as soon as all of them have come. Each attempt keeps its own claim, logs and verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.clock import Clock
from orchestrator.jobs.submission import Accepted, Bundle, NotThere, Rejected, Unsettled
from orchestrator.model import Attempt, Job, Resources

__all__ = ["Packer", "Sent", "Withdrawn"]

_LEAST_ELEMENTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An attempt as it was submitted, and what became of the submit."""

    attempt: Attempt
    answer: Accepted | Rejected | Unsettled | NotThere


class Withdrawn(Exception):
    """The attempt was taken back before its job was submitted."""


@dataclass(slots=True, eq=False)
class _Member:
    job: Job
    attempt: Attempt
    sent: asyncio.Future[Sent]


@dataclass(slots=True, kw_only=True, eq=False)
class _Gathering:
    """Attempts that wait to be submitted together; ``full`` is how many make it go at once."""

    each: int
    full: int
    array: bool = False
    members: list[_Member] = field(default_factory=list)
    timer: asyncio.Task[None] | None = None


class Packer:
    """Gathers attempts into bundles and has them sent.

    Parameters
    ----------
    wait : float
        Seconds that the first attempt of a job waits for others.
    each : callable
        How many attempts of these resources one job carries, if there are so many (None: enough).
    send : callable
        Submits a bundle: its attempts as they were written down, in order, and the answer; None for an array
        job that was refused as such.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        wait: float,
        each: Callable[[Resources, int | None], int],
        send: Callable[[Bundle], Awaitable[Sequence[Sent] | None]],
        on_wait: Callable[[str, str], None] = lambda _tag, _words: None,
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._each = each
        self._send = send
        self._on_wait = on_wait
        self._open: dict[Resources, _Gathering] = {}
        self._announced: dict[str, _Gathering] = {}
        self._waiting: dict[str, tuple[_Gathering, _Member]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, keys: Iterable[str], each: int) -> None:
        """The next attempts of these jobs are to go as one array job, ``each`` of them in an element."""
        keys = list(keys)
        gathering = _Gathering(each=each, full=len(keys), array=True)
        self._announced.update(dict.fromkeys(keys, gathering))

    async def add(self, job: Job, attempt: Attempt) -> Sent:
        """Wait until the job that carries the attempt was submitted.

        Raises
        ------
        Withdrawn
            If `withdraw` took it back.
        """
        gathering = self._announced.pop(job.key, None)
        if gathering is None:
            each = self._each(job.resources, None)
            gathering = self._open.setdefault(job.resources, _Gathering(each=each, full=each))
        member = _Member(job, attempt, asyncio.get_running_loop().create_future())
        gathering.members.append(member)
        self._waiting[job.key] = (gathering, member)
        if len(gathering.members) >= gathering.full:
            self._go(gathering)
        elif gathering.timer is None:
            gathering.timer = self._task(self._go_later(gathering))
            words = f"waits {self._wait:g} s at most for attempts to share its job with ({gathering.full} fill it)"
            self._on_wait(attempt.tag, words)
        try:
            return await member.sent
        finally:
            self._leave(job.key, member)

    def withdraw(self, key: str) -> bool:
        """Take an attempt back; False if it is not waiting, or its job is being submitted already."""
        if key not in self._waiting:
            return False
        _, member = self._waiting[key]
        self._leave(key, member)
        member.sent.set_exception(Withdrawn(key))
        return True

    async def close(self) -> None:
        """End what is under way, as a crash would."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _leave(self, key: str, member: _Member) -> None:
        gathering, waiting = self._waiting.get(key, (None, None))
        if gathering is None or waiting is not member:
            return
        del self._waiting[key]
        gathering.members.remove(member)
        if gathering.array:
            gathering.full -= 1
            if gathering.members and len(gathering.members) >= gathering.full:
                self._go(gathering)
        if not gathering.members and gathering.timer is not None:
            gathering.timer.cancel()
            gathering.timer = None

    async def _go_later(self, gathering: _Gathering) -> None:
        await self._clock.sleep(self._wait)
        gathering.timer = None
        self._go(gathering)

    def _go(self, gathering: _Gathering) -> None:
        if gathering.timer is not None:
            gathering.timer.cancel()
            gathering.timer = None
        members, gathering.members = gathering.members, []
        for member in members:
            del self._waiting[member.job.key]
        self._open = {needs: other for needs, other in self._open.items() if other is not gathering}
        for key in [key for key, other in self._announced.items() if other is gathering]:
            del self._announced[key]  # a hook failed, or takes too long: it goes by itself
        elements = len(members) // gathering.each if gathering.array else 0
        if elements >= _LEAST_ELEMENTS:
            self._task(self._hand_over(members[: elements * gathering.each], elements))
            members = members[elements * gathering.each :]
        self._send_jobs(members)

    def _send_jobs(self, members: list[_Member]) -> None:
        while members:
            # For few of them the cheapest queue may be another one, which carries fewer in a job.
            each = self._each(members[0].job.resources, len(members))
            self._task(self._hand_over(members[:each], None))
            members = members[each:]

    async def _hand_over(self, members: Sequence[_Member], elements: int | None) -> None:
        bundle = Bundle(members=tuple((member.job, member.attempt) for member in members), elements=elements)
        try:
            sent = await self._send(bundle)
        except Exception as error:  # whatever it is, each attempt's own coroutine must hear of it
            for member in members:
                if not member.sent.done():
                    member.sent.set_exception(error)
            return
        if sent is None:
            self._send_jobs([member for member in members if not member.sent.done()])
            return
        for member, one in zip(members, sent, strict=True):
            if not member.sent.done():
                member.sent.set_result(one)

    def _task(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
