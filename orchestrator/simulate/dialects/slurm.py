"""Slurm: sbatch, squeue, sacct, scancel, scontrol, sacctmgr, in the words of version 22.05."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

from orchestrator.simulate.batchjob import BatchJob, Refusal, Refused, Wish
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Dialect, Reply
from orchestrator.simulate.dialects.slurm_lists import sacct, show, squeue
from orchestrator.simulate.dialects.slurm_words import INVALID_JOB, long_time, waiting
from orchestrator.simulate.options import Options, array, directives, duration, megabytes, read, takes, whole

__all__ = ["SlurmDialect"]

T = TypeVar("T")

_VERSION = "slurm-wlm 22.05.8"
_TIMED_OUT = "Socket timed out on send/recv operation"
_LINK = "Unable to contact slurm controller (connect failure)"
_BATCH = "sbatch: error: Batch job submission failed: "
_POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
_DEAF = 19.0  # seconds until a command gives up on its controller; listings try twice

_SBATCH: Mapping[str, int] = {
    **takes(1, "-A --account -a --array -D --chdir --comment -c --cpus-per-task -d --dependency -e --error --export"),
    **takes(1, "-G --gpus --gpus-per-node --gpus-per-task --gres -J --job-name --kill-on-invalid-dep --mail-type"),
    **takes(1, "--mail-user --mem -N --nodes -n --ntasks --ntasks-per-node --open-mode -o --output -p --partition"),
    **takes(1, "-q --qos --signal -t --time -w --nodelist --wrap"),
    **takes(0, "--exclusive --hold --no-requeue --parsable --quiet --requeue --version -H -Q"),
}
_REFUSALS = {
    Refused.NO_QUEUE: "invalid partition specified: {0}\n" + _BATCH + "Invalid partition name specified",
    Refused.QUEUE_DISABLED: _BATCH + "Required partition not available (inactive or drain)",
    Refused.WALLTIME: _BATCH + "Requested time limit is invalid (missing or exceeds some limit)",
    Refused.IMPOSSIBLE: _BATCH + "Requested node configuration is not available",
    Refused.USER_LIMIT: "QOSMaxSubmitJobPerUserLimit\n" + _BATCH + _POLICY,
    Refused.NO_GROUP: _BATCH + "Invalid account or account/partition combination specified",
    Refused.NO_ARRAYS: _BATCH + "Invalid job array specification",
    Refused.ARRAY_SIZE: _BATCH + "Invalid job array specification",
    Refused.NO_NODE: _BATCH + "Invalid node name specified",
    Refused.NO_SCRIPT: "Unable to open file {0}",
    Refused.RESOURCE: "Invalid generic resource (gres) specification",
    Refused.VALUE: "Invalid {0} specification",
}
_NO_SHEBANG = (
    "This does not look like a batch script.  The first",
    "line must start with #! followed by the path to an interpreter.",
    "For instance: #!/bin/sh",
)


class SlurmDialect(Dialect):
    """Slurm, with or without accounting (`Rules.history`)."""

    scheduler: ClassVar[str] = "slurm"

    def __init__(self) -> None:
        self.programs = {
            "sbatch": ("submit",),
            "squeue": ("query",),
            "sacct": ("history",),
            "scancel": ("cancel",),
            "scontrol": (),
            "sacctmgr": (),
        }

    def run(self, call: Call, cluster: Cluster) -> Reply:
        """Carry out a command."""
        runs: dict[str, Callable[[Call, Cluster], Reply]] = {
            "sbatch": _sbatch,
            "squeue": squeue,
            "sacct": sacct,
            "scancel": _scancel,
            "scontrol": _scontrol,
            "sacctmgr": lambda _call, cluster: _sacctmgr(cluster),
        }
        if call.words in {("--version",), ("-V",)}:
            return Reply(stdout=f"{_VERSION}\n")
        return runs[call.name](call, cluster)

    def roles(self, call: Call) -> Sequence[str]:
        """A listing by name is a look-up."""
        roles = super().roles(call)
        return (*roles, "find") if any(word.startswith("--name") for word in call.words) else roles

    def trouble(self, kind: str, call: Call) -> Reply:
        """As slurm_strerror and the commands put it."""
        name = call.name
        if name == "sacct":  # answered by another server; what can fail is the database
            text = "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection"
            return Reply(returncode=1, stderr=f"{text} to localhost:6819: Connection refused\n")
        if kind in {"down", "timed-out"}:
            why, delay = (_LINK, _DEAF) if kind == "down" else (_TIMED_OUT, _DEAF)
            if name == "sbatch":
                return Reply(returncode=1, stderr=f"{_BATCH}{why}\n", delay=delay)
            if name == "scancel":
                text = f"scancel: error: Kill job error on job id {call.words[-1]}: {why}\n"
                return Reply(returncode=8, stderr=text, delay=delay)
            return Reply(returncode=1, stderr=f"slurm_load_jobs error: {why}\n", delay=2 * delay)
        text = {
            "busy": f"{_BATCH}Slurm temporarily unable to accept job, sleeping and retrying",
            "limit": f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{_BATCH}{_POLICY}",
            "refused": f"{_BATCH}Invalid account or account/partition combination specified",
        }[kind]
        return Reply(returncode=1, stderr=f"{text}\n")

    def environment(self, job: BatchJob) -> dict[str, str]:
        """Output environment variables of sbatch(1)."""
        wish = job.wish
        variables = {
            "SLURM_JOB_ID": str(job.raw),
            "SLURM_JOBID": str(job.raw),
            "SLURM_JOB_NAME": wish.name,
            "SLURM_JOB_PARTITION": job.queue,
            "SLURM_JOB_NODELIST": ",".join(job.nodes),
            "SLURM_JOB_NUM_NODES": str(len(job.nodes)),
            "SLURM_CPUS_PER_TASK": str(wish.cpus),
            "SLURM_SUBMIT_DIR": wish.folder,
            "SLURM_JOB_USER": job.user,
            "SLURM_JOB_START_TIME": str(int(job.started or 0)),
        }
        if job.limit is not None:
            variables["SLURM_JOB_END_TIME"] = str(int((job.started or 0) + job.limit))
        if job.restarts:
            variables["SLURM_RESTART_COUNT"] = str(job.restarts)
        if job.index is not None:
            variables |= {"SLURM_ARRAY_JOB_ID": str(job.number), "SLURM_ARRAY_TASK_ID": str(job.index)}
        if job.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.devices))
        return variables

    def strange(self, text: str) -> str:
        """States are whole words between bars."""
        return re.sub(r"\b(PENDING|RUNNING|COMPLETING|COMPLETED)\b", "HIBERNATING", text)

    def output_path(self, job: BatchJob) -> str | None:
        """Fill ``%j``, ``%A`` and ``%a``."""
        path = super().output_path(job) or f"{job.wish.folder}/slurm-%j.out"
        element = "4294967294" if job.index is None else str(job.index)
        return path.replace("%j", str(job.raw)).replace("%A", str(job.number)).replace("%a", element)


def _sbatch(call: Call, cluster: Cluster) -> Reply:
    try:
        line = read(call.words, _SBATCH)
        script = line.operands[0] if line.operands else ""
        if (wrapped := line.last("--wrap")) is not None:
            script, text = "wrap", f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{wrapped}\n"
        else:
            text = call.stdin if not script else call.open(script) or ""
            if script and call.open(script) is None:
                raise Refusal(Refused.NO_SCRIPT, script)
        if not text.startswith("#!"):
            return Reply(returncode=1, stderr="".join(f"sbatch: error: {say}\n" for say in _NO_SHEBANG))
        options = read(directives(text, "#SBATCH"), _SBATCH).under(line)
        wish = _wish(options, script, text, call, cluster)
    except Refusal as refusal:
        return _refused(refusal)
    try:
        job = cluster.submit(wish, call.user)
    except Refusal as refusal:
        most = max(node.memory for node in cluster.nodes.values())
        return _refused(refusal, too_much_memory=refusal.why is Refused.IMPOSSIBLE and wish.memory > most)
    return Reply(stdout=f"{job.number}\n" if options.has("--parsable") else f"Submitted batch job {job.number}\n")


def _refused(refusal: Refusal, *, too_much_memory: bool = False) -> Reply:
    if refusal.why is Refused.OPTION:
        words = f"sbatch: unrecognized option '{refusal.subject}'\nTry \"sbatch --help\" for more information\n"
        return Reply(returncode=255, stderr=words)
    said = _REFUSALS[refusal.why].format(refusal.subject)
    if too_much_memory:
        said = f"Memory specification can not be satisfied\n{said}"
    said = said if said.startswith("sbatch: ") else f"sbatch: error: {said}"
    return Reply(returncode=255 if refusal.why is Refused.VALUE else 1, stderr=f"{said}\n")


def _wish(options: Options, script: str, text: str, call: Call, cluster: Cluster) -> Wish:
    gres = re.fullmatch(r"gpu(?::\w+)?:(\d+)", options.last("--gres") or "gpu:0")
    if gres is None:
        raise Refusal(Refused.RESOURCE, "gres")
    gpus = (options.last("--gpus-per-node") or options.last("--gpus", "-G") or gres[1]).rpartition(":")[2]
    hosts = (options.last("--nodelist", "-w") or "").split(",")
    if unknown := [host for host in hosts if host and host not in cluster.nodes]:
        raise Refusal(Refused.NO_NODE, unknown[0])
    nodes, cpus = _cores(options, cluster)
    walltime, elements = options.last("--time", "-t"), options.last("--array", "-a")
    folder = options.last("--chdir", "-D") or call.folder
    inherit = (options.last("--export") or "ALL").startswith("ALL")
    return Wish(
        name=options.last("--job-name", "-J") or script.rpartition("/")[2] or "sbatch",
        queue=options.last("--partition", "-p"),
        nodes=nodes,
        gpus=whole(gpus),
        cpus=cpus,
        memory=_meant("--mem", lambda: megabytes(options.last("--mem") or "0")),
        whole=options.has("--exclusive"),
        walltime=None if walltime is None else _meant("--time", lambda: duration(walltime, minutes=True)),
        group=options.last("--account", "-A"),
        array=None if elements is None else _elements(elements),
        hold=options.has("--hold", "-H"),
        rerun=not options.has("--no-requeue"),
        comment=options.last("--comment") or "",
        output=options.last("--output", "-o"),
        script=script,
        text=text,
        folder=folder,
        environment=dict(call.environment) if inherit else {},
        asked=call.line,
    )


def _cores(options: Options, cluster: Cluster) -> tuple[int, int]:
    """Nodes, and cores on each; tasks without a number of nodes go onto as few as they fit."""
    each = whole(options.last("--cpus-per-task", "-c") or "1")
    nodes, tasks = options.last("--nodes", "-N"), options.last("--ntasks", "-n")
    if nodes is None and tasks is not None and not options.has("--ntasks-per-node"):
        most = max(node.cpus for node in cluster.nodes.values())
        wanted = whole(tasks) * each
        return math.ceil(wanted / most), min(wanted, most)
    return whole(nodes or "1"), whole(options.last("--ntasks-per-node") or "1") * each


def _elements(text: str) -> tuple[int, ...]:
    try:
        return array(text)
    except Refusal:
        raise Refusal(Refused.ARRAY_SIZE, text) from None


def _meant(option: str, value: Callable[[], T]) -> T:
    """The option's value; a refusal names the option, as sbatch does."""
    try:
        return value()
    except Refusal:
        raise Refusal(Refused.VALUE, option) from None


def _jobs_of(word: str, cluster: Cluster) -> list[BatchJob]:
    number, _, index = word.partition("_")
    if not number.isdigit():
        return []
    found = [job for job in cluster.job(int(number)) if not index or str(job.index) == index]
    return found or [job for job in cluster.live() if str(job.raw) == word]


def _scancel(call: Call, cluster: Cluster) -> Reply:
    words = [word for word in call.words if word not in {"-Q", "--quiet"}]
    if odd := [word for word in words if not re.fullmatch(r"\d+(_\d+)?", word)]:
        return Reply(returncode=1, stderr=f"scancel: error: Invalid job id {odd[0]}\n")
    for word in words:
        for job in _jobs_of(word, cluster):
            cluster.cancel(job)
    return Reply()


def _scontrol(call: Call, cluster: Cluster) -> Reply:
    words = [word for word in call.words if word not in {"-o", "--oneliner"}]
    verb, targets = (words[0] if words else ""), words[1:]
    if verb not in {"show", "hold", "release", "requeue", "requeuehold"}:
        return Reply(returncode=1, stderr=f"invalid keyword: {verb}\n")
    target = (targets or [""])[-1].removeprefix("job=")
    jobs = list(cluster.live()) if targets in (["job"], ["jobs"]) else _jobs_of(target, cluster)
    if verb == "show":
        if not jobs and target.isdigit():
            return Reply(returncode=1, stderr=f"slurm_load_jobs error: {INVALID_JOB}\n")
        return Reply(
            stdout=show(jobs, cluster, call.zone, in_one_line=len(words) < len(call.words)) or "No jobs in the system\n"
        )
    if not jobs:
        more = f"slurm_suspend error: {INVALID_JOB}\n" if verb in {"hold", "release"} else ""
        return Reply(returncode=1, stderr=f"{INVALID_JOB} for job {target}\n{more}")
    said = ""
    for job in jobs:
        if verb == "hold":
            cluster.hold(job)
        elif verb == "release":
            cluster.release(job)
        elif not cluster.requeue(job, hold=verb == "requeuehold"):
            why = (
                "Job is pending execution"
                if waiting(job) and job.wish.rerun
                else "Requested operation is presently disabled"
            )
            said = f"{why} for job {target}\n"
    return Reply(returncode=1 if said else 0, stderr=said)


def _sacctmgr(cluster: Cluster) -> Reply:
    if not cluster.rules.history:
        return Reply(returncode=1, stderr="You are not running a supported accounting_storage plugin\n")
    lines = ["Name|MaxWall|MaxJobsPU|MaxSubmitPU|MaxTRESPU|GrpTRES"]
    for partition in cluster.rules.partitions:
        longest = "" if partition.max_walltime is None else long_time(partition.max_walltime)
        lines.append(f"{partition.name}|{longest}|{partition.running or ''}|{partition.queued or ''}||")
    return Reply(stdout="".join(f"{line}\n" for line in lines))
