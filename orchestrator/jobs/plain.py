"""The plain survey: prepare jobs, submit them, sync; after Xcrypt's job-level parallel scripts.

```python
from orchestrator.jobs import product, survey

with survey("runs", "heat", limit=4) as s:
    jobs = s.prepare("heat", command=["python", "heat.py"], params=product(k=[0.1, 1.0], cells=[10, 20]))
    s.submit(*jobs)
    for job in s.sync(*jobs):
        print(job.id, job.params, job.outcome.metrics)
```
There is no optimiser and no study database: the record is the attempt files, and a survey that is
run again goes on by its jobs' ids. Jobs that have finished are skipped, hooks included.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
import shlex
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.config.site import BatchOptions, load_site
from orchestrator.errors import UsageError
from orchestrator.jobs.parameters import Parameters, expand
from orchestrator.jobs.session import Event, Session
from orchestrator.model import Job, Outcome, ReadRule, Resources, Verdict
from orchestrator.store.lease import Lease

__all__ = ["PlannedJob", "Survey", "survey"]

T = TypeVar("T")
Hook = Callable[["PlannedJob"], Any]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOOKS_DONE = "finished"
_RENEW_PAUSE = 20.0


@dataclass(slots=True, kw_only=True, eq=False)
class PlannedJob:
    """A job with what surrounds it in the driver.

    Attributes
    ----------
    id : str
        Unique in the survey; the record and the resume go by it.
    before, after, final : callable or None
        Called in the driver with the job: before its first submit, after a success, and at the end
        in any case. They may be coroutine functions.
    outcome : Outcome or None
        How it ended; None until it has.
    """

    id: str
    job: Job
    depend_on: tuple[PlannedJob, ...] = ()
    before: Hook | None = None
    after: Hook | None = None
    final: Hook | None = None
    outcome: Outcome | None = None
    task: asyncio.Task[Outcome] | None = field(default=None, repr=False)

    @property
    def params(self) -> Mapping[str, Any]:
        """The job's parameters."""
        return self.job.params


class Survey(Session):
    """A session with Xcrypt's verbs; all of them are to be used inside its event loop.

    `survey` gives the same verbs to a script that has no event loop.
    """

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(root, **options)
        self._planned: dict[str, PlannedJob] = {}

    def prepare(
        self,
        id: str,  # noqa: A002 - the word of Xcrypt and of every user
        *,
        command: Sequence[str] | str | None = None,
        function: str | None = None,
        params: Parameters = None,
        resources: Resources | None = None,
        environment: Mapping[str, str] | None = None,
        workdir: str | Path | None = None,
        metrics: Iterable[str] = (),
        read: Iterable[ReadRule] = (),
        depend_on: PlannedJob | Iterable[PlannedJob] = (),
        before: Hook | None = None,
        after: Hook | None = None,
        final: Hook | None = None,
        before_in_job: Sequence[str] = (),
        after_in_job: Sequence[str] = (),
    ) -> list[PlannedJob]:
        """Make one job for each parameter set.

        Parameters
        ----------
        id : str
            With several sets, an index for each axis is added: ``heat_0_2``.
        command : list of str or str
            Argument vector, or a line for ``sh -c``.
        function : str
            ``module:function``, called with the parameters as keyword arguments instead of a command.
        params : mapping, list of mappings, `product` or `together`
            Values may be callables: they get the set as far as it is made.
        depend_on : PlannedJob or iterable of them
            Jobs that must have succeeded before this one is submitted.
        before_in_job, after_in_job : list of str
            Shell lines around the command, in the job; a failing line before it keeps it from running.

        Raises
        ------
        UsageError
            For an id that is taken or has odd characters, for neither or both of command and function.
        """
        if (command is None) == (function is None):
            raise UsageError(f"job {id!r}: give either command or function")
        needed = (depend_on,) if isinstance(depend_on, PlannedJob) else tuple(depend_on)
        jobs = []
        for index, values in expand(params):
            name = "_".join([id, *map(str, index)])
            self._check(name, values)
            job = Job(
                key=name,
                number=len(self._planned),
                command=_around(_command(command, function, self.site.interpreter), before_in_job, after_in_job),
                params=values,
                resources=resources or Resources(),
                environment=dict(environment or {}),
                workdir=str(Path(workdir or ".").resolve()),
                metrics=tuple(metrics),
                read=tuple(read),
            )
            planned = PlannedJob(id=name, job=job, depend_on=needed, before=before, after=after, final=final)
            self._planned[name] = planned
            jobs.append(planned)
        return jobs

    def submit_planned(self, *jobs: PlannedJob) -> None:
        """Begin to run ``jobs``; returns at once. Those that wait for no other may go as array jobs."""
        self.expect_array(*(planned.job for planned in jobs if planned.task is None and not planned.depend_on))
        for planned in jobs:
            if planned.task is None:
                planned.task = asyncio.create_task(self._live(planned), name=planned.id)
                self._tasks[planned.id] = planned.task

    async def sync(self, *jobs: PlannedJob) -> list[PlannedJob]:
        """Wait for ``jobs`` (all that were submitted, if none is named) and return them."""
        chosen = list(jobs) or [planned for planned in self._planned.values() if planned.task is not None]
        await asyncio.gather(*(planned.task for planned in chosen if planned.task is not None))
        return chosen

    async def _live(self, planned: PlannedJob) -> Outcome:
        known = self.outcome(planned.id)
        if known is None:
            for other in planned.depend_on:
                self.submit_planned(other)
                assert other.task is not None
                needed = await asyncio.shield(other.task)
                if not needed.succeeded:
                    reason = f"it depends on {other.id}, which ended as {needed.verdict}"
                    planned.outcome = Outcome(key=planned.id, verdict=Verdict.CANCELLED, reason=reason)
                    await _call(planned.final, planned)
                    return planned.outcome
            if not self.begun(planned.id):
                await _call(planned.before, planned)
        planned.outcome = await self.run(planned.job)
        if not self.noted(planned.id, _HOOKS_DONE):
            if planned.outcome.succeeded:
                await _call(planned.after, planned)
            await _call(planned.final, planned)
            self.note(planned.id, _HOOKS_DONE)
        return planned.outcome

    def _check(self, name: str, values: Mapping[str, Any]) -> None:
        if not _ID.fullmatch(name):
            raise UsageError(f"job id {name!r}: letters, digits, '.', '_' and '-' only, at most 64 of them")
        if name in self._planned:
            raise UsageError(f"job id {name!r} is taken; give each call of prepare() an id of its own")
        try:
            json.dumps(values, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"job {name!r}: its parameters cannot travel as JSON ({error})") from error


class _Script:
    """The verbs of a `Survey` for a script without an event loop, which runs in a thread beside it."""

    def __init__(self, inner: Survey, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def prepare(self, id: str, **options: Any) -> list[PlannedJob]:  # noqa: A002 - as Survey.prepare
        """See `Survey.prepare`."""
        return self._inner.prepare(id, **options)

    def submit(self, *jobs: PlannedJob) -> None:
        """Begin to run ``jobs``; returns at once, the jobs go on while the script does."""

        async def begin() -> None:
            self._inner.submit_planned(*jobs)

        self._wait(begin())

    def sync(self, *jobs: PlannedJob) -> list[PlannedJob]:
        """Wait for ``jobs`` (all that were submitted, if none is named) and return them."""
        return self._wait(self._inner.sync(*jobs))

    def abort(self, *jobs: PlannedJob) -> None:
        """Stop jobs; the next run of the script runs them again."""
        self._wait(self._inner.abort(*(planned.id for planned in jobs)))

    def cancel(self, *jobs: PlannedJob) -> None:
        """Stop jobs and forget them, finished ones too; the next run of the script runs them again."""
        self._wait(self._inner.cancel(*(planned.id for planned in jobs)))

    def invalidate(self, *jobs: PlannedJob) -> None:
        """Stop jobs and count them as finished for ever."""
        self._wait(self._inner.invalidate(*(planned.id for planned in jobs)))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextlib.contextmanager
def survey(
    root: str | Path,
    name: str,
    *,
    site: str = "local",
    limit: int | None = None,
    batch: BatchOptions | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Iterator[_Script]:
    """Open a plain survey for a script: ``with survey("runs", "heat", limit=4) as s:``.

    Parameters
    ----------
    root : path
        The record lies in ``root/name``.
    site : str
        Name of a site, or path of a site file.
    limit : int, optional
        Largest number of jobs in flight.

    Raises
    ------
    HeldByAnother
        If another process runs this survey.
    """
    if not _ID.fullmatch(name):
        raise UsageError(f"survey name {name!r}: letters, digits, '.', '_' and '-' only, at most 64 of them")
    from orchestrator.clock import SystemClock

    folder = Path(root).resolve() / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    profile = load_site(site)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="survey", daemon=True)
    lease = Lease.acquire(folder, SystemClock())

    async def open_survey() -> Survey:
        inner = Survey(
            folder,
            name=name,
            site=profile,
            batch=batch,
            limit=limit,
            fence=lease.fence,
            guard=lease.check,
            on_event=on_event,
        )
        await inner.__aenter__()
        return inner

    async def keep_lease() -> None:
        while True:
            await asyncio.sleep(_RENEW_PAUSE)
            lease.renew()

    thread.start()
    try:
        inner = asyncio.run_coroutine_threadsafe(open_survey(), loop).result()
        keeper = asyncio.run_coroutine_threadsafe(keep_lease(), loop)
        try:
            yield _Script(inner, loop)
        finally:
            keeper.cancel()
            asyncio.run_coroutine_threadsafe(inner.__aexit__(None, None, None), loop).result()
    finally:
        lease.release()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _call(hook: Hook | None, planned: PlannedJob) -> None:
    if hook is not None:
        result = hook(planned)
        if inspect.isawaitable(result):
            await result


def _command(command: Sequence[str] | str | None, function: str | None, python: str) -> tuple[str, ...] | str:
    if function is not None:
        # The agent's library is on PYTHONPATH, so this needs no installation on the node.
        return (python, "-m", "orchestrator.trial", "call", function)
    assert command is not None
    return command if isinstance(command, str) else tuple(command)


def _around(command: tuple[str, ...] | str, before: Sequence[str], after: Sequence[str]) -> tuple[str, ...] | str:
    """The command with shell lines around it; its exit code stays the job's."""
    if not before and not after:
        return command
    line = command if isinstance(command, str) else shlex.join(command)
    parts = [f"{step} || exit $?" for step in before]
    return "\n".join([*parts, f"( {line}\n)", "code=$?", *after, "exit $code"])
