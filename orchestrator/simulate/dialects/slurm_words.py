"""Slurm's words for a job: its id, its state, why it waits, how it ended."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Wait
from orchestrator.simulate.dialects.base import hms

__all__ = [
    "INVALID_JOB",
    "NODES_DOWN",
    "SHORT",
    "TIME",
    "collapsed",
    "end_time",
    "exit_code",
    "job_id",
    "limit",
    "long_time",
    "ranges",
    "reason",
    "state",
    "waiting",
]

INVALID_JOB = "Invalid job id specified"
TIME = "%Y-%m-%dT%H:%M:%S"
NODES_DOWN = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
_REQUEUED_HELD = "job requeued in held state"
_WAITS = {
    Wait.NONE: "None",
    Wait.RESOURCES: "Resources",
    Wait.NODES_DOWN: NODES_DOWN,
    Wait.PRIORITY: "Priority",
    Wait.USER_LIMIT: "QOSMaxJobsPerUserLimit",
    Wait.BEGIN: "BeginTime",
    Wait.NEVER: "PartitionConfig",
    Wait.TIME_LIMIT: "PartitionTimeLimit",
    Wait.QUEUE_STOPPED: "PartitionDown",
}
_ENDS = {
    Fate.LIMIT: "TIMEOUT",
    Fate.CANCELLED: "CANCELLED",
    Fate.NODE_FAILED: "NODE_FAIL",
    Fate.PREEMPTED: "PREEMPTED",
    Fate.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    Fate.NOT_LAUNCHED: "FAILED",
    Fate.REQUEUED: "REQUEUED",
}
SHORT = {"PENDING": "PD", "RUNNING": "R", "COMPLETING": "CG", "COMPLETED": "CD", "FAILED": "F", "CANCELLED": "CA"}
SHORT |= {"TIMEOUT": "TO", "NODE_FAIL": "NF", "PREEMPTED": "PR", "OUT_OF_MEMORY": "OOM"}


def job_id(job: BatchJob) -> str:
    """Print the id as squeue does: ``12``, ``12_3``."""
    return str(job.number) if job.index is None else f"{job.number}_{job.index}"


def state(job: BatchJob) -> str:
    """Find the long state word."""
    match job.phase:
        case Phase.QUEUED | Phase.HELD:
            return "PENDING"
        case Phase.RUNNING:
            return "RUNNING"
        case Phase.ENDING:
            return "COMPLETING"
        case Phase.ENDED:
            assert job.fate is not None
            return _ENDS.get(job.fate) or ("FAILED" if job.exit_code or job.signal else "COMPLETED")


def reason(job: BatchJob) -> str:
    """Find the word for why it waits, or ended."""
    if job.hold_next:
        return _REQUEUED_HELD
    if job.phase is Phase.HELD:
        return _REQUEUED_HELD if job.starts else "JobHeldUser"
    if job.phase is not Phase.ENDED:
        return _WAITS[job.wait]
    if job.fate is Fate.NOT_LAUNCHED:
        return "JobLaunchFailure"
    return {"TIMEOUT": "TimeLimit", "NODE_FAIL": "NodeDown", "OUT_OF_MEMORY": "OutOfMemory"}.get(
        state(job), "NonZeroExitCode" if state(job) == "FAILED" else "None"
    )


def exit_code(job: BatchJob) -> str:
    """Print ``code:signal`` as accounting has it of the job as a whole; its steps are not emulated."""
    match job.fate:
        case Fate.EXITED:
            return f"{job.exit_code}:{job.signal}"
        case Fate.OUT_OF_MEMORY:
            return "0:125"
        case Fate.NOT_LAUNCHED:
            return "0:53"
        case _:
            return "0:0"


def end_time(job: BatchJob) -> float | None:
    """Tell when it ended, or will at the latest."""
    if job.ended is not None or job.started is None or job.limit is None:
        return job.ended
    return job.started + job.limit


def long_time(seconds: float) -> str:
    """``01:02:03``, ``1-02:03:04``."""
    days, rest = divmod(int(seconds), 86400)
    return f"{days}-{hms(rest)}" if days else hms(rest)


def limit(job: BatchJob) -> str:
    """Print the time limit in full."""
    return "UNLIMITED" if job.limit is None else long_time(job.limit)


def waiting(job: BatchJob) -> bool:
    """Whether it waits to be started, for the first time or again."""
    return job.phase in {Phase.QUEUED, Phase.HELD}


def collapsed(jobs: Iterable[BatchJob]) -> list[list[BatchJob]]:
    """Put the elements of an array that wait for one reason together, as listings do; all else is alone."""
    rows: dict[object, list[BatchJob]] = {}
    for job in jobs:
        together = job.index is not None and waiting(job) and not job.starts
        rows.setdefault((job.number, reason(job)) if together else id(job), []).append(job)
    return list(rows.values())


def ranges(jobs: Iterable[BatchJob]) -> str:
    """Indices of elements as ``0-3,7``."""
    spans: list[list[int]] = []
    for index in sorted(job.index for job in jobs if job.index is not None):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
