"""What flows through the orchestrator: frozen records that every room understands.

Times are seconds since the epoch (UTC), durations are seconds, memory is in MiB.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "Answer",
    "Attempt",
    "ExitReport",
    "Job",
    "JobEnd",
    "JobState",
    "JobStatus",
    "Json",
    "Outcome",
    "ReadRule",
    "Resources",
    "Verdict",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class Verdict(enum.StrEnum):
    """Why an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node-failure"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    LOST = "lost"
    # By agreement with the program:
    REQUEUE_REQUESTED = "requeue-requested"
    STOPPED = "stopped"
    PAUSED = "paused"


class Answer(enum.StrEnum):
    """What one query of the scheduler says about one job: four answers, never two."""

    ALIVE = "alive"  # listed, and it can still do something
    ENDED = "ended"  # listed, and it has ended: `JobStatus.end` tells how
    ABSENT = "absent"  # the query worked and does not know the job (purged? not visible yet?)
    UNKNOWN = "unknown"  # the query failed, or its output could not be trusted


class JobState(enum.StrEnum):
    """A scheduler's state word, in ours."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one attempt needs, in words that every scheduler can be told.

    Attributes
    ----------
    gpus, cpus, memory :
        Of the whole attempt when ``nodes`` is 1, else of each node; memory in MiB.
    walltime : int or None
        Seconds; None means the queue's own default.
    """

    gpus: int = 0
    cpus: int = 1
    memory: int | None = None
    walltime: int | None = None
    nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRule:
    """How a metric is read from a program that cannot write result.json.

    Exactly one source: ``stdout`` is a regular expression whose first group is the number
    (the last match counts); ``json`` is ``file:dotted.path``; ``csv`` is ``file:column``,
    the last row.
    """

    metric: str
    stdout: str | None = None
    json: str | None = None
    csv: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work that a `Session` takes through all its attempts.

    Attributes
    ----------
    key : str
        Its folder below ``trials/``, unique in the session: ``00007`` or ``00007/run-2``.
    command : tuple of str, or str
        An argument vector, or a line for ``sh -c``.
    params : mapping
        What the program finds in ``params.json``.
    metrics : tuple of str
        Metrics that a result must have, each a finite number.
    read : tuple of ReadRule
        How the agent reads metrics of a program that does not write result.json.
    run, runs : int
        Which run of its trial it is, from 1, and how many that has.
    beyond : int
        Attempts up to this number that were paused are no end of it: another one follows.
    warn_ahead : float or None
        Seconds ahead of the walltime at which the program is told to stop; None: as the site says.
    warn_signal : str
        Signal that it then gets too, by name; empty: none.
    """

    key: str
    command: tuple[str, ...] | str
    params: Mapping[str, Json] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    metrics: tuple[str, ...] = ()
    read: tuple[ReadRule, ...] = ()
    seed: int | None = None
    number: int = 0
    run: int = 1
    runs: int = 1
    beyond: int = 0
    warn_ahead: float | None = None
    warn_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How the scheduler says that a job ended."""

    verdict: Verdict | None = None  # None: ended, and the scheduler does not say how
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""  # the scheduler's own words


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One job as one query showed it.

    Attributes
    ----------
    word : str
        The scheduler's own state word, for people.
    reason : str
        Why it waits, in the scheduler's words.
    stuck : bool
        It waits for something that never comes (held, impossible request, dead dependency).
    name : str
        The job's name as the scheduler lists it, our tag if the job is ours; may be cut short.
    restarts : int or None
        How often the scheduler itself started the job again.
    evidence : str
        The line or message that the answer rests on.
    """

    job_id: str
    answer: Answer
    state: JobState = JobState.UNKNOWN
    word: str = ""
    reason: str = ""
    stuck: bool = False
    name: str = ""
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    restarts: int | None = None
    nodes: str = ""
    end: JobEnd | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a job as the ledger has it (``attempt.json``).

    Attributes
    ----------
    site : str
        Name of the site that it was planned for; empty in a ledger of one site only.
    job_name : str
        Name of the batch job that carries it, where that is not its own tag: a packed or an array job.
    job_index : int or None
        Which element of an array job carries it, from 0.
    packed : int
        How many attempts run side by side in its batch job (in its element of an array job).
    memory : int or None
        MiB that it asks for, where that is more than its job's resources say: one before ran out of it.
    """

    key: str
    number: int  # from 1
    tag: str  # unique for ever; the batch job's name
    fence: str  # token of the driver that planned it
    planned: float
    site: str = ""
    job_id: str | None = None
    submitted: float | None = None
    suspect_since: float | None = None  # absent from the scheduler without a result since then
    job_name: str = ""
    job_index: int | None = None
    packed: int = 1
    memory: int | None = None
    outcome: Outcome | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """What the agent wrote into ``exit.json``."""

    tag: str
    exit_code: int | None
    signal: int | None
    host: str
    started: float
    ended: float
    max_rss: float | None = None  # MiB, peak of the largest process
    gpus: tuple[str, ...] = ()
    gpu_memory: float | None = None  # MiB, peak
    cause: str = ""  # "", "timeout", "signalled", "no-gpu", "cannot-start", "out-of-memory"
    message: str = ""
    job_id: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended, after its last attempt.

    ``metrics`` holds finite numbers only; ``reason`` says in words why the verdict is what it is.
    """

    key: str
    verdict: Verdict
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Json] = field(default_factory=dict)
    attempts: int = 1
    tag: str = ""
    job_id: str = ""
    host: str = ""
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    max_rss: float | None = None
    gpus: tuple[str, ...] = ()
    gpu_memory: float | None = None
    directory: str = ""  # of the last attempt, in the work root

    @property
    def succeeded(self) -> bool:
        """Whether the attempt ended with a result that counts."""
        return self.verdict is Verdict.SUCCEEDED

    @property
    def queue_wait(self) -> float | None:
        """Seconds from the submit to the program's start, if both are known."""
        if self.submitted is None or self.started is None:
            return None
        return max(0.0, self.started - self.submitted)
