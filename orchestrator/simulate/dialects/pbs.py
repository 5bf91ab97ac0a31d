"""PBS: qsub, qstat, qselect, qdel, and the site's rbstat, in the words of OpenPBS 23.06."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from orchestrator.simulate.batchjob import BatchJob, Refusal, Refused, Wish
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Dialect, Reply, unfinished
from orchestrator.simulate.dialects.pbs_attributes import SERVER, plain_id
from orchestrator.simulate.dialects.pbs_lists import document, qselect, qstat, rbstat
from orchestrator.simulate.options import Options, array, directives, duration, megabytes, read, takes, whole

__all__ = ["PBSDialect"]

_QSUB: Mapping[str, int] = {
    **takes(1, "-N -l -q -P -W -j -o -e -J -r -S -v -A -k -m -M -p -c -C -a -R -u"),
    **takes(0, "-V -h -z -f --version"),
}
# Message and return code: the server's error number modulo 256 (pbs_error.h), or qsub's own 1 to 3.
_REFUSALS = {
    Refused.NO_QUEUE: ("Unknown queue", 170),
    Refused.QUEUE_DISABLED: ("Queue is not enabled", 173),
    Refused.WALLTIME: ("Job violates queue and/or server resource limits", 188),
    Refused.IMPOSSIBLE: ("Job violates queue and/or server resource limits", 188),
    Refused.USER_LIMIT: ("would exceed queue generic's per-user limit", 38),
    Refused.NO_GROUP: ("Bad GID for job execution", 197),
    Refused.NO_ARRAYS: ("Array job exceeds server or queue size limit", 3),
    Refused.ARRAY_SIZE: ("Array job exceeds server or queue size limit", 3),
    Refused.NO_SCRIPT: ("script file:: No such file or directory", 1),
    Refused.RESOURCE: ("Unknown resource: {0}", 187),
    Refused.NAME: ("Job name is too long ", 2),
    Refused.VALUE: ("Illegal attribute or resource value {0}", 166),
}
_LONGEST_NAME = 230  # PBS_MAXJOBNAME
_USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""


class PBSDialect(Dialect):
    """OpenPBS; ``site_list`` adds the University of Tokyo's ``rbstat``."""

    scheduler: ClassVar[str] = "pbs"

    def __init__(self, *, site_list: str | None = None) -> None:
        self.site_list = site_list
        self.programs = {
            "qsub": ("submit",),
            "qstat": ("query",),
            "qselect": ("find",),
            "qdel": ("cancel",),
            **({site_list: ("query", "find")} if site_list else {}),
        }

    def run(self, call: Call, cluster: Cluster) -> Reply:
        """Carry out a command."""
        if call.words == ("--version",):
            return Reply(stdout="pbs_version = 23.06.06\n")
        if call.name == self.site_list:
            return rbstat(call, cluster)
        runs: dict[str, Callable[[Call, Cluster], Reply]] = {
            "qsub": _qsub,
            "qstat": qstat,
            "qselect": qselect,
            "qdel": _qdel,
        }
        return runs[call.name](call, cluster)

    def roles(self, call: Call) -> Sequence[str]:
        """``-x`` asks for history."""
        roles = super().roles(call)
        return ("history",) if call.name == "qstat" and "-x" in call.words else roles

    def trouble(self, kind: str, call: Call) -> Reply:
        """As qsub and qstat put it; with a server that is down JSON is valid and empty."""
        name = call.name
        if kind == "down":
            tail = (
                "Couldn't connect to cluster: pbsvm" if name == "qdel" else f"{name}: cannot connect to server {SERVER}"
            )
            said = f"Connection refused\n{tail}{'' if name == 'qdel' else ' (errno=15010)'}\n"
            stdout = document({}, 0.0) if "json" in call.words else ""
            return Reply(returncode=162 if name in {"qsub", "qdel"} else 255, stdout=stdout, stderr=said)
        text, code = {
            "timed-out": (f"{name}: Premature end of message from server", 162),
            "busy": (f"{name}: Too many connections to server", 185),
            "limit": (f"{name}: would exceed queue generic's per-user limit", 38),
            "refused": (f"{name}: Unknown queue", 170),
        }[kind]
        return Reply(returncode=code, stderr=f"{text}\n")

    def environment(self, job: BatchJob) -> dict[str, str]:
        """Variables of qsub(1B), and CUDA_VISIBLE_DEVICES as sites' hooks set it."""
        variables = {
            "PBS_JOBID": f"{plain_id(job)}.{SERVER}",
            "PBS_JOBNAME": job.wish.name,
            "PBS_O_WORKDIR": job.wish.folder,
            "PBS_O_QUEUE": job.queue,
            "PBS_O_LOGNAME": job.user,
            "PBS_QUEUE": job.queue,
            "PBS_ENVIRONMENT": "PBS_BATCH",
        }
        if job.index is not None:
            variables |= {"PBS_ARRAY_INDEX": str(job.index), "PBS_ARRAY_ID": f"{job.number}[].{SERVER}"}
        if job.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.devices))
        return variables

    def strange(self, text: str) -> str:
        """States are one letter in a full listing and a word in the site's."""
        text = re.sub(r'(job_state(?: = |":\t"))\w', r"\1Y", text)
        return re.sub(r"\b(QUEUED|RUNNING|HELD|EXITING)\b", "NAPPING", text)

    def output_path(self, job: BatchJob) -> str | None:
        """Fill ``^array_index^``; without ``-o`` the name is ``<job name>.o<number>``."""
        path = super().output_path(job) or f"{job.wish.folder}/{job.wish.name}.o{job.number}"
        return path.replace("^array_index^", "" if job.index is None else str(job.index))


def _qsub(call: Call, cluster: Cluster) -> Reply:
    try:
        line = read(call.words, _QSUB)
        if len(line.operands) > 1:
            raise Refusal(Refused.OPTION, line.operands[1])
        script = line.operands[0] if line.operands else ""
        text = call.stdin if not script else call.open(script)
        if text is None:
            raise Refusal(Refused.NO_SCRIPT, script)
        job = cluster.submit(_wish(_under(read(directives(text, "#PBS"), _QSUB), line), script, text, call), call.user)
    except Refusal as refusal:
        if refusal.why is Refused.OPTION:
            said = f"qsub: {refusal.subject}\n" if refusal.subject.startswith("illegal") else ""
            return Reply(returncode=2, stderr=said + _USAGE)
        said, code = _REFUSALS[refusal.why]
        return Reply(returncode=code, stderr=f"qsub: {said.format(refusal.subject)}\n")
    return Reply(stdout=f"{job.number}{'' if job.index is None else '[]'}.{SERVER}\n")


def _under(script: Options, line: Options) -> Options:
    """The command line wins, but of ``-l`` resource by resource."""
    both = script.under(line)
    if script.has("-l") or line.has("-l"):
        both.values["-l"] = [*script.every("-l"), *line.every("-l")]
    return both


def _wish(options: Options, script: str, text: str, call: Call) -> Wish:
    resources: dict[str, str] = {}
    for value in options.every("-l"):
        for part in re.split(r",(?=\w+=)", value):
            name, _, wanted = part.partition("=")
            resources[name] = wanted
    chunk = resources.get("select", "1").split(":")
    each = dict(part.partition("=")[::2] for part in chunk[1:])
    unknown = set(each) - {"ncpus", "ngpus", "mem", "mpiprocs", "ompthreads", "host", "vnode"}
    unknown |= set(resources) - {"select", "walltime", "place", "ncpus", "mem", "software"}
    if unknown:
        raise Refusal(Refused.RESOURCE, min(unknown))
    walltime, elements = resources.get("walltime"), options.last("-J")
    group = options.last("-P") or next((v[11:] for v in options.every("-W") if v.startswith("group_list=")), None)
    if len(options.last("-N") or "") > _LONGEST_NAME:
        raise Refusal(Refused.NAME)
    return Wish(
        name=options.last("-N") or script.rpartition("/")[2] or "STDIN",
        queue=options.last("-q"),
        nodes=whole(chunk[0] or "1"),
        gpus=whole(each.get("ngpus", "0")),
        cpus=whole(each.get("ncpus", "1")),
        memory=megabytes(each.get("mem", "0")),
        whole=resources.get("place", "").endswith("excl"),
        walltime=None if walltime is None else _walltime(walltime),
        group=group,
        array=None if elements is None else _elements(elements),
        hold=options.has("-h"),
        rerun=options.last("-r") != "n",
        output=options.last("-o"),
        script=script,
        text=text,
        folder=call.folder,
        start_in_folder=False,  # a PBS job begins in the home folder
        environment=dict(call.environment) if options.has("-V") else {},
        asked=call.line,
    )


def _elements(text: str) -> tuple[int, ...]:
    try:
        return array(text)
    except Refusal:
        raise Refusal(Refused.OPTION, "illegal -J value") from None


def _walltime(text: str) -> float:
    try:
        return duration(text)
    except Refusal:
        raise Refusal(Refused.VALUE, "Resource_List.walltime") from None


def _qdel(call: Call, cluster: Cluster) -> Reply:
    options = read(call.words, {"-x": 0, "-W": 1})
    said: list[str] = []
    code = 0
    for word in options.operands:
        match = re.fullmatch(r"(\d+)(?:\[(\d*)\])?(?:\.\S+)?", word)
        if match is None:
            return Reply(returncode=1, stderr=f"qdel: illegally formed job identifier: {word}\n")
        jobs = [job for job in cluster.job(int(match[1])) if unfinished(job)]
        jobs = [job for job in jobs if not match[2] or str(job.index) == match[2]]
        name = f"{word.partition('.')[0]}.{SERVER}"
        if jobs:
            for job in jobs:
                cluster.cancel(job)
        elif options.has("-x") and (past := list(cluster.past([int(match[1])]))):
            for record in past:
                cluster.erase(record)
        elif any(cluster.past([int(match[1])])):
            said, code = [*said, f"qdel: Job has finished {name}"], 35
        else:
            said, code = [*said, f"qdel: Unknown Job Id {name}"], 153
    return Reply(returncode=code, stderr="".join(f"{line}\n" for line in said))
