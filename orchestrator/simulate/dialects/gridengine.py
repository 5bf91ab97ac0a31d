"""Grid Engine: qsub, qstat, qacct, qdel, in the words of Son of Grid Engine 8.1.9."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar
from xml.sax.saxutils import escape

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Refusal, Refused, Wish
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Dialect, Reply, stamp, unfinished
from orchestrator.simulate.options import Options, array, directives, duration, read, takes, whole

__all__ = ["GridEngineDialect"]

_QSUB: Mapping[str, int] = {
    **takes(1, "-N -t -tc -S -j -o -e -q -P -l -r -v -g -p -m -M -wd -hold_jid"),
    "-pe": 2,
    **takes(0, "-terse -cwd -V -h -notify"),
}
_REFUSALS = {
    Refused.NO_QUEUE: 'Job was rejected because job requests unknown queue "{0}"',
    Refused.QUEUE_DISABLED: "job rejected: no suitable queues",
    Refused.WALLTIME: "job rejected: no suitable queues",
    Refused.IMPOSSIBLE: "job rejected: no suitable queues",
    Refused.USER_LIMIT: "job rejected: Only 0 jobs are allowed per user (current job count: 0)",
    Refused.NO_GROUP: 'job rejected: "{0}" has no permission',
    Refused.NO_ARRAYS: "job rejected: array jobs are not allowed",
    Refused.ARRAY_SIZE: "job rejected: array jobs of {0} tasks are not allowed",
    Refused.NO_SCRIPT: "error opening {0}: No such file or directory",
    Refused.OPTION: 'Unknown option "{0}"',
    Refused.RESOURCE: 'unknown resource "{0}"',
    Refused.VALUE: 'denied: "{0}" is not a valid value',
}
_FAILED = {
    Fate.LIMIT: "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit",
    Fate.CANCELLED: "100 : assumedly after job",
    Fate.NODE_FAILED: "20  : execution daemon was not able to start the shepherd",
    Fate.PREEMPTED: "25  : rescheduling",
    Fate.REQUEUED: "25  : rescheduling",
    Fate.OUT_OF_MEMORY: "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit",
    Fate.NOT_LAUNCHED: "26  : opening input/output file",
}
# What a job used is not emulated.
_USAGE = {
    **dict.fromkeys(("ru_utime", "ru_stime"), "0.003s"),
    **dict.fromkeys(("ru_maxrss", "ru_ixrss", "ru_ismrss", "ru_idrss", "ru_isrss"), "0.000B"),
    **dict.fromkeys(("ru_minflt", "ru_majflt", "ru_nswap", "ru_inblock", "ru_oublock", "ru_msgsnd", "ru_msgrcv"), "0"),
    **dict.fromkeys(("ru_nsignals", "ru_nvcsw", "ru_nivcsw"), "0"),
    "cpu": "0.009s",
    "mem": "0.000Bs",
    "io": "0.000B",
    "iow": "0.000s",
    "maxvmem": "4.895MB",
    **dict.fromkeys(("arid", "ar_sub_time"), "undefined"),
}
_ACCOUNTING = "/var/lib/gridengine/default/common/accounting"


class GridEngineDialect(Dialect):
    """Grid Engine; ``deleted_by`` adds Univa's and Altair's line about who deleted a job."""

    scheduler: ClassVar[str] = "gridengine"

    def __init__(self, *, deleted_by: bool = False) -> None:
        self._deleted_by = deleted_by
        self.programs = {
            "qsub": ("submit",),
            "qstat": ("query", "find"),
            "qacct": ("history",),
            "qdel": ("cancel",),
            "qquota": (),
        }

    def run(self, call: Call, cluster: Cluster) -> Reply:
        """Carry out a command."""
        runs: dict[str, Callable[[Call, Cluster], Reply]] = {
            "qsub": _qsub,
            "qstat": _qstat,
            "qacct": self._qacct,
            "qdel": _qdel,
            "qquota": lambda _call, _cluster: Reply(),
        }
        return runs[call.name](call, cluster)

    def roles(self, call: Call) -> Sequence[str]:
        """Accounting by name is a look-up."""
        if call.name == "qacct" and call.words and not call.words[-1].isdigit() and call.words[-1] != "-j":
            return ("find",)
        return super().roles(call)

    def trouble(self, kind: str, call: Call) -> Reply:
        """As the communication library and the qmaster put it."""
        if call.name == "qacct":  # reads a file of its own
            return Reply(returncode=1, stderr=f"error: {_ACCOUNTING}: Stale file handle\n")
        text = {
            "down": "error: commlib error: got select error (Connection refused)\nerror: unable to contact qmaster using"
            ' port 6444 on host "localhost"',
            "timed-out": "error: failed receiving gdi request response for mid=1 (got syncron message receive timeout error).",
            "busy": "Unable to run job: can't connect to service\nExiting.",
            "limit": "Unable to run job: job rejected: Only 10 jobs are allowed per user (current job count: 10)\nExiting.",
            "refused": 'Unable to run job: Job was rejected because job requests unknown queue "nosuch.q"\nExiting.',
        }[kind]
        return Reply(returncode=1, stderr=f"{text}\n")

    def environment(self, job: BatchJob) -> dict[str, str]:
        """Variables of qsub(1), and CUDA_VISIBLE_DEVICES as sites' prologues set it."""
        variables = {
            "JOB_ID": str(job.number),
            "JOB_NAME": job.wish.name,
            "QUEUE": job.queue,
            "NSLOTS": str(job.wish.cpus),
            "SGE_TASK_ID": "undefined" if job.index is None else str(job.index),
            "SGE_O_WORKDIR": job.wish.folder,
            "SGE_O_LOGNAME": job.user,
            "ENVIRONMENT": "BATCH",
            "RESTARTED": str(int(job.restarts > 0)),
        }
        if job.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.devices))
        return variables

    def strange(self, text: str) -> str:
        """States are flags, one letter each."""
        return re.sub(r"<state>\w+</state>", "<state>k</state>", text)

    def output_path(self, job: BatchJob) -> str | None:
        """Fill ``$TASK_ID`` and ``$JOB_ID``; without ``-o`` the name is ``<job name>.o<number>``."""
        path = super().output_path(job) or f"{job.wish.folder}/{job.wish.name}.o{job.number}"
        return path.replace("$JOB_ID", str(job.number)).replace("$TASK_ID", str(job.index))

    def _qacct(self, call: Call, cluster: Cluster) -> Reply:
        options = read([word for word in call.words if word != "-j"], {"-b": 1, "-o": 1, "-e": 1})
        records = [job for job in cluster.past() if job.started is not None and job.number not in call.hidden]
        if not records:
            text = f"{_ACCOUNTING}: No such file or directory\nno jobs running since startup\n"
            return Reply(returncode=1, stderr=text)
        target = options.operands[0] if options.operands else None
        if target is not None:
            records = [job for job in records if target in {str(job.number), job.wish.name}]
            if not records:
                what = "id" if target.isdigit() else "name"
                return Reply(returncode=1, stderr=f"error: job {what} {target} not found\n")
        if (begin := options.last("-b")) is not None:
            records = [job for job in records if stamp(job.started, "%Y%m%d%H%M", call.zone) >= begin]
        if (owner := options.last("-o")) is not None:
            records = [job for job in records if job.user == owner]
        text = "".join(self._record(job, call.zone) for job in records)
        return Reply(stdout=f"{text}Total System Usage\n" if target is None else text)

    def _record(self, job: BatchJob, zone: float) -> str:
        form = "%a %b %d %H:%M:%S %Y"
        assert job.fate is not None
        status = 128 + job.signal if job.signal else job.exit_code
        if job.fate in {Fate.LIMIT, Fate.CANCELLED, Fate.OUT_OF_MEMORY} and status < 128:
            status = 137
        ran = int((job.ended or 0.0) - (job.started or 0.0))
        category = f"-l h_rt={int(job.limit)}" if job.limit is not None else ""
        if job.fate is Fate.OUT_OF_MEMORY:
            category += ",h_vmem=1G" if category else "-l h_vmem=1G"
        rows = {
            "qname": job.queue,
            "hostname": job.nodes[0] if job.nodes else "unknown",
            "group": job.user,
            "owner": job.user,
            "project": job.wish.group or "NONE",
            "department": "defaultdepartment",
            "jobname": job.wish.name,
            "jobnumber": str(job.number),
            "taskid": "undefined" if job.index is None else str(job.index),
            "account": "sge",
            "priority": "0",
            "qsub_time": stamp(job.submitted, form, zone),
            "start_time": stamp(job.started, form, zone),
            "end_time": stamp(job.ended, form, zone),
            "granted_pe": "NONE",
            "slots": str(job.wish.cpus),
            "failed": _FAILED.get(job.fate, "0"),
            **({"deleted_by": f"{job.user}@login"} if self._deleted_by and job.fate is Fate.CANCELLED else {}),
            "exit_status": f"{status:<20} (Killed)" if status == 137 else str(status),
            "ru_wallclock": f"{ran}s",
            **_USAGE,
            "category": category,
        }
        return "=" * 62 + "\n" + "".join(f"{name:<12} {value:<20}\n" for name, value in rows.items())


def _qsub(call: Call, cluster: Cluster) -> Reply:
    try:
        line = read(call.words, _QSUB)
        script = line.operands[0] if line.operands else ""
        text = call.stdin if not script else call.open(script)
        if text is None:
            return Reply(returncode=1, stderr=f"Unable to read script file because of error: {_no_script(script)}\n")
        options = read(directives(text, "#$", anywhere=True), _QSUB).under(line)
        job = cluster.submit(_wish(options, script, text, call), call.user)
    except Refusal as refusal:
        said = _REFUSALS[refusal.why].format(refusal.subject)
        return Reply(returncode=1, stderr=f"Unable to run job: {said}\nExiting.\n")
    span = options.last("-t")
    tasks = "" if span is None else f".{span}" if ":" in span else f".{span}:1"
    if options.has("-terse"):
        return Reply(stdout=f"{job.number}{tasks}\n")
    what = "job-array" if tasks else "job"
    return Reply(stdout=f'Your {what} {job.number}{tasks} ("{job.wish.name}") has been submitted\n')


def _no_script(script: str) -> str:
    return _REFUSALS[Refused.NO_SCRIPT].format(script)


def _wish(options: Options, script: str, text: str, call: Call) -> Wish:
    resources: dict[str, str] = {}
    for value in options.every("-l"):
        for part in value.split(","):
            name, _, wanted = part.partition("=")
            resources[name] = wanted
    known = {"h_rt", "s_rt", "gpu", "mem_free", "h_vmem"}
    unknown = sorted(set(resources) - known)
    if unknown:
        raise Refusal(Refused.RESOURCE, unknown[0])
    limit, elements = resources.get("h_rt"), options.last("-t")
    slots = re.fullmatch(r"\S+ (\d+)", options.last("-pe") or "smp 1")
    if slots is None:
        raise Refusal(Refused.VALUE, options.last("-pe") or "")
    return Wish(
        name=options.last("-N") or script.rpartition("/")[2] or "STDIN",
        queue=options.last("-q"),
        gpus=whole(resources.get("gpu", "0")),
        cpus=int(slots[1]),
        walltime=None if limit is None else duration(limit),
        group=options.last("-P", "-g"),
        array=None if elements is None else array(elements),
        hold=options.has("-h"),
        rerun=options.last("-r") not in {"n", "no"},
        output=options.last("-o"),
        script=script,
        text=text,
        folder=options.last("-wd") or call.folder,
        start_in_folder=options.has("-cwd", "-wd"),
        environment=dict(call.environment) if options.has("-V") else {},
        asked=call.line,
    )


def _state(job: BatchJob) -> str:
    again = "R" if job.restarts else ""
    return {
        Phase.QUEUED: f"{again}qw",
        Phase.HELD: "hqw",
        Phase.RUNNING: f"{again}r",
        Phase.ENDING: "dr",
        Phase.ENDED: "z",
    }[job.phase]


def _qstat(call: Call, cluster: Cluster) -> Reply:
    if call.words == ("-help",):
        return Reply(stdout="SGE 8.1.9\nusage: qstat [options]\n")
    options = read(call.words, {"-xml": 0, "-u": 1, "-s": 1, "-j": 1})
    if (asked := options.last("-j")) is not None:
        found = [job for job in cluster.job(int(asked)) if unfinished(job)] if asked.isdigit() else []
        if not found:
            return Reply(returncode=1, stderr=f"Following jobs do not exist: \n{asked}\n")
        return Reply(
            stdout="=" * 62
            + f"\njob_number:                 {asked}\njob_name:                   {found[0].wish.name}\n"
        )
    jobs = [job for job in call.live(cluster) if unfinished(job) is (options.last("-s") != "z")]
    user = options.last("-u")
    if user is not None:
        jobs = [job for job in jobs if user in {job.user, "*"}]
    if options.has("-xml"):
        return Reply(stdout=_document(jobs, call.zone))
    lines = [
        "job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID "
    ]
    lines.append("-" * 113)
    for group in _together(jobs):
        job = group[0]
        when = stamp(job.started or job.submitted, "%m/%d/%Y %H:%M:%S", call.zone)
        where = f"{job.queue}@{job.nodes[0]}" if job.nodes else ""
        lines.append(
            f"{job.number:>7} 0.50000 {job.wish.name[:10]:<10} {job.user:<12} {_state(job):<5} {when} {where:<30}"
            f" {job.wish.cpus:>5} {_tasks(group)}"
        )
    return Reply(stdout="".join(f"{line}\n" for line in lines) if jobs else "")


def _document(jobs: Sequence[BatchJob], zone: float) -> str:
    groups = _together(jobs)
    running = [_entry(group, zone) for group in groups if group[0].nodes]
    pending = [_entry(group, zone) for group in groups if not group[0].nodes]
    return (
        "<?xml version='1.0'?>\n"
        '<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">\n'
        f"  <queue_info>\n{''.join(running)}  </queue_info>\n  <job_info>\n{''.join(pending)}  </job_info>\n</job_info>\n"
    )


def _together(jobs: Sequence[BatchJob]) -> list[list[BatchJob]]:
    """The elements of an array that wait in one state share an entry; all else is alone."""
    groups: dict[object, list[BatchJob]] = {}
    for job in jobs:
        alone = job.index is None or bool(job.nodes)
        groups.setdefault(job.key if alone else (job.number, _state(job)), []).append(job)
    return list(groups.values())


def _tasks(group: Sequence[BatchJob]) -> str:
    """Indices as ``7``, ``1,3``, ``1-9:1``."""
    indices = sorted(job.index for job in group if job.index is not None)
    steps = {after - before for before, after in itertools.pairwise(indices)}
    if len(indices) > 2 and len(steps) == 1:
        return f"{indices[0]}-{indices[-1]}:{steps.pop()}"
    return ",".join(map(str, indices))


def _entry(group: Sequence[BatchJob], zone: float) -> str:
    job, form = group[0], "%Y-%m-%dT%H:%M:%S"
    runs = bool(job.nodes)
    when = (
        f"      <JAT_start_time>{stamp(job.started, form, zone)}</JAT_start_time>\n"
        if runs
        else f"      <JB_submission_time>{stamp(job.submitted, form, zone)}</JB_submission_time>\n"
    )
    where = f"{job.queue}@{job.nodes[0]}" if job.nodes else ""
    tasks = "" if job.index is None else f"      <tasks>{_tasks(group)}</tasks>\n"
    return (
        f'    <job_list state="{"running" if runs else "pending"}">\n'
        f"      <JB_job_number>{job.number}</JB_job_number>\n"
        f"      <JAT_prio>0.50000</JAT_prio>\n"
        f"      <JB_name>{escape(job.wish.name)}</JB_name>\n"
        f"      <JB_owner>{job.user}</JB_owner>\n"
        f"      <state>{_state(job)}</state>\n"
        f"{when}"
        f"      <queue_name>{where}</queue_name>\n"
        f"      <slots>{job.wish.cpus}</slots>\n"
        f"{tasks}"
        f"    </job_list>\n"
    )


def _qdel(call: Call, cluster: Cluster) -> Reply:
    out, code = [], 0
    for word in call.words:
        number, _, index = word.partition(".")
        jobs = [job for job in cluster.job(int(number)) if unfinished(job)] if number.isdigit() else []
        jobs = [job for job in jobs if not index or str(job.index) == index]
        if not jobs:
            out.append(f'denied: job "{word}" does not exist\n')
            code = 1
        for job in jobs:
            what = f"job {job.number}" if job.index is None else f"job-array task {job.number}.{job.index}"
            out.append(f"{job.user} has {f'registered the {what} for deletion' if job.nodes else f'deleted {what}'}\n")
            cluster.cancel(job)
    return Reply(returncode=code, stdout="".join(out))
