"""Slurm's listings: squeue, sacct and ``scontrol show job``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from orchestrator.simulate.batchjob import BatchJob, Phase, Refusal
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Reply, hms, stamp, unfinished
from orchestrator.simulate.dialects.slurm_words import (
    INVALID_JOB,
    SHORT,
    TIME,
    collapsed,
    end_time,
    exit_code,
    job_id,
    limit,
    long_time,
    ranges,
    reason,
    state,
    waiting,
)
from orchestrator.simulate.options import read, takes

__all__ = ["sacct", "show", "squeue"]


def _short_time(seconds: float) -> str:
    text = long_time(seconds)
    return text.removeprefix("00:").removeprefix("0") if seconds < 3600 else text.removeprefix("0")


def _where(job: BatchJob) -> str:
    return f"({reason(job)})" if waiting(job) else ",".join(job.nodes)


_SQUEUE_COLUMNS: Mapping[str, tuple[str, Callable[[BatchJob, float, float], str]]] = {
    "i": ("JOBID", lambda job, _now, _zone: job_id(job)),
    "A": ("JOBID", lambda job, _now, _zone: str(job.raw)),
    "F": ("ARRAY_JOB_ID", lambda job, _now, _zone: str(job.number)),
    "K": ("ARRAY_TASK_ID", lambda job, _now, _zone: "N/A" if job.index is None else str(job.index)),
    "T": ("STATE", lambda job, _now, _zone: state(job)),
    "t": ("ST", lambda job, _now, _zone: SHORT[state(job)]),
    "V": ("SUBMIT_TIME", lambda job, _now, zone: stamp(job.queued, TIME, zone)),
    "S": ("START_TIME", lambda job, _now, zone: stamp(job.started, TIME, zone, "N/A")),
    "e": ("END_TIME", lambda job, _now, zone: stamp(end_time(job), TIME, zone, "N/A")),
    "M": ("TIME", lambda job, now, _zone: _short_time(0 if job.started is None else (job.ended or now) - job.started)),
    "l": ("TIME_LIMIT", lambda job, _now, _zone: "UNLIMITED" if job.limit is None else _short_time(job.limit)),
    "N": ("NODELIST", lambda job, _now, _zone: ",".join(job.nodes)),
    "r": ("REASON", lambda job, _now, _zone: reason(job)),
    "R": ("NODELIST(REASON)", lambda job, _now, _zone: _where(job)),
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
_SQUEUE_FORM = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
_FIELD = re.compile(r"%(\.?)(\d*)([A-Za-z])")


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
        if odd := [word for word in wanted if not re.fullmatch(r"\d+(_\d+)?", word)]:
            return Reply(returncode=1, stderr=f"squeue: error: Invalid job id: {odd[0]}\n")
        jobs = [job for job in jobs if str(job.number) in wanted or job_id(job) in wanted or str(job.raw) in wanted]
        if len(wanted) == 1 and not jobs:
            return Reply(returncode=1, stderr=f"slurm_load_jobs error: {INVALID_JOB}\n")
    if (options.last("--states", "-t") or "").lower() != "all":
        jobs = [job for job in jobs if unfinished(job)]
    if (names := options.last("--name")) is not None:
        jobs = [job for job in jobs if job.wish.name in names.split(",")]
    form = options.last("-o", "--format") or _SQUEUE_FORM
    fields = _FIELD.findall(form)
    template = _FIELD.sub("%s", form)
    titles = [_SQUEUE_COLUMNS[code][0] for _, _, code in fields]
    rows = [] if options.has("-h", "--noheader") else [titles]
    for group in [[job] for job in jobs] if options.has("-r", "--array") else collapsed(jobs):
        row = [_SQUEUE_COLUMNS[code][1](group[0], cluster.now, call.zone) for _, _, code in fields]
        rows.append(_as_group(row, [code for _, _, code in fields], group) if len(group) > 1 else row)
    if any(width for _, width, _ in fields):
        rows = [[_fitted(cell, *field[:2]) for cell, field in zip(row, fields, strict=True)] for row in rows]
    return Reply(stdout="".join([f"{template % tuple(row)}\n" for row in rows]))


def _as_group(row: Sequence[str], columns: Sequence[str], group: Sequence[BatchJob]) -> list[str]:
    """The one row of an array's waiting elements: ``36_[4-9]``."""
    indices = ranges(group)
    whole = f"{group[0].number}_[{indices}]"
    together = {"i": whole, "JobID": whole, "K": indices}
    return [together.get(column, cell) for cell, column in zip(row, columns, strict=True)]


def _fitted(cell: str, right: str, width: str) -> str:
    if not width:
        return cell
    cut = cell[: int(width)]
    return cut.rjust(int(width)) if right else cut.ljust(int(width))


# Each column's text and its width where the list is not parsable; a negative one is left-aligned.
_SACCT_COLUMNS: Mapping[str, tuple[int, Callable[[BatchJob, float], str]]] = {
    "JobID": (-12, lambda job, _zone: job_id(job)),
    "JobIDRaw": (-12, lambda job, _zone: str(job.raw)),
    "JobName": (10, lambda job, _zone: job.wish.name),
    "Partition": (10, lambda job, _zone: job.queue),
    "Account": (10, lambda job, _zone: job.wish.group or job.user),
    "AllocCPUS": (10, lambda job, _zone: "0" if job.started is None else str(job.wish.cpus * job.wish.nodes)),
    "State": (10, lambda job, _zone: "CANCELLED by 1000" if state(job) == "CANCELLED" else state(job)),
    "ExitCode": (8, lambda job, _zone: exit_code(job)),
    "Submit": (19, lambda job, zone: stamp(job.queued, TIME, zone)),
    "Start": (
        19,
        lambda job, zone: stamp(job.started, TIME, zone, "None" if job.phase is Phase.ENDED else "Unknown"),
    ),
    "End": (19, lambda job, zone: stamp(job.ended, TIME, zone, "Unknown")),
    "NodeList": (15, lambda job, _zone: ",".join(job.nodes) or "None assigned"),
    "Reason": (22, lambda job, _zone: reason(job) if waiting(job) else "None"),
}
_SACCT_DEFAULT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
# What accounting has of a job that has started and whose record has not come through.
_EARLY = {"JobName": "allocation", "Partition": "", "AllocCPUS": "0", "State": "PENDING", "Start": "Unknown"}
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
    known = {name.lower(): name for name in _SACCT_COLUMNS}
    names = [name.partition("%")[0] for name in (options.last("-o", "--format") or _SACCT_DEFAULT).split(",")]
    if odd := [name for name in names if name.lower() not in known]:
        return Reply(returncode=1, stderr=f'sacct: error: Invalid field requested: "{odd[0]}"\n')
    columns = [known[name.lower()] for name in names]
    asked = options.last("--jobs", "-j")
    records = _records(cluster, call, None if asked is None else asked.split(","), options.last("--name"))
    since = options.last("--starttime", "-S")
    if since is None and asked is None:
        since = stamp(cluster.now, "%Y-%m-%dT00:00:00", call.zone)
    if since is not None:
        # A record counts from its submit on until its end (sacct(1), "--starttime").
        records = [
            record for record in records if record.ended is None or stamp(record.ended, TIME, call.zone) >= since
        ]
    if options.has("-s", "--state") and not options.has("-E", "--endtime"):
        records = []  # as version 22.05 answers
    if not options.has("-D", "--duplicates"):
        records = list({job_id(record): record for record in records}.values())
    rows = [] if options.has("-n", "--noheader") else [columns]
    latest = cluster.now - cluster.rules.history_lag
    for group in collapsed(records):
        row = [_SACCT_COLUMNS[column][1](group[0], call.zone) for column in columns]
        if group[0].phase is not Phase.ENDED and (group[0].started or 0.0) > latest:
            row = [_EARLY.get(column, cell) for cell, column in zip(row, columns, strict=True)]
        rows.append(_as_group(row, columns, group) if len(group) > 1 else row)
    if options.has("-P", "--parsable2"):
        return Reply(stdout="".join(["|".join(row) + "\n" for row in rows]))
    widths = [_SACCT_COLUMNS[column][0] for column in columns]
    if not options.has("-n", "--noheader"):
        rows.insert(1, ["-" * abs(width) for width in widths])
    return Reply(stdout="".join("".join(map(_cell, row, widths)) + "\n" for row in rows))


def _cell(text: str, width: int) -> str:
    room = abs(width)
    text = text if len(text) <= room else f"{text[: room - 1]}+"
    return (text.ljust(room) if width < 0 else text.rjust(room)) + " "


def _records(cluster: Cluster, call: Call, asked: Sequence[str] | None, tags: str | None) -> list[BatchJob]:
    """Records of ended starts, and of what runs or waits, each once the database has it."""
    numbers: list[int] | None = None
    if asked is not None:
        numbers = list(dict.fromkeys(int(word.partition("_")[0]) for word in asked if word[:1].isdigit()))
    latest = cluster.now - cluster.rules.history_lag
    past = list(cluster.past(numbers))
    live = list(call.live(cluster)) if numbers is None else [job for number in numbers for job in cluster.job(number)]
    # An element that has just started has left its array's record, and has none of its own yet.
    live = [job for job in live if job.index is None or job.started is None or job.started <= latest]
    records = past + [job for job in live if unfinished(job) and job.queued <= latest]
    records = [record for record in records if record.number not in call.hidden]
    if asked is not None:
        wanted = set(asked)
        records = [record for record in records if str(record.number) in wanted or job_id(record) in wanted]
    if tags is not None:
        early = [record for record in records if unfinished(record) and (record.started or 0.0) > latest]
        records = [record for record in records if record.wish.name in tags.split(",") and record not in early]
    return sorted(records, key=lambda record: (record.queued, record.number, record.index or 0))


def show(jobs: Sequence[BatchJob], cluster: Cluster, zone: float, *, in_one_line: bool) -> str:
    """Print jobs as ``scontrol show job`` does."""
    shown = [_lines(group, cluster, zone) for group in collapsed(jobs)]
    if in_one_line:
        return "".join(" ".join(lines) + "\n" for lines in shown)
    return "".join("\n   ".join(lines) + "\n\n" for lines in shown)


def _lines(group: Sequence[BatchJob], cluster: Cluster, zone: float) -> list[str]:
    job = group[0]
    ran = 0.0 if job.started is None else (job.ended or cluster.now) - job.started
    array = "" if job.index is None else f" ArrayJobId={job.number} ArrayTaskId={ranges(group)}"
    end = stamp(end_time(job), TIME, zone, "Unknown")
    lines = [
        f"JobId={job.raw}{array} JobName={job.wish.name}",
        f"UserId={job.user}(1000) GroupId={job.user}(1000) MCS_label=N/A",
        f"Priority=1 Nice=0 Account={job.wish.group or job.user} QOS=normal",
        f"JobState={state(job)} Reason={reason(job).replace(' ', '_')} Dependency=(null)",
        f"Requeue={int(job.wish.rerun)} Restarts={job.restarts} BatchFlag=1 Reboot=0 ExitCode={exit_code(job)}",
        f"RunTime={hms(ran)} TimeLimit={limit(job)} TimeMin=N/A",
        f"SubmitTime={stamp(job.queued, TIME, zone)} EligibleTime={stamp(job.eligible, TIME, zone)}",
        f"StartTime={stamp(job.started, TIME, zone, 'Unknown')} EndTime={end} Deadline=N/A",
        f"Partition={job.queue} AllocNode:Sid=login:1",
        f"NodeList={','.join(job.nodes)}",
        *([f"BatchHost={job.nodes[0]}"] if job.nodes else []),
        f"NumNodes={job.wish.nodes} NumCPUs={job.wish.cpus * job.wish.nodes} NumTasks=1 CPUs/Task={job.wish.cpus}",
        f"Command={job.wish.script or '(null)'}",
        f"WorkDir={job.wish.folder}",
    ]
    return [*lines, f"Comment={job.wish.comment} "] if job.wish.comment else lines
