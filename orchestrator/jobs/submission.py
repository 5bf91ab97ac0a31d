"""From planned attempts to a job that is certainly there, or certainly not."""

from __future__ import annotations

import asyncio
import functools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.clock import Clock
from orchestrator.config.site import BatchOptions, Site
from orchestrator.jobs.maintenance import Maintenance
from orchestrator.jobs.placement import Placement, place
from orchestrator.jobs.recovery import Fate, Finder, Located, Sought, locate
from orchestrator.jobs.script import ScriptRequest, launcher_of, render, wrap_command
from orchestrator.jobs.space_left import SpaceLeft
from orchestrator.jobs.staging import Library, attempt_directory, attempt_files, order, run_with, stage
from orchestrator.jobs.throttle import Throttle
from orchestrator.model import Attempt, Job
from orchestrator.schedulers.base import Refused, Scheduler, SubmitRequest, Submitted
from orchestrator.transports.base import Transport

__all__ = ["Accepted", "Bundle", "NotThere", "Rejected", "Submitter", "Unsettled", "job_key", "job_name"]

_BACK_OFF = (5.0, 15.0, 30.0, 60.0)
_STOP_LOOK = 60.0  # a stop may be put off, and its announcement taken back by a later one


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The job is there; ``job_id`` is None where only its agent's claim is known."""

    job_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The scheduler will not have it; ``reason`` in its own words."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotThere:
    """The submit never took effect and never will: the attempt's claim is ours."""

    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """Whether the job is there is not known: each of its attempts is to be looked for."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Attempts that are submitted with one command.

    Attributes
    ----------
    members : tuple of (Job, Attempt)
        All with the same resources.
    elements : int or None
        Number of elements of an array job, each of which carries the same number of attempts; None: one job.
    """

    members: tuple[tuple[Job, Attempt], ...]
    elements: int | None = None

    @property
    def name(self) -> str:
        """The job's name: the tag of its first attempt."""
        return self.members[0][1].tag

    @property
    def each(self) -> int:
        """Attempts of one job, of one element of an array job."""
        return len(self.members) // (self.elements or 1)


def job_name(attempt: Attempt) -> str:
    """Name of the batch job that carries ``attempt``."""
    return attempt.job_name or attempt.tag


def job_key(attempt: Attempt) -> str:
    """What tells batch jobs apart, elements of array jobs too."""
    return job_name(attempt) if attempt.job_index is None else f"{job_name(attempt)}[{attempt.job_index}]"


class Submitter:
    """Renders, stages and submits attempts to one site, one submit at a time."""

    def __init__(
        self,
        *,
        site: Site,
        batch: BatchOptions,
        transport: Transport,
        scheduler: Scheduler,
        clock: Clock,
        library: Library,
        work_root: str,
        study: str,
        python: str,
        throttle: Throttle,
        finder: Finder,
        maintenance: Maintenance,
        space: SpaceLeft,
        on_wait: Callable[[str, str], None],
        on_held: Callable[[str, float], None],
        unwanted: Callable[[str], bool],
    ) -> None:
        self._site = site
        self._batch = batch
        self._transport = transport
        self._scheduler = scheduler
        self._clock = clock
        self._library = library
        self._work_root = work_root
        self._study = study
        self._python = python
        self._throttle = throttle
        self._finder = finder
        self._maintenance = maintenance
        self._space = space
        self._on_wait = on_wait
        self._on_held = on_held
        self._unwanted = unwanted
        self._turn = asyncio.Lock()

    def directory(self, attempt: Attempt) -> str:
        """The attempt's folder on the site."""
        return attempt_directory(self._work_root, attempt.key, attempt.number)

    async def submit(self, bundle: Bundle) -> Accepted | Rejected | Unsettled | NotThere:
        """Stage and submit a bundle; waits for limits, for maintenance, and while the scheduler says "later".

        It is not submitted any more once none of its jobs is wanted.
        """
        placement = place(self._site, bundle.members[0][0].resources, self._batch, attempts=bundle.each)
        script = self._script(bundle, placement)
        files: dict[str, bytes] = {}
        for number, (job, attempt) in enumerate(bundle.members):
            files |= self._files(job, attempt, placement, None if number else script)
        directory = self.directory(bundle.members[0][1])
        request = SubmitRequest(
            script=posixpath.join(directory, "job.sh"),
            tag=bundle.name,
            directory=directory,
            array=bundle.elements,
            gpus=bundle.members[0][0].resources.gpus * bundle.each,
            cpus=bundle.members[0][0].resources.cpus * bundle.each,
        )
        staged = functools.partial(stage, self._transport, files, executable=request.script)
        unstaged = await self._space.before(staged, unwanted=lambda: self._given_up(bundle)) or {}
        jobs: dict[str, list[str]] = {}
        for _, attempt in bundle.members:
            jobs.setdefault(job_key(attempt), []).append(attempt.tag)
        refusals = 0
        while True:
            await self._maintenance_over(bundle, placement.walltime)
            async with self._turn:
                if not await self._leave_given(bundle, jobs):
                    return NotThere(evidence="taken back before it was submitted")
                command = self._scheduler.submit(request)
                completion = await run_with(self._transport, unstaged, command, executable=request.script)
                unstaged = {}
            self._maintenance.read(completion.stdout)
            answer = self._scheduler.parse_submit(completion)
            if isinstance(answer, Submitted):
                return Accepted(job_id=answer.job_id)
            if not isinstance(answer, Refused):
                words = f"submit unclear ({answer.reason}); looking the job up by its name"
                self._on_wait(bundle.name, words)
                return Unsettled(reason=words)
            for _, attempt in bundle.members:
                self._throttle.leave(job_key(attempt), attempt.tag)
            if not answer.later:
                return Rejected(reason=answer.reason)
            pause = _BACK_OFF[min(refusals, len(_BACK_OFF) - 1)]
            refusals += 1
            self._on_wait(bundle.name, f"the scheduler takes no more now ({answer.reason}); again in {pause:.0f} s")
            await self._clock.sleep(pause)

    def _script(self, bundle: Bundle, placement: Placement) -> str:
        directories = tuple(self.directory(attempt) for _, attempt in bundle.members)
        request = ScriptRequest(
            tag=bundle.name,
            directories=directories,
            agent=self._library.agent,
            python=self._python,
            study=self._study,
            output_dir=directories[0],
            array=bundle.elements,
        )
        return render(self._site, placement, self._batch, request)

    def _files(self, job: Job, attempt: Attempt, placement: Placement, script: str | None) -> dict[str, bytes]:
        directory = self.directory(attempt)
        job_order = order(
            job,
            attempt,
            study=self._study,
            library=self._library,
            directory=directory,
            command=wrap_command(self._batch, self._site, job.command, job.resources, binds=self._binds(job)),
            environment=job.environment,
            walltime=placement.walltime,
            margin=self._site.margin if job.warn_ahead is None else job.warn_ahead,
            kill_grace=self._site.kill_grace,
            launched=launcher_of(self._batch, self._site, job.resources) is not None,
        )
        return attempt_files(directory, job_order=job_order, params=job.params, script=script)

    def _binds(self, job: Job) -> tuple[str, ...]:
        return (self._work_root,) if job.workdir is None else (self._work_root, job.workdir)

    def _given_up(self, bundle: Bundle) -> bool:
        return all(self._unwanted(job.key) for job, _ in bundle.members)

    async def _leave_given(self, bundle: Bundle, jobs: Mapping[str, Sequence[str]]) -> bool:
        """Wait for the site's limits; False if nobody wants the bundle any more."""
        told = False
        while not self._given_up(bundle):
            pause, why = await self._throttle.submit(jobs)
            if not pause:
                return True
            if not told:
                self._on_wait(bundle.name, why)
                told = True
            await self._clock.sleep(pause)
        return False

    async def _maintenance_over(self, bundle: Bundle, walltime: float | None) -> None:
        told = None
        while (stop := self._maintenance.holds(walltime)) is not None and not self._given_up(bundle):
            if stop != told:
                self._on_held(bundle.name, stop)
                told = stop
            await self._clock.sleep(min(_STOP_LOOK, stop - self._clock.now() + 1.0))

    async def recover(self, attempt: Attempt) -> Accepted | NotThere:
        """Find out what became of an attempt whose submit has no known outcome."""
        located: Located = await locate(
            self._transport,
            self._scheduler,
            self._clock,
            self._finder,
            Sought(
                tag=attempt.tag,
                directory=self.directory(attempt),
                name=job_name(attempt),
                since=attempt.planned,
                index=attempt.job_index,
            ),
            settle=self._site.settle,
            on_wait=lambda words: self._on_wait(attempt.tag, words),
        )
        if located.surplus:
            await self._transport.run(self._scheduler.cancel(located.surplus))
        if located.fate is Fate.NEVER:
            return NotThere(evidence=located.evidence)
        return Accepted(job_id=located.job_id)
