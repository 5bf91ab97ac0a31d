"""PBS's listings: qstat in its plain form and as JSON, qselect, and the site's rbstat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.simulate.batchjob import BatchJob, Phase
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Reply, hms, stamp, unfinished
from orchestrator.simulate.dialects.pbs_attributes import SERVER, array_parent, attributes, plain_id
from orchestrator.simulate.options import read

__all__ = ["document", "qselect", "qstat", "rbstat"]

_WIDTH = 79  # where the plain form cuts a value and goes on with a tab
_TAIL = "use -x or -H to obtain historical job information"
_NO_HISTORY = "PBS is not configured to maintain job history"


_Found = dict[str, dict[str, Any]]


def _find(word: str, cluster: Cluster, call: Call, *, history: bool, each: bool) -> _Found | str | None:
    """What a word names, by id: a job, an array (its elements too, if ``each`` is asked for) or one element.

    "finished" where only history has it, None where nothing has.
    """
    match = re.fullmatch(r"(\d+)(?:\[(\d*)\])?(?:\.\S+)?", word)
    if match is None or int(match[1]) in call.hidden:
        return None
    number, index = int(match[1]), match[2]
    listed = cluster.job(number)
    # Ended elements are expired, and listed as long as their array has not ended.
    known = [job for job in listed if unfinished(job) or (job.index is not None and any(map(unfinished, listed)))]
    past = [job for job in cluster.past([number]) if job.phase is Phase.ENDED]
    whole_array = index == "" or (index is None and any(job.index is not None for job in known + past))
    known, past = (
        [job for job in group if whole_array or index is None or str(job.index) == index] for group in (known, past)
    )
    if not known and not past:
        return None
    if not known and not history:
        return "finished"
    jobs = sorted({job.key: job for job in past + known}.values(), key=lambda job: job.index or 0)
    found: _Found = {}
    if whole_array:
        found[f"{number}[].{SERVER}"] = array_parent(jobs, cluster, call.zone)
    if not whole_array or each:
        found |= {f"{plain_id(job)}.{SERVER}": attributes(job, cluster, call.zone) for job in jobs}
    return found


def qstat(call: Call, cluster: Cluster) -> Reply:
    """Answer qstat."""
    options = read(call.words, {"-f": 0, "-x": 0, "-t": 0, "-Qf": 0, "-Q": 0, "-F": 1, "-u": 1})
    if options.has("-Qf", "-Q"):
        return Reply(
            stdout="".join(_queue(partition.name, partition.max_walltime) for partition in cluster.rules.partitions)
        )
    history = options.has("-x")
    if history and not cluster.rules.history:
        return Reply(stdout="", stderr=f"qstat: {_NO_HISTORY}\n")
    words = options.operands or _all(call, cluster, history=history)
    found: _Found = {}
    said: list[str] = []
    code = 0
    for word in words:
        answer = _find(word, cluster, call, history=history, each=options.has("-t"))
        if isinstance(answer, dict):
            found |= answer
            continue
        name = f"{word.partition('.')[0]}.{SERVER}"
        if answer:
            said, code = [*said, f"qstat: {name} Job has finished, {_TAIL}"], 35
        elif word[:1].isdigit():
            said, code = [*said, f"qstat: Unknown Job Id {name}"], 153
        else:  # a word that is no id is taken for a queue
            said, code = [*said, f"qstat: Unknown queue destination {word}"], 170
    stderr = "".join([f"{line}\n" for line in said])
    if options.last("-F") == "json":
        return Reply(returncode=code, stdout=document(found, cluster.now, call.fault), stderr=stderr)
    if options.has("-f"):
        return Reply(returncode=code, stdout="".join([_full(*item) for item in found.items()]), stderr=stderr)
    rows = [_row(*item) for item in found.items()]
    return Reply(returncode=code, stdout="".join(_TABLE + rows if rows else []), stderr=stderr)


def _all(call: Call, cluster: Cluster, *, history: bool) -> list[str]:
    """Words for all jobs, each array once."""
    jobs = [job for job in call.live(cluster) if unfinished(job)]
    if history:
        jobs = sorted([*cluster.past(), *jobs], key=lambda job: job.number)
    return list(dict.fromkeys(f"{job.number}{'' if job.index is None else '[]'}" for job in jobs))


def _full(name: str, attributes: Mapping[str, Any]) -> str:
    lines = [f"Job Id: {name}"]
    for key, value in attributes.items():
        if key == "Variable_List":
            lines.append(f"    {key} = {','.join([f'{k}={v}' for k, v in value.items()])}")
        elif isinstance(value, dict):
            lines += [f"    {key}.{inner} = {item}" for inner, item in value.items()]
        else:
            lines.append(f"    {key} = {value}")
    return "\n".join([line if len(line) <= _WIDTH else _wrapped(line) for line in lines]) + "\n\n"


def _wrapped(line: str) -> str:
    step = _WIDTH - 8
    return "\n\t".join([line[:_WIDTH], *(line[start : start + step] for start in range(_WIDTH, len(line), step))])


_TABLE = [
    "Job id            Name             User              Time Use S Queue\n",
    "----------------  ---------------- ----------------  -------- - -----\n",
]


def _row(name: str, job: Mapping[str, Any]) -> str:
    owner, used = job["Job_Owner"].partition("@")[0], "00:00:00" if "resources_used" in job else "0"
    return f"{name:<17} {job['Job_Name'][:15]:<16} {owner:<16} {used:>9} {job['job_state']} {job['queue']:<16}\n"


def document(jobs: Mapping[str, Mapping[str, Any]], now: float, fault: str | None = None) -> str:
    """Print jobs as ``-F json`` does."""
    head = {"timestamp": int(now), "pbs_version": "23.06.06", "pbs_server": SERVER}
    text = json.dumps({**head, "Jobs": jobs} if jobs else head, indent="\t", separators=(",", ":\t")) + "\n"
    if fault == "bad-json":
        return text.replace(
            '"PBS_O_LOGNAME":', '"ODD":\t005,\n\t\t\t\t"GREETING":\t"it\\\'s 1\\,000",\n\t\t\t\t"PBS_O_LOGNAME":'
        )
    return text.replace('"PBS_O_LOGNAME":\t"', '"PBS_O_LOGNAME":\t"say "hi"') if fault == "torn-json" else text


def _queue(name: str, longest: float | None) -> str:
    limit = "" if longest is None else f"    resources_max.walltime = {hms(longest)}\n"
    return f"Queue: {name}\n    queue_type = Execution\n{limit}    enabled = True\n    started = True\n\n"


def qselect(call: Call, cluster: Cluster) -> Reply:
    """Answer qselect."""
    options = read(call.words, {"-x": 0, "-N": 1, "-u": 1, "-s": 1, "-q": 1})
    if options.has("-x") and not cluster.rules.history:
        return Reply(stderr=f"qselect: {_NO_HISTORY}\n")
    name = options.last("-N")
    jobs: Iterable[BatchJob] = cluster.live() if name is None else cluster.named(name)
    if options.has("-x"):
        settled = {id(job) for job in cluster.past()} if name is None else None
        latest = cluster.now - cluster.rules.history_lag
        jobs = [
            job
            for job in jobs
            if unfinished(job) or (id(job) in settled if settled is not None else (job.ended or 0.0) <= latest)
        ]
    else:
        jobs = [job for job in jobs if unfinished(job)]
    listed = dict.fromkeys(
        f"{job.number}{'' if job.index is None else '[]'}.{SERVER}" for job in jobs if job.number not in call.hidden
    )
    return Reply(stdout="".join(f"{word}\n" for word in listed))


def rbstat(call: Call, cluster: Cluster) -> Reply:
    """The University of Tokyo's list of unfinished jobs."""
    banner = ""
    if cluster.rules.stop is not None:
        when = stamp(cluster.rules.stop, "%Y/%m/%d(%a) %H:%M:%S", cluster.rules.zone)
        left = max(cluster.rules.stop - cluster.now, 0.0)
        banner = f"Reedbush-H scheduled stop time: {when} (Remain: {int(left // 86400)}days {hms(left % 86400)})\n\n"
    jobs = [job for job in call.live(cluster) if unfinished(job) and job.user == call.user]
    if not jobs:
        return Reply(stdout=f"{banner}No unfinished job found.\n")
    words = {Phase.QUEUED: "QUEUED", Phase.HELD: "HELD", Phase.RUNNING: "RUNNING", Phase.ENDING: "EXITING"}
    lines = ["JOB_ID     JOB_NAME   STATUS  PROJECT    QUEUE           START_DATE       ELAPSE   TOKEN    NODE"]
    for job in jobs:
        start = stamp(job.started, "%m/%d %H:%M:%S", call.zone, "-")
        ran = hms(0.0 if job.started is None else cluster.now - job.started)
        lines.append(
            f"{job.number:<10} {job.wish.name[:10]:<10} {words[job.phase]:<7} {job.wish.group or '-':<10} {job.queue:<15}"
            f" {start:<16} {ran} {0.0:<8} {job.wish.nodes}"
        )
    return Reply(stdout=banner + "".join(f"{line}\n" for line in lines))
