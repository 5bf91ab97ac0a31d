"""PBS's listings: qstat in its plain form and as JSON, qselect, and the site's rbstat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Wait
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Reply, hms, stamp, unfinished
from orchestrator.simulate.options import read

__all__ = ["SERVER", "document", "plain_id", "qselect", "qstat", "rbstat"]

SERVER = "pbsvm"
_TIME = "%a %b %d %H:%M:%S %Y"
_WIDTH = 79  # where the plain form cuts a value and goes on with a tab
_TAIL = "use -x or -H to obtain historical job information"
_NO_HISTORY = "PBS is not configured to maintain job history"


def plain_id(job: BatchJob) -> str:
    """Print the id without the server: ``12``, ``12[3]``."""
    return str(job.number) if job.index is None else f"{job.number}[{job.index}]"


def _letter(job: BatchJob) -> str:
    if job.phase is Phase.ENDED:
        return "F" if job.index is None else "X"
    return {Phase.QUEUED: "Q", Phase.HELD: "H", Phase.RUNNING: "R", Phase.ENDING: "E"}[job.phase]


def _exit_status(job: BatchJob) -> int | None:
    match job.fate:
        case Fate.CANCELLED:
            return None if job.started is None else 256 + (job.signal or 15)
        case Fate.LIMIT:
            return -29
        case Fate.OUT_OF_MEMORY:
            return -27
        case Fate.NODE_FAILED:
            return -20
        case Fate.PREEMPTED:
            return -11
        case Fate.NOT_LAUNCHED:
            return -1
        case _:
            return 256 + job.signal if job.signal else job.exit_code


def _substate(job: BatchJob) -> int:
    if job.phase is Phase.ENDED:
        failed = job.exit_code or job.signal or job.fate is not Fate.EXITED
        return 91 if job.fate is Fate.CANCELLED else 93 if failed else 92
    return {Phase.QUEUED: 10, Phase.HELD: 20, Phase.RUNNING: 42, Phase.ENDING: 53}[job.phase]


def _comment(job: BatchJob, zone: float) -> str:
    if job.started is None:
        insufficient = f"Insufficient amount of resource: ngpus (R: {job.wish.gpus} A: 0 T: 0)"
        return {
            Wait.NEVER: f"Can Never Run: {insufficient}",
            Wait.RESOURCES: f"Not Running: {insufficient}",
            Wait.PRIORITY: "Not Running: Job is not the highest priority job",
            Wait.USER_LIMIT: f"Not Running: User has reached queue {job.queue} running job limit.",
            Wait.QUEUE_STOPPED: "Not Running: Queue not started.",
        }.get(job.wait, "")
    when = stamp(job.started, "%a %b %d at %H:%M", zone)
    said = f"Job run at {when} on ({job.nodes[0] if job.nodes else SERVER}:ncpus={job.wish.cpus})"
    if job.phase is not Phase.ENDED:
        return said
    return said + {
        Fate.CANCELLED: f" and terminated by {job.user}@{SERVER}",
        Fate.LIMIT: " and exceeded resource walltime",
        Fate.OUT_OF_MEMORY: " and exceeded resource mem",
    }.get(job.fate or Fate.EXITED, " and finished" if _substate(job) == 92 else " and failed")


def _attributes(job: BatchJob, cluster: Cluster, zone: float) -> dict[str, Any]:
    wish = job.wish
    path = f"{SERVER}:{wish.output or f'{wish.folder}/{wish.name}.o{job.number}'}"
    asked: dict[str, Any] = {"ncpus": wish.cpus * wish.nodes}
    chunk = f"{wish.nodes}:ncpus={wish.cpus}"
    if wish.gpus:
        asked["ngpus"] = wish.gpus * wish.nodes
        chunk += f":ngpus={wish.gpus}"
    asked |= {"nodect": wish.nodes, "place": "pack", "select": chunk}
    if job.limit is not None:
        asked["walltime"] = hms(job.limit)
    found: dict[str, Any] = {"Job_Name": wish.name, "Job_Owner": f"{job.user}@{SERVER}"}
    if job.started is not None:
        ran = hms((job.ended or cluster.now) - job.started)
        found["resources_used"] = {"cpupercent": 0, "cput": "00:00:00", "mem": "0kb", "ncpus": wish.cpus}
        found["resources_used"] |= {"vmem": "0kb", "walltime": ran}
    found |= {"job_state": _letter(job), "queue": job.queue, "server": SERVER, "Checkpoint": "u"}
    found["ctime"] = stamp(job.submitted, _TIME, zone)
    if job.nodes:
        found |= {"exec_host": "+".join(f"{name}/0" for name in job.nodes)}
    found |= {"Hold_Types": "u" if job.phase is Phase.HELD else "n", "Join_Path": "oe", "Keep_Files": "n"}
    found |= {"Mail_Points": "a", "mtime": stamp(job.ended or job.started or job.submitted, _TIME, zone)}
    found |= {"Output_Path": path, "Priority": 0, "qtime": stamp(job.submitted, _TIME, zone)}
    found |= {"Rerunable": str(wish.rerun), "Resource_List": asked}
    if job.started is not None:
        found["stime"] = stamp(job.started, _TIME, zone)
    if job.ended is not None and job.started is not None:
        found["obittime"] = stamp(job.ended, _TIME, zone)
    variables = {"PBS_O_HOME": f"/home/{job.user}", "PBS_O_LOGNAME": job.user, "PBS_O_WORKDIR": wish.folder}
    found |= {"substate": _substate(job), "Variable_List": {**variables, "PBS_O_QUEUE": job.queue}}
    if comment := _comment(job, zone):
        found["comment"] = comment
    found["etime"] = stamp(job.submitted, _TIME, zone)
    if job.starts:
        found["run_count"] = job.starts
    if job.phase is Phase.ENDED and (status := _exit_status(job)) is not None:
        found["Exit_status"] = status
    return {**found, "Submit_arguments": wish.asked, "project": wish.group or "_pbs_project_default"}


def _array_parent(jobs: Sequence[BatchJob], cluster: Cluster, zone: float) -> dict[str, Any]:
    """An array as a whole: begun as soon as one element has, ended with the last."""
    over = all(job.phase is Phase.ENDED for job in jobs)
    begun = any(job.started is not None for job in jobs)
    found = _attributes(jobs[0], cluster, zone)
    failed = any(_substate(job) == 93 for job in jobs)
    said = f"Job Array Began at {stamp(jobs[0].started, '%a %b %d at %H:%M', zone)}"
    if over:
        found |= {"job_state": "F", "substate": 93 if failed else 92, "Exit_status": 0}
        found["comment"] = said + (" and failed" if failed else " and finished")
    elif begun:
        found |= {"job_state": "B", "substate": 42, "comment": said}
    return {**found, "array": "True", "array_indices_submitted": f"0-{len(jobs) - 1}"}


def _find(word: str, cluster: Cluster, call: Call, *, history: bool) -> tuple[str, dict[str, Any]] | str | None:
    """A listed job, "finished" where only history has it, None where nothing has."""
    match = re.fullmatch(r"(\d+)(?:\[(\d*)\])?(?:\.\S+)?", word)
    if match is None or int(match[1]) in call.hidden:
        return None
    number, index = int(match[1]), match[2]
    known = [job for job in cluster.job(number) if unfinished(job)]
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
    if whole_array:
        return f"{number}[].{SERVER}", _array_parent(jobs, cluster, call.zone)
    return f"{plain_id(jobs[-1])}.{SERVER}", _attributes(jobs[-1], cluster, call.zone)


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
    words = options.operands or list(dict.fromkeys(plain_id(job) for job in call.live(cluster) if unfinished(job)))
    found: dict[str, dict[str, Any]] = {}
    said, code = [], 0
    for word in words:
        answer = _find(word, cluster, call, history=history)
        if isinstance(answer, tuple):
            found[answer[0]] = answer[1]
            continue
        name = f"{word.partition('.')[0]}.{SERVER}"
        said.append(f"qstat: {name} Job has finished, {_TAIL}" if answer else f"qstat: Unknown Job Id {name}")
        code = 35 if answer else 153
    stderr = "".join(f"{line}\n" for line in said)
    if options.last("-F") == "json":
        return Reply(returncode=code, stdout=document(found, cluster.now, call.fault), stderr=stderr)
    form = _full if options.has("-f") else _row
    return Reply(returncode=code, stdout="".join(form(name, job) for name, job in found.items()), stderr=stderr)


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


def _row(name: str, attributes: Mapping[str, Any]) -> str:
    owner = attributes["Job_Owner"].partition("@")[0]
    return f"{name:<17} {attributes['Job_Name'][:15]:<16} {owner:<16} {0:>8} {attributes['job_state']} {attributes['queue']}\n"


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
