"""One watcher for all attempts in flight: one look at their files, one query of the scheduler.

Results are noticed by the attempts' own files; the scheduler is asked only whether jobs that have
left nothing yet are still there. Every answer that is not a proof changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

from orchestrator import agent
from orchestrator.clock import Clock
from orchestrator.errors import SurveyError
from orchestrator.jobs.collect import Remains
from orchestrator.jobs.watched import Cadence, Watched
from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.reading import absent
from orchestrator.transports.base import Command, Completion, Transport

__all__ = ["Watcher"]

# Every job absent at once is what a restarting scheduler looks like: such an absence must last longer.
_OUTAGE_FACTOR = 3.0
_GROWTH = 1.5
# While nothing happens the looks grow rarer too, up to two and a half times the site's interval.
_CALM = 1.05
_CALMEST = 2.5
_JITTER = 0.1
_PLAIN_ENDS = (None, Verdict.SUCCEEDED, Verdict.FAILED)

_Answers: TypeAlias = dict[str, JobStatus]  # by tag: the attempts of a packed job share its id


async def _always() -> float:
    return 0.0


async def _uncounted() -> None:
    return None


class Watcher:
    """Watches attempts until each has ended.

    Parameters
    ----------
    may_query : callable
        Asked before each query: 0 if it may go, else the seconds until it may be asked for again.
    count_history : callable
        Called before each query of history: it follows upon an answer and cannot wait, but counts.
    on_output : callable
        Called with what each query printed, for announcements in it.
    on_trouble : callable
        Called with words where something is odd, once for each change.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        clock: Clock,
        cadence: Cadence,
        *,
        may_query: Callable[[], Awaitable[float]] = _always,
        count_history: Callable[[], Awaitable[None]] = _uncounted,
        on_output: Callable[[str], None] = lambda _text: None,
        on_trouble: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._clock = clock
        self._cadence = cadence
        self._may_query = may_query
        self._count_history = count_history
        self._on_output = on_output
        self._on_trouble = on_trouble
        # Over a connection that carries one command at a time the query travels with the look.
        self._one_exec = bool(getattr(transport, "one_exec", False))
        self._asking: asyncio.Task[_Answers] | None = None
        self._kept: _Answers | None = None
        self._told: set[str] = set()
        self._faults = 0
        self._watched: dict[str, Watched] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pause = cadence.look
        self._interval = cadence.query_min
        self._next_query = 0.0
        self._jitter = random.Random(0)
        self.queries = 0

    def start(self) -> None:
        """Begin to watch in a task of its own."""
        self._task = asyncio.create_task(self._loop(), name="watcher")

    async def stop(self) -> None:
        """End the watching; attempts in flight stay as they are."""
        for task in (tasks := [task for task in (self._task, self._asking) if task is not None]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def watch(self, watched: Watched) -> Remains:
        """Wait until the attempt has ended, and return what it left."""
        self._watched[watched.tag] = watched
        self.hurry()
        self._work.set()
        try:
            return await watched.remains
        finally:
            self._watched.pop(watched.tag, None)

    def abandon(self, watched: Watched) -> None:
        """Wait no longer for an attempt that is known never to begin."""
        if not watched.remains.done():
            watched.remains.set_result(self._remains(watched, None, watched.result))

    def hurry(self) -> None:
        """Something has changed: look and ask again soon."""
        self._pause = self._cadence.look
        self._interval = self._cadence.query_min
        self._next_query = min(self._next_query, self._clock.now() + self._interval)

    async def _loop(self) -> None:
        while True:
            if not self._watched:
                self._work.clear()
                await self._work.wait()
            self._pause = pause = min(self._pause * _CALM, self._cadence.look * _CALMEST)
            try:
                await self._cycle()
                self._faults = 0
            except SurveyError as error:
                # The ledger cannot be written, or the lease is lost: every slot must hear of it.
                for watched in list(self._watched.values()):
                    if not watched.remains.done():
                        watched.remains.set_exception(error)
            except Exception as error:
                # One odd cycle (an I/O error, an answer nobody foresaw) proves nothing about any job.
                self._faults += 1
                self._on_trouble(f"{type(error).__name__}: {error}")
                pause = min(2.0**self._faults, self._cadence.query_max)
            await self._clock.sleep(pause)

    async def _cycle(self) -> None:
        group = [watched for watched in self._watched.values() if not watched.remains.done()]
        answers = self._take_answers()
        command, asked = None, group
        if self._asking is None:
            command, asked = await self._due(group)
        query = None
        if command is not None and self._one_exec:
            query = {"argv": list(command.argv), "stdin": command.stdin, "timeout": command.timeout}
        elif command is not None:
            # A scheduler that takes a minute to answer must not hold up the news of ended attempts.
            self._asking = asyncio.create_task(self._ask(command, asked), name="query")
        reply = await self._transport.look(
            {
                "attempts": {
                    watched.directory: {
                        "progress": watched.offset,
                        "result": watched.suspect_since is not None,
                        "claim": not watched.claimed or watched.job_id is None,
                    }
                    for watched in group
                },
                "query": query,
            }
        )
        if reply is None:
            self._kept = answers  # to be weighed after a look that came later than they did
            return
        for watched in group:
            self._read_files(watched, reply["attempts"].get(watched.directory) or {})
            watched.looked = True
        if query is not None and command is not None and reply.get("query") is not None:
            said = reply["query"]
            completion = Completion(
                argv=command.argv,
                returncode=said.get("returncode"),
                stdout=said.get("stdout", ""),
                stderr=said.get("stderr", ""),
            )
            answers = await self._read_answer(asked, completion)
        if answers is not None:
            self._weigh_all(answers)

    async def _due(self, group: list[Watched]) -> tuple[Command | None, list[Watched]]:
        """The query that is due now, if one is, and whom it is about."""
        now = self._clock.now()
        asked = [watched for watched in group if watched.job_id is not None]
        if now < self._next_query or not asked:
            return None, asked
        if pause := await self._may_query():
            self._next_query = now + pause
            return None, asked
        self.queries += 1
        self._interval = min(self._interval * _GROWTH, self._cadence.query_max)
        self._next_query = now + self._interval * (1.0 + self._jitter.uniform(-_JITTER, _JITTER))
        return self._scheduler.query(_ids(asked)), asked

    async def _ask(self, command: Command, asked: list[Watched]) -> _Answers:
        return await self._read_answer(asked, await self._transport.run(command))

    def _take_answers(self) -> _Answers | None:
        """Answers of a query that has ended before this look begins: the files are never older than they are."""
        kept, self._kept = self._kept, None
        if self._asking is None or not self._asking.done():
            return kept
        asking, self._asking = self._asking, None
        return asking.result()

    def _read_files(self, watched: Watched, seen: Mapping[str, Any]) -> None:
        claim = seen.get("claim")
        if isinstance(claim, dict) and claim.get("by") == "agent":
            _note_claim(watched)
            if watched.job_id is None and claim.get("job_id"):
                watched.job_id = str(claim["job_id"])
        watched.offset = int(seen.get("offset", watched.offset))
        for line in str(seen.get("progress") or "").splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue
            if (report := _progress(data)) is not None:
                watched.on_progress(*report)
        report = seen.get("exit")
        if isinstance(report, dict) and not watched.remains.done():
            _note_claim(watched)
            if not self._is_unexplained(watched, report):
                self.hurry()
                watched.remains.set_result(self._remains(watched, report, seen.get("result")))
                return
            if watched.signalled is None:
                self.hurry()
            watched.signalled = report
        else:
            watched.signalled = None  # started again: its agent has removed the report
        if isinstance(seen.get("result"), str):
            # Kept for when the grace is over: a whole result counts even if the report never came.
            watched.result = seen["result"]

    def _is_unexplained(self, watched: Watched, report: Mapping[str, Any]) -> bool:
        """Whether to wait for the scheduler's word: a signal from outside is a timeout, a requeue, a cancel..."""
        if report.get("message") == agent.CANCELLED:
            return False  # we asked for it, and the job goes on for the attempts beside it
        return report.get("cause") == "signalled" and watched.job_id is not None and not _explains(watched.end)

    def _remains(self, watched: Watched, report: Mapping[str, Any] | None, result: Any) -> Remains:
        return Remains(
            report=report,
            result=result if isinstance(result, str) else None,
            trouble=f"result.json is too long ({result.get('too_long')} bytes)" if isinstance(result, dict) else "",
            end=watched.end,
            restarts=watched.restarts,
            claimed=watched.claimed,
            stopped=watched.stopped,
        )

    async def _read_answer(self, asked: list[Watched], completion: Completion) -> _Answers:
        """Each attempt's status by its tag, history's word included where the queue does not say how a job ended."""
        self._on_output(completion.stdout)
        ids = _ids(asked)
        listed = self._scheduler.parse_query(completion, ids)
        answers = {watched.tag: _own(watched, listed[watched.job_id or ""]) for watched in asked}
        open_ends = [watched for watched in asked if _is_open(watched, answers[watched.tag])]
        if open_ends:
            await self._ask_history(open_ends, answers)
        self._tell_evidence(answers.values())
        return answers

    async def _ask_history(self, open_ends: list[Watched], answers: _Answers) -> None:
        since = min(watched.submitted for watched in open_ends)
        ids = _ids(open_ends)
        command = self._scheduler.history(ids, since)
        if command is None:
            return
        await self._count_history()
        past = self._scheduler.parse_history(await self._transport.run(command), ids)
        for watched in open_ends:
            status = _own(watched, past[watched.job_id or ""])
            if answers[watched.tag].answer is Answer.ABSENT:
                if status.answer is not Answer.ABSENT:
                    answers[watched.tag] = status
            elif status.answer is Answer.ENDED and not _is_open(watched, status):
                answers[watched.tag] = status

    def _tell_evidence(self, statuses: Iterable[JobStatus]) -> None:
        """Say why answers prove nothing, once for each new reason."""
        reasons = {status.evidence for status in statuses if status.answer is Answer.UNKNOWN and status.evidence}
        for reason in sorted(reasons - self._told):
            self._on_trouble(f"the scheduler's answer proves nothing: {reason}")
        self._told = reasons

    def _weigh_all(self, answers: _Answers) -> None:
        present = [watched for watched in self._watched.values() if watched.tag in answers]
        jobs = {watched.job_id for watched in present}
        outage = len(jobs) > 1 and all(answers[watched.tag].answer is Answer.ABSENT for watched in present)
        for watched in present:
            watched.answered = True
            if not watched.remains.done():
                self._weigh(watched, answers[watched.tag], outage=outage)

    def _weigh(self, watched: Watched, status: JobStatus, *, outage: bool) -> None:
        now = self._clock.now()
        if watched.last is None or _shown(status) != _shown(watched.last):
            if status.answer is not Answer.UNKNOWN:
                self.hurry()
            watched.last = status
            watched.on_state(status)
        match status.answer:
            case Answer.UNKNOWN:
                return
            case Answer.ALIVE:
                watched.end = None
                if watched.suspect_since is not None:
                    watched.suspect_since = None
                    watched.on_suspect(None)
                self._weigh_signal(watched, status, now)
                return
            case Answer.ENDED:
                watched.end = status.end or JobEnd()
                watched.restarts = status.restarts or 0
            case Answer.ABSENT:
                pass
        if watched.suspect_since is None:
            watched.suspect_since = now
            watched.on_suspect(now)
        grace = self._cadence.grace * (_OUTAGE_FACTOR if outage else 1.0)
        if now - watched.suspect_since >= grace:
            self.hurry()
            watched.remains.set_result(self._remains(watched, watched.signalled, watched.result))
        else:
            self._next_query = min(self._next_query, watched.suspect_since + grace)

    def _weigh_signal(self, watched: Watched, status: JobStatus, now: float) -> None:
        """Believe a signal's report of a job that is still there only if it runs on without its agent."""
        if watched.signalled is None or status.state in {JobState.QUEUED, JobState.HELD, JobState.ENDING}:
            watched.signalled_since = None  # it ends, or starts again under the same id
            return
        watched.signalled_since = watched.signalled_since or now
        if now - watched.signalled_since >= self._cadence.grace:
            self.hurry()
            watched.remains.set_result(self._remains(watched, watched.signalled, watched.result))
        else:
            self._next_query = min(self._next_query, watched.signalled_since + self._cadence.grace)

    @property
    def states(self) -> dict[str, JobState]:
        """Latest known state of each attempt in flight, by tag."""
        return {tag: watched.last.state for tag, watched in self._watched.items() if watched.last is not None}


def _ids(group: Iterable[Watched]) -> list[str]:
    """Each job's id once."""
    return list(dict.fromkeys(watched.job_id for watched in group if watched.job_id is not None))


def _note_claim(watched: Watched) -> None:
    if not watched.claimed:
        watched.claimed = True
        watched.on_claim()


def _own(watched: Watched, status: JobStatus) -> JobStatus:
    """The status, if it is of our job: schedulers give ids anew after a reset. Lists may cut names short."""
    if not status.name or watched.name.startswith(status.name):
        return status
    return absent(status.job_id, f"the id {status.job_id} is of another job now, {status.name}")


def _is_open(watched: Watched, status: JobStatus) -> bool:
    """Whether only history can tell how the job ended, or whether it did."""
    if status.answer is Answer.ENDED:
        return (
            status.end is None or status.end.verdict is None or not (watched.signalled is None or _explains(status.end))
        )
    return status.answer is Answer.ABSENT


def _explains(end: JobEnd | None) -> bool:
    """Whether an end tells why the agent got a signal.

    That the job has failed does not: a list without exit codes says so of a job that was signalled, requeued,
    and then could not be launched again.
    """
    return end is not None and (end.verdict not in _PLAIN_ENDS or end.exit_code is not None)


def _shown(status: JobStatus) -> tuple[object, ...]:
    return status.state, status.word, status.reason, status.stuck


def _progress(data: object) -> tuple[int, float] | None:
    if not isinstance(data, dict):
        return None
    step, value = data.get("step"), data.get("value")
    if isinstance(step, bool) or isinstance(value, bool):
        return None
    return (step, float(value)) if isinstance(step, int) and isinstance(value, int | float) else None
