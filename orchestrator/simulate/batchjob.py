"""What an emulated cluster is made of: nodes, queues, rules, and the batch jobs on them.

Times are seconds since the epoch, durations are seconds, memory is MiB, all in the cluster's own time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["BatchJob", "Fate", "Key", "Node", "Partition", "Phase", "Refusal", "Refused", "Rules", "Wait", "Wish"]

Key: TypeAlias = "tuple[int, int | None]"


class Phase(enum.Enum):
    """Where a job is in its life; each dialect has its own words for these."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    ENDING = "ending"  # told to end, or its end is being processed
    ENDED = "ended"


class Fate(enum.Enum):
    """Why a job ended, as the scheduler saw it."""

    EXITED = "exited"
    LIMIT = "limit"
    CANCELLED = "cancelled"
    NODE_FAILED = "node-failed"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out-of-memory"
    NOT_LAUNCHED = "not-launched"  # its folder or its output file is not there
    REQUEUED = "requeued"  # put back by hand, to run again


class Wait(enum.Enum):
    """Why a queued job does not run."""

    NONE = "none"
    RESOURCES = "resources"
    NODES_DOWN = "nodes-down"  # enough of them are there, and not enough are up
    PRIORITY = "priority"  # behind a job that waits for resources
    USER_LIMIT = "user-limit"
    BEGIN = "begin"  # not before a time
    NEVER = "never"  # asks for more than the nodes of its queue have
    TIME_LIMIT = "time-limit"  # asks for more time than its queue gives
    QUEUE_STOPPED = "queue-stopped"


class Refused(enum.Enum):
    """Why a submit was refused."""

    NO_QUEUE = "no-queue"
    QUEUE_DISABLED = "queue-disabled"
    WALLTIME = "walltime"
    IMPOSSIBLE = "impossible"
    USER_LIMIT = "user-limit"
    NO_GROUP = "no-group"
    NO_NODE = "no-node"
    NO_ARRAYS = "no-arrays"
    ARRAY_SIZE = "array-size"
    NAME = "name"
    OPTION = "option"
    RESOURCE = "resource"
    VALUE = "value"
    NO_SCRIPT = "no-script"


class Refusal(Exception):
    """A submit that was not taken; ``subject`` is the queue, option or value at fault."""

    def __init__(self, why: Refused, subject: str = "") -> None:
        super().__init__(f"{why.value}: {subject}")
        self.why = why
        self.subject = subject


@dataclass(slots=True, kw_only=True)
class Wish:
    """What a script and its command line ask for; ``gpus``, ``cpus`` and ``memory`` are of each node."""

    name: str
    queue: str | None = None
    nodes: int = 1
    gpus: int = 0
    cpus: int = 1
    memory: int = 0
    whole: bool = False  # whole nodes, whatever they have
    walltime: float | None = None
    group: str | None = None
    array: tuple[int, ...] | None = None
    hold: bool = False
    rerun: bool = True
    comment: str = ""
    output: str | None = None
    script: str = ""  # its path
    text: str = ""
    folder: str = "/"  # where it was submitted
    start_in_folder: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    asked: str = ""  # the command line, for listings


@dataclass(slots=True, kw_only=True, eq=False)
class BatchJob:
    """One job, or one element of an array job."""

    number: int
    index: int | None
    raw: int  # a number of its own, also where it is an element
    user: str
    queue: str
    wish: Wish
    submitted: float
    queued: float  # when it came into the queue the last time
    visible: float
    phase: Phase = Phase.QUEUED
    wait: Wait = Wait.NONE
    eligible: float = 0.0
    limit: float | None = None
    started: float | None = None
    ended: float | None = None
    nodes: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()  # GPUs on the first node
    fate: Fate | None = None
    told: Fate | None = None  # why it was told to end
    hold_next: bool = False  # it is to be held once it is put back
    exit_code: int = 0
    signal: int = 0
    starts: int = 0
    earlier: list[BatchJob] = field(default_factory=list)  # records of starts that did not count

    @property
    def key(self) -> Key:
        """Number and index."""
        return self.number, self.index

    @property
    def restarts(self) -> int:
        """How often the scheduler started it again."""
        return max(self.starts - 1, 0)


@dataclass(slots=True, kw_only=True)
class Node:
    """A machine."""

    name: str
    gpus: int = 0
    cpus: int = 1
    memory: int = 1 << 40
    up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A queue; None stands for no limit.

    Attributes
    ----------
    running, queued : int or None
        Jobs of one user: running at a time, and in the queue (running ones included).
    nodes : tuple of str or None
        Names of its nodes, None for all.
    """

    name: str
    max_walltime: float | None = None
    default_walltime: float | None = None
    running: int | None = None
    queued: int | None = None
    enabled: bool = True
    started: bool = True
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a cluster is run.

    Attributes
    ----------
    keep_finished : float
        For how long a finished job stays in the live list (Slurm's MinJobAge).
    history : bool
        Whether finished jobs can be asked for later; for ``history_kept`` seconds, and not before
        ``history_lag`` seconds after the event.
    visible_after : float
        Until a new job shows up in any list; it may run before.
    start_delay : float
        From the decision to start a job to its start.
    queue_wait : callable
        Seconds that a job waits at least, as other users' jobs would make it wait.
    limit_late : float
        How late the end of the walltime is noticed.
    limit_signal, cancel_signal, requeue_signal : int
        First signal at the end of the walltime, for a cancel and for a requeue by hand; SIGKILL follows
        ``kill_wait`` later.
    requeue_wait : float
        Until a job whose node failed is eligible again.
    overrules_no_rerun : bool
        Whether jobs are run again also where they have asked not to be.
    refuse_impossible : bool
        Whether a job that fits no node is refused; else it waits for ever.
    refuse_over_limit : bool
        Whether more time than a queue gives, or more nodes than it has, is refused at once (Slurm's
        EnforcePartLimits); else the job waits for ever.
    keep_elements : bool
        Whether ended elements of an array stay listed until the whole of it has ended.
    stop : float or None
        When the machine is to be stopped for maintenance, for banners.
    array_size : int
        Most elements of an array job; 0 where array jobs are refused.
    elements_take_numbers : bool
        Whether each element of an array uses up a job number, as in Slurm.
    zone : float
        Hours that the site's clock is ahead of UTC.
    """

    nodes: tuple[Node, ...] = (Node(name="n1", gpus=4, cpus=8), Node(name="n2", gpus=4, cpus=8))
    partitions: tuple[Partition, ...] = (Partition(name="main", default_walltime=3600.0),)
    user: str = "tester"
    groups: tuple[str, ...] | None = None
    group_required: bool = False
    first_number: int = 1
    keep_finished: float = 300.0
    history: bool = True
    history_lag: float = 0.0
    history_kept: float = 14 * 86400.0
    visible_after: float = 0.0
    start_delay: float = 0.0
    queue_wait: Callable[[BatchJob], float] | None = None
    limit_late: float = 0.0
    limit_signal: int = 15
    cancel_signal: int = 15
    requeue_signal: int = 15
    kill_wait: float = 30.0
    requeue_wait: float = 120.0
    overrules_no_rerun: bool = False
    refuse_impossible: bool = True
    refuse_over_limit: bool = True
    keep_elements: bool = False
    stop: float | None = None
    array_size: int = 1000
    elements_take_numbers: bool = False
    zone: float = 9.0
