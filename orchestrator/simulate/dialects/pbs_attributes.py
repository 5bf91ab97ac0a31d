"""A PBS job's attributes, in the order and the words of OpenPBS 23.06: what ``qstat -f`` prints of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Wait
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import hms, stamp

__all__ = ["SERVER", "array_parent", "attributes", "exit_status", "letter", "plain_id", "substate"]

SERVER = "pbsvm"
_TIME = "%a %b %d %H:%M:%S %Y"
_BEGAN = "%a %b %d at %H:%M"


def plain_id(job: BatchJob) -> str:
    """Print the id without the server: ``12``, ``12[3]``."""
    return str(job.number) if job.index is None else f"{job.number}[{job.index}]"


def letter(job: BatchJob, cluster: Cluster) -> str:
    """Print the state; an element that is over is expired (X) until its whole array is."""
    if job.phase is Phase.ENDED:
        siblings = () if job.index is None else cluster.job(job.number)
        return "X" if any(other.phase is not Phase.ENDED for other in siblings) else "F"
    return {Phase.QUEUED: "Q", Phase.HELD: "H", Phase.RUNNING: "R", Phase.ENDING: "E"}[job.phase]


def exit_status(job: BatchJob) -> int | None:
    """Tell the status that the server keeps: the script's own, 256 and the signal that ended it, or a code below 0."""
    match job.fate:
        case Fate.CANCELLED:
            return None if job.started is None else 256 + (job.signal or 15)
        case Fate.LIMIT:
            return -29
        case Fate.OUT_OF_MEMORY:
            return -27
        case Fate.NODE_FAILED:
            return -20
        case Fate.PREEMPTED | Fate.REQUEUED:
            return -11
        case Fate.NOT_LAUNCHED:
            return -1
        case _:
            # The login shell above the script turns a signal into a status of its own.
            return 128 + job.signal if job.signal else job.exit_code


def substate(job: BatchJob) -> int:
    """Tell the substate (pbs_job.h)."""
    if job.phase is Phase.ENDED:
        failed = job.exit_code or job.signal or job.fate is not Fate.EXITED
        return 91 if job.fate is Fate.CANCELLED else 93 if failed else 92
    return {Phase.QUEUED: 10, Phase.HELD: 20, Phase.RUNNING: 42, Phase.ENDING: 53}[job.phase]


def attributes(job: BatchJob, cluster: Cluster, zone: float) -> dict[str, Any]:
    """All of a job, or of one element of an array."""
    wish, element = job.wish, job.index is not None
    begun, over = job.started is not None, job.phase is Phase.ENDED
    found: dict[str, Any] = {"Job_Name": wish.name, "Job_Owner": f"{job.user}@{SERVER}"}
    if job.started is not None:
        ran = hms((job.ended or cluster.now) - job.started)
        found["resources_used"] = {"cpupercent": 0, "cput": "00:00:00", "mem": "0kb", "ncpus": wish.cpus}
        found["resources_used"] |= {"vmem": "0kb", "walltime": ran}
    found |= {"job_state": letter(job, cluster), "queue": job.queue, "server": SERVER}
    if not element:
        found["Checkpoint"] = "u"
    found |= {"ctime": stamp(job.submitted, _TIME, zone), "Error_Path": _path(job, "e")}
    chunk = f"ncpus={wish.cpus}" + (f":ngpus={wish.gpus}" if wish.gpus else "")
    if job.nodes:
        found["exec_host"] = "+".join([f"{name}/0" for name in job.nodes])
        found["exec_vnode"] = "+".join([f"({name}:{chunk})" for name in job.nodes])
    if not element:
        held = job.phase is Phase.HELD or (job.phase is Phase.ENDED and job.wish.hold and not job.starts)
        found["Hold_Types"] = "u" if held else "n"
    found |= {"Join_Path": "oe", "Keep_Files": "n", "Mail_Points": "a"}
    found |= {"mtime": stamp(job.ended or job.started or job.queued, _TIME, zone), "Output_Path": _path(job, "o")}
    found |= {"Priority": 0, "qtime": stamp(job.queued, _TIME, zone), "Rerunable": str(wish.rerun)}
    found["Resource_List"] = _asked(job, chunk)
    if begun:
        found["stime"] = stamp(job.started, _TIME, zone)
    if begun and over:
        found["obittime"] = stamp(job.ended, _TIME, zone)
    if begun:
        found |= {"session_id": 1000 + job.raw, "jobdir": f"/home/{job.user}"}
    variables = {"PBS_O_HOME": f"/home/{job.user}", "PBS_O_LOGNAME": job.user, "PBS_O_WORKDIR": wish.folder}
    found |= {"substate": substate(job), "Variable_List": {**variables, "PBS_O_QUEUE": job.queue}}
    if comment := _comment(job, zone, chunk):
        found["comment"] = comment
    if job.phase is not Phase.HELD and (begun or not over):
        found["etime"] = stamp(job.queued, _TIME, zone)
    if job.starts:
        found["run_count"] = job.starts
    if over and begun:
        found |= {"Stageout_status": 1, "Exit_status": exit_status(job)}
    if element:
        found |= {"array_id": f"{job.number}[].{SERVER}", "array_index": job.index}
    else:
        found["Submit_arguments"] = wish.asked
    if over:
        found["history_timestamp"] = int(job.ended or 0.0)
    return {**found, "project": wish.group or "_pbs_project_default", "Submit_Host": SERVER}


def array_parent(jobs: Sequence[BatchJob], cluster: Cluster, zone: float) -> dict[str, Any]:
    """An array as a whole: begun as soon as one element has, ended with the last, with a status that is always 0."""
    first = jobs[0]
    over = all(job.phase is Phase.ENDED for job in jobs)
    begun = [job.started for job in jobs if job.started is not None]
    found = attributes(first, cluster, zone)
    for name in ("resources_used", "exec_host", "exec_vnode", "session_id", "jobdir", "run_count", "obittime"):
        found.pop(name, None)
    for name in ("array_id", "array_index", "comment", "Exit_status", "Stageout_status", "history_timestamp"):
        found.pop(name, None)
    failed = any(substate(job) == 93 for job in jobs)
    said = f"Job Array Began at {stamp(min(begun, default=None), _BEGAN, zone)}"
    held = any(job.phase is Phase.HELD for job in jobs)
    found |= {"job_state": "H" if held else "Q", "substate": 20 if held else 10}
    if over:
        found |= {"job_state": "F", "substate": 93 if failed else 92, "Exit_status": 0}
        found["comment"] = said + (" and failed" if failed else " and finished")
        found["history_timestamp"] = int(max(job.ended or 0.0 for job in jobs))
    elif begun:
        found |= {"job_state": "B", "substate": 70, "comment": said}
    if not held:
        found["etime"] = stamp(first.queued, _TIME, zone)
    waiting = [job.index for job in jobs if job.phase in {Phase.QUEUED, Phase.HELD} and job.index is not None]
    counts = {
        "Queued": len(waiting),
        "Running": sum(job.phase is Phase.RUNNING for job in jobs),
        "Exiting": sum(job.phase is Phase.ENDING for job in jobs),
        "Expired": 0 if over else sum(job.phase is Phase.ENDED for job in jobs),
    }
    indices = [job.index for job in jobs if job.index is not None]
    return found | {
        "Checkpoint": "u",
        "Hold_Types": "u" if held else "n",
        "Submit_arguments": first.wish.asked,
        "array": "True",
        "array_state_count": " ".join([f"{name}:{count}" for name, count in counts.items()]),
        "array_indices_submitted": f"{min(indices)}-{max(indices)}",
        "array_indices_remaining": f"{min(waiting)}-{max(waiting)}" if waiting else "-",
    }


def _path(job: BatchJob, kind: str) -> str:
    name = f"{job.wish.folder}/{job.wish.name}.{kind}{job.number}"
    return f"{SERVER}:{(kind == 'o' and job.wish.output) or name}{'' if job.index is None else f'.{job.index}'}"


def _asked(job: BatchJob, chunk: str) -> dict[str, Any]:
    wish = job.wish
    asked: dict[str, Any] = {"ncpus": wish.cpus * wish.nodes}
    if wish.gpus:
        asked["ngpus"] = wish.gpus * wish.nodes
    asked |= {"nodect": wish.nodes, "place": "pack", "select": f"{wish.nodes}:{chunk}"}
    return asked if job.limit is None else {**asked, "walltime": hms(job.limit)}


def _comment(job: BatchJob, zone: float, chunk: str) -> str:
    if job.started is None:
        insufficient = f"Insufficient amount of resource: ngpus (R: {job.wish.gpus} A: 0 T: 0)"
        return {
            Wait.NEVER: f"Can Never Run: {insufficient}",
            Wait.RESOURCES: f"Not Running: {insufficient}",
            Wait.NODES_DOWN: f"Not Running: {insufficient}",
            Wait.PRIORITY: "Not Running: Job is not the highest priority job",
            Wait.USER_LIMIT: f"Not Running: User has reached queue {job.queue} running job limit.",
            Wait.QUEUE_STOPPED: "Not Running: Queue not started.",
        }.get(job.wait, "")
    said = f"Job run at {stamp(job.started, _BEGAN, zone)} on ({job.nodes[0] if job.nodes else SERVER}:{chunk})"
    if job.phase is not Phase.ENDED:
        return said
    return said + {
        Fate.CANCELLED: f" and terminated by {job.user}@{SERVER}",
        Fate.LIMIT: " and exceeded resource walltime",
        Fate.OUT_OF_MEMORY: " and exceeded resource mem",
    }.get(job.fate or Fate.EXITED, " and finished" if substate(job) == 92 else " and failed")
