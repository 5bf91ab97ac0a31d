"""What a scheduler adaptor is: it builds command lines and reads what they print; it runs nothing.

Each question has two halves, one that builds a `Command` and one that reads its `Completion`, so
that the same adaptor serves every transport and its tests are recorded outputs.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.errors import UsageError
from orchestrator.model import JobStatus
from orchestrator.transports.base import Command, Completion

__all__ = ["Found", "Refused", "Scheduler", "SchedulerOptions", "SubmitRequest", "Submitted", "Unclear"]

# Put before commands that list jobs, so that their times are UTC and their words English. Never before a
# submit command: several schedulers hand the submitter's environment to the job.
_ENGLISH_UTC = ("env", "LC_ALL=C", "TZ=UTC0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """What a site says of its scheduler's commands.

    Attributes
    ----------
    commands : mapping
        Replacements by plain command name: ``{"qstat": "/lustre/pbs/bin/rbstat"}``.
    submit_options : tuple of str
        Added to every submit command line (``-g tga-xxx`` of TSUBAME).
    timeout : float
        Seconds that a command may take before its outcome is unknown.
    history : bool
        Whether the site keeps finished jobs (accounting, ``job_history_enable``).
    extra : mapping
        What only one adaptor understands.
    """

    commands: Mapping[str, str] = field(default_factory=dict)
    submit_options: tuple[str, ...] = ()
    timeout: float = 60.0
    history: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """One job to be submitted.

    Attributes
    ----------
    script : str
        Absolute path of the rendered script on the site.
    tag : str
        The job's name; fits the shortest limit (15 characters) and starts with a letter.
    directory : str
        Where the scheduler may leave its own output.
    array : int or None
        Number of elements if this is an array job (indices from 0).
    gpus, cpus : int
        What the job takes of its machine, for schedulers that are told on the command line (local).
    """

    script: str
    tag: str
    directory: str
    array: int | None = None
    gpus: int = 0
    cpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The scheduler took the job and said its id."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The scheduler certainly did not take the job.

    ``later`` is True where asking again later may help (a queue limit, a server that is down before
    it took anything); False where a person must change something (no such queue, no such group).
    """

    reason: str
    later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """Whether the scheduler took the job is not known: it must be looked up by its tag."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look-up by tag gave: jobs by tag, and whether the answer can be trusted to be whole."""

    jobs: Mapping[str, tuple[JobStatus, ...]]
    trusted: bool
    evidence: str = ""


class Scheduler(abc.ABC):
    """A batch scheduler's command lines and answers.

    ``query``/``history`` ask about many jobs at once; each id that was asked for gets a `JobStatus`
    in the answer, `Answer.ABSENT` and `Answer.UNKNOWN` included. Nothing here decides what an
    absent job means: that is the watcher's business.
    """

    name: ClassVar[str]
    template: ClassVar[str]

    def __init__(self, options: SchedulerOptions | None = None) -> None:
        self.options = options or SchedulerOptions()

    def program(self, name: str) -> str:
        """The site's path for the command ``name``."""
        return self.options.commands.get(name, name)

    def command(self, *argv: str, stdin: str = "") -> Command:
        """A `Command` with the site's time limit; the first word goes through `program`."""
        return Command(argv=(self.program(argv[0]), *argv[1:]), stdin=stdin, timeout=self.options.timeout)

    def listing(self, name: str, *words: str, variables: Sequence[str] = ()) -> Command:
        """A `Command` that lists jobs: its times are UTC, its words English; ``variables`` are set for it alone."""
        return self.command(*_ENGLISH_UTC, *variables, self.program(name), *words)

    @abc.abstractmethod
    def submit(self, request: SubmitRequest) -> Command:
        """Command line that submits one script."""

    @abc.abstractmethod
    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read the submit command's answer; strict: no id that is not certainly one."""

    @abc.abstractmethod
    def query(self, job_ids: Sequence[str]) -> Command:
        """One live query for all of ``job_ids``."""

    @abc.abstractmethod
    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """An answer for each of ``job_ids``."""

    @abc.abstractmethod
    def history(self, job_ids: Sequence[str], since: float) -> Command | None:
        """One query of finished jobs (submitted after ``since``), or None where the site keeps none."""

    @abc.abstractmethod
    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """An answer for each of ``job_ids``."""

    @abc.abstractmethod
    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:
        """Command lines that look jobs up by name: the live queue first, then history."""

    @abc.abstractmethod
    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Jobs by tag; not trusted if any of the commands failed or its output is odd."""

    @abc.abstractmethod
    def cancel(self, job_ids: Sequence[str]) -> Command:
        """Command line that cancels ``job_ids``; cancelling an ended job must do no harm."""

    @abc.abstractmethod
    def cancelled(self, completion: Completion) -> bool:
        """Whether the cancel command was taken (the jobs may take a while to go)."""

    def element(self, job_id: str, index: int) -> str:  # noqa: ARG002 the contract's signature
        """Id of one element of the array job ``job_id``, as lists and the element itself have it.

        Parameters
        ----------
        index : int
            From 0, whatever the scheduler counts from.

        Raises
        ------
        UsageError
            If this scheduler has no array jobs.
        """
        raise UsageError(f"the scheduler {self.name} has no array jobs")

    def whole(self, job_id: str) -> str:
        """Id that the submit gave: of an element of an array job, the array's own."""
        return job_id

    def limits(self) -> Command | None:
        """Command line that shows the user's limits, for people; None where there is none."""
        return None

    def version(self) -> Command | None:
        """Command line that shows the scheduler's version; None where there is none."""
        return None
