"""Slurm's listings: squeue and sacct, and the words for states, reasons and ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Refusal, Wait
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Reply, hms, stamp, unfinished
from orchestrator.simulate.options import read, takes

__all__ = ["INVALID_JOB", "TIME", "end_time", "exit_code", "job_id", "reason", "sacct", "squeue", "state"]

INVALID_JOB = "Invalid job id specified"
TIME = "%Y-%m-%dT%H:%M:%S"
_WAITS = {
    Wait.NONE: "None",
    Wait.RESOURCES: "Resources",
    Wait.PRIORITY: "Priority",
    Wait.USER_LIMIT: "QOSMaxJobsPerUserLimit",
    Wait.BEGIN: "BeginTime",
    Wait.NEVER: "PartitionConfig",
    Wait.QUEUE_STOPPED: "PartitionDown",
}
_ENDS = {
    Fate.LIMIT: "TIMEOUT",
    Fate.CANCELLED: "CANCELLED",
    Fate.NODE_FAILED: "NODE_FAIL",
    Fate.PREEMPTED: "PREEMPTED",
    Fate.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    Fate.NOT_LAUNCHED: "FAILED",
}
_SHORT = {"PENDING": "PD", "RUNNING": "R", "COMPLETING": "CG", "COMPLETED": "CD", "FAILED": "F", "CANCELLED": "CA"}
_SHORT |= {"TIMEOUT": "TO", "NODE_FAIL": "NF", "PREEMPTED": "PR", "OUT_OF_MEMORY": "OOM"}


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
    if job.phase is Phase.HELD:
        return "JobHeldUser"
    if job.phase is not Phase.ENDED:
        return _WAITS[job.wait]
    if job.fate is Fate.NOT_LAUNCHED:
        return "JobLaunchFailure"
    return {"TIMEOUT": "TimeLimit", "NODE_FAIL": "NodeDown", "OUT_OF_MEMORY": "OutOfMemory"}.get(
        state(job), "NonZeroExitCode" if state(job) == "FAILED" else "None"
    )


def exit_code(job: BatchJob) -> str:
    """Print ``code:signal`` as accounting has it."""
    if job.fate in {None, Fate.LIMIT, Fate.NODE_FAILED, Fate.PREEMPTED}:
        return "0:0"
    if job.fate is Fate.OUT_OF_MEMORY:
        return "0:125"
    return "0:53" if job.fate is Fate.NOT_LAUNCHED else f"{job.exit_code}:{job.signal}"


def end_time(job: BatchJob) -> float | None:
    """Tell when it ended, or will at the latest."""
    if job.ended is not None or job.started is None or job.limit is None:
        return job.ended
    return job.started + job.limit


def _short_time(seconds: float) -> str:
    text = hms(seconds)
    return text.removeprefix("00:").removeprefix("0") if seconds < 3600 else text.removeprefix("0")


_SQUEUE_COLUMNS: Mapping[str, tuple[str, Callable[[BatchJob, float, float], str]]] = {
    "i": ("JOBID", lambda job, _now, _zone: job_id(job)),
    "A": ("JOBID", lambda job, _now, _zone: str(job.raw)),
    "F": ("ARRAY_JOB_ID", lambda job, _now, _zone: str(job.number)),
    "K": ("ARRAY_TASK_ID", lambda job, _now, _zone: "N/A" if job.index is None else str(job.index)),
    "T": ("STATE", lambda job, _now, _zone: state(job)),
    "t": ("ST", lambda job, _now, _zone: _SHORT[state(job)]),
    "V": ("SUBMIT_TIME", lambda job, _now, zone: stamp(job.submitted, TIME, zone)),
    "S": ("START_TIME", lambda job, _now, zone: stamp(job.started, TIME, zone, "N/A")),
    "e": ("END_TIME", lambda job, _now, zone: stamp(end_time(job), TIME, zone, "N/A")),
    "M": ("TIME", lambda job, now, _zone: _short_time(0 if job.started is None else (job.ended or now) - job.started)),
    "l": ("TIME_LIMIT", lambda job, _now, _zone: "UNLIMITED" if job.limit is None else _short_time(job.limit)),
    "N": ("NODELIST", lambda job, _now, _zone: ",".join(job.nodes)),
    "r": ("REASON", lambda job, _now, _zone: reason(job)),
    "P": ("PARTITION", lambda job, _now, _zone: job.queue),
    "u": ("USER", lambda job, _now, _zone: job.user),
    "D": ("NODES", lambda job, _now, _zone: str(job.wish.nodes)),
    "j": ("NAME", lambda job, _now, _zone: job.wish.name),
    "k": ("COMMENT", lambda job, _now, _zone: job.wish.comment or "(null)"),
}
_SQUEUE: Mapping[str, int] = {
    **takes(0, "--me -r --array -h --noheader"),
    **takes(1, "-u --user -t --states --name -j --jobs -o --format"),
}


def squeue(call: Call, cluster: Cluster) -> Reply:
    """Answer squeue."""
    try:
        options = read(call.words, _SQUEUE)
    except Refusal as refusal:
        return Reply(returncode=1, stderr=f"squeue: unrecognized option '{refusal.subject}'\n")
    jobs = list(call.live(cluster))
    user = call.user if options.has("--me") else options.last("--user", "-u")
    if user is not None:
        jobs = [job for job in jobs if job.user == user]
    if (asked := options.last("--jobs", "-j")) is not None:
        wanted = asked.split(",")
        jobs = [job for job in jobs if str(job.number) in wanted or job_id(job) in wanted or str(job.raw) in wanted]
        if len(wanted) == 1 and not jobs:
            return Reply(returncode=1, stderr=f"slurm_load_jobs error: {INVALID_JOB}\n")
    if (options.last("--states", "-t") or "").lower() != "all":
        jobs = [job for job in jobs if unfinished(job)]
    if (names := options.last("--name")) is not None:
        jobs = [job for job in jobs if job.wish.name in names.split(",")]
    form = options.last("-o", "--format") or "%i %P %j %u %t %M %D %N(%r)"
    codes = re.findall(r"%(?:\.?\d+)?([A-Za-z])", form)
    template = re.sub(r"%(?:\.?\d+)?[A-Za-z]", "%s", form)
    lines = [] if options.has("-h", "--noheader") else [template % tuple(_SQUEUE_COLUMNS[code][0] for code in codes)]
    cells = [_SQUEUE_COLUMNS[code][1] for code in codes]
    lines += [template % tuple(cell(job, cluster.now, call.zone) for cell in cells) for job in jobs]
    return Reply(stdout="".join(f"{line}\n" for line in lines))


_SACCT_COLUMNS: Mapping[str, Callable[[BatchJob, float], str]] = {
    "JobID": lambda job, _zone: job_id(job),
    "JobIDRaw": lambda job, _zone: str(job.raw),
    "JobName": lambda job, _zone: job.wish.name,
    "Partition": lambda job, _zone: job.queue,
    "State": lambda job, _zone: "CANCELLED by 1000" if state(job) == "CANCELLED" else state(job),
    "ExitCode": lambda job, _zone: exit_code(job),
    "Submit": lambda job, zone: stamp(job.submitted, TIME, zone),
    "Start": lambda job, zone: stamp(job.started, TIME, zone, "None" if job.phase is Phase.ENDED else "Unknown"),
    "End": lambda job, zone: stamp(job.ended, TIME, zone, "Unknown"),
    "NodeList": lambda job, _zone: ",".join(job.nodes) or "None assigned",
    "Reason": lambda job, _zone: reason(job),
    "Restarts": lambda job, _zone: str(job.restarts),
}
_SACCT: Mapping[str, int] = {
    **takes(0, "-X --allocations -P --parsable2 -D --duplicates -n --noheader"),
    **takes(1, "-j --jobs -S --starttime -E --endtime --name -o --format -s --state -u --user"),
}


def sacct(call: Call, cluster: Cluster) -> Reply:
    """Answer sacct."""
    if not cluster.rules.history:
        return Reply(returncode=1, stderr="Slurm accounting storage is disabled\n")
    try:
        options = read(call.words, _SACCT)
    except Refusal as refusal:
        return Reply(returncode=1, stderr=f"sacct: unrecognized option '{refusal.subject}'\n")
    names = (options.last("-o", "--format") or "JobID,JobName,Partition,State,ExitCode").split(",")
    columns = [{name.lower(): name for name in _SACCT_COLUMNS}.get(name.lower(), "") for name in names]
    asked, tags = options.last("--jobs", "-j"), options.last("--name")
    records = _records(cluster, call, None if asked is None else asked.split(","), tags)
    if (since := options.last("--starttime", "-S")) is not None:
        # A record counts from its submit on until its end (sacct(1), "--starttime").
        records = [
            record for record in records if record.ended is None or stamp(record.ended, TIME, call.zone) >= since
        ]
    if not options.has("-D", "--duplicates"):
        records = list({job_id(record): record for record in records}.values())
    lines = [] if options.has("-n", "--noheader") else ["|".join(columns)]
    lines += ["|".join(_SACCT_COLUMNS[column](record, call.zone) for column in columns) for record in records]
    return Reply(stdout="".join(f"{line}\n" for line in lines))


def _records(cluster: Cluster, call: Call, asked: Sequence[str] | None, tags: str | None) -> list[BatchJob]:
    """Records of ended starts, and of what runs or waits, each once the database has it."""
    numbers: list[int] | None = None
    if asked is not None:
        numbers = list(dict.fromkeys(int(word.partition("_")[0]) for word in asked if word[:1].isdigit()))
    latest = cluster.now - cluster.rules.history_lag
    past = list(cluster.past(numbers))
    live = list(call.live(cluster)) if numbers is None else [job for number in numbers for job in cluster.job(number)]
    records = past + [job for job in live if unfinished(job) and job.submitted <= latest]
    records = [record for record in records if record.number not in call.hidden]
    if asked is not None:
        wanted = set(asked)
        records = [record for record in records if str(record.number) in wanted or job_id(record) in wanted]
    if tags is not None:
        records = [record for record in records if record.wish.name in tags.split(",")]
    return sorted(records, key=lambda record: (record.submitted, record.number, record.index or 0))
