"""Fujitsu PJM: pjsub, pjstat, pjdel, as stock commands print and as two universities wrap pjstat."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from orchestrator.simulate.batchjob import BatchJob, Fate, Phase, Refusal, Refused, Wait, Wish
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Dialect, Reply, hms, stamp, unfinished
from orchestrator.simulate.options import Options, array, directives, duration, read, takes, whole

__all__ = ["PJMDialect"]

_NAME = 10  # pjstat shows no more of a name
_PJSUB: Mapping[str, int] = {
    **takes(1, "-N --name -o --out -e --err -L --rsc-list -g --group -x --mpi --spath --sparam -z --comment -m"),
    **takes(1, "--mail-list --at -p --vset"),
    **takes(0, "-j -S -s -X -w --norestart --restart --bulk --step --no-check-directory"),
}
# Message codes as documents and users of Fugaku, K and Wisteria print them; texts beyond those are ours.
_REFUSALS = {
    Refused.NO_QUEUE: "0007 pjsub Resource group does not exist: {0}.",
    Refused.QUEUE_DISABLED: "0063 pjsub Resource group is out of service: {0}.",
    Refused.WALLTIME: "0057 pjsub elapse is greater than the upper limit ({0}).",
    Refused.IMPOSSIBLE: "0057 pjsub node is greater than the upper limit ({0}).",
    Refused.USER_LIMIT: "0063 pjsub The number of jobs exceeds ru-accept limit.",
    Refused.NO_GROUP: "0071 pjsub Group not authorized to submit a job: group({0})",
    Refused.NO_ARRAYS: "0070 pjsub No execute permission: pjsub-bulk.",
    Refused.ARRAY_SIZE: "0063 pjsub Invalid argument: --sparam ({0} subjobs).",
    Refused.NO_SCRIPT: "0016 pjsub No such file: {0}",
    Refused.OPTION: "0002 pjsub Invalid option: {0}",
    Refused.VALUE: "0003 pjsub Invalid argument: {0}",
}
_WAITS = {
    Wait.RESOURCES: "INSUFF NODE",
    Wait.NODES_DOWN: "INSUFF NODE",
    Wait.USER_LIMIT: "RUNLIMIT EXCEED",
    Wait.NEVER: "IMPOSSIBLE SCHED",
    Wait.TIME_LIMIT: "USELIMIT EXCEED",
    Wait.QUEUE_STOPPED: "RSCGRP STOP",
    Wait.PRIORITY: "WAIT SCHED",
}
# The job manager's own exit code (PC) and its reason, cut at 16 characters: Fugaku user guide 5.16.1.
_CODES = {
    Fate.LIMIT: (11, "ELAPSE LIMIT EXC"),
    Fate.CANCELLED: (1, "-"),
    Fate.NODE_FAILED: (20, "LOST COMM"),
    Fate.PREEMPTED: (18, "-"),
    Fate.REQUEUED: (18, "-"),
    Fate.OUT_OF_MEMORY: (12, "LIMIT OVER MEMOR"),
    Fate.NOT_LAUNCHED: (16, "NO CURRENT DIR"),
}
_SIGXCPU = 24


class PJMDialect(Dialect):
    """Fujitsu TCS.

    Parameters
    ----------
    form : str
        ``choose`` (stock, with ``-v --choose``), ``stock`` (where that is refused), or ``wrapped`` (the
        site's own list of unfinished jobs).
    silent : bool
        Whether ``pjstat`` prints nothing at all where there is no job.
    errors_return : int
        Return code of an error: 0 on some systems.
    """

    scheduler: ClassVar[str] = "pjm"

    def __init__(
        self,
        *,
        form: Literal["choose", "stock", "wrapped"] = "choose",
        silent: bool = False,
        errors_return: int = 1,
    ) -> None:
        self._form = form
        self._silent = silent
        self._error = errors_return
        self.programs = {"pjsub": ("submit",), "pjstat": ("query",), "pjdel": ("cancel",)}

    def run(self, call: Call, cluster: Cluster) -> Reply:
        """Carry out a command."""
        runs: dict[str, Callable[[Call, Cluster], Reply]] = {
            "pjsub": self._pjsub,
            "pjstat": self._pjstat,
            "pjdel": self._pjdel,
        }
        return runs[call.name](call, cluster)

    def roles(self, call: Call) -> Sequence[str]:
        """``-H`` asks for history, a filter by name looks up."""
        if call.name == "pjstat" and any(word.startswith("jnam=") for word in call.words):
            return ("find",)
        return ("history",) if call.name == "pjstat" and "-H" in call.words else super().roles(call)

    def trouble(self, kind: str, call: Call) -> Reply:
        """Error lines as PJM's commands print them."""
        text = {
            "down": f"0299 {call.name} Connection refused.",
            "timed-out": f"0090 {call.name} communication error.",
            "busy": "0091 pjsub The job manager is temporarily out of service.",
            "limit": "0063 pjsub The number of jobs exceeds ru-accept limit.",
            "refused": "0071 pjsub Group not authorized to submit a job: group(59999)",
        }[kind]
        return self._err(text)

    def environment(self, job: BatchJob) -> dict[str, str]:
        """Variables of pjsub(1), and CUDA_VISIBLE_DEVICES for its share of the GPUs."""
        variables = {
            "PJM_JOBID": str(job.number),
            "PJM_JOBNAME": job.wish.name,
            "PJM_O_WORKDIR": job.wish.folder,
            "PJM_RSCGRP": job.queue,
            "PJM_NODE": str(job.wish.nodes),
            "PJM_ENVIRONMENT": "BATCH",
        }
        if job.index is not None:
            variables["PJM_BULKNUM"] = str(job.index)
        if job.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.devices))
        return variables

    def strange(self, text: str) -> str:
        """States are three letters, or a word in a site's list."""
        return re.sub(r"\b(QUE|RUN|RNO|EXT|QUEUED|RUNNING)\b", "ZZZ", text)

    def output_path(self, job: BatchJob) -> str | None:
        """Fill ``%j``; without ``-o`` the name is ``<job name>.<number>.out``."""
        path = super().output_path(job) or f"{job.wish.folder}/{job.wish.name}.%j.out"
        return path.replace("%j", _id(job))

    def _err(self, text: str) -> Reply:
        return Reply(returncode=self._error, stderr=f"[ERR.] PJM {text}\n")

    def _pjsub(self, call: Call, cluster: Cluster) -> Reply:
        try:
            line = read(call.words, _PJSUB)
            script = line.operands[0] if line.operands else ""
            text = call.stdin if not script else call.open(script)
            if text is None:
                raise Refusal(Refused.NO_SCRIPT, script)
            options = read(directives(text, "#PJM"), _PJSUB)
            asked = [*options.every("-L", "--rsc-list"), *line.every("-L", "--rsc-list")]
            job = cluster.submit(_wish(options.under(line), asked, script, text, call), call.user)
        except Refusal as refusal:
            return self._err(_REFUSALS[refusal.why].format(refusal.subject))
        if line.last("-z") == "jid":
            return Reply(stdout=f"{job.number}\n")
        return Reply(stdout=f"[INFO] PJM 0000 pjsub Job {job.number} submitted.\n")

    def _pjstat(self, call: Call, cluster: Cluster) -> Reply:
        try:
            options = read(
                call.words,
                {
                    **takes(0, "-v -E -H -s -S --history --limit --rsc"),
                    "--choose": 1,
                    "--filter": 1,
                },
            )
        except Refusal as refusal:
            return self._err(f"0203 pjstat Invalid option: {refusal.subject}")
        if options.has("--limit"):
            return Reply(stdout=_limits(cluster, call.user))
        if self._form == "wrapped":
            if options.has("--choose", "--filter", "-H"):
                return self._err("0203 pjstat Invalid option: --choose")
            return _wrapped(call, cluster)
        past = options.has("-H", "--history")
        if self._form == "stock" and options.has("--choose", "--filter"):
            return self._err("0203 pjstat Invalid option: --choose")
        jobs = [job for job in (cluster.past() if past else call.live(cluster)) if job.user == call.user]
        # A requeued job's earlier starts have no rows of their own here.
        jobs = list({job.key: job for job in jobs if job.number not in call.hidden}.values())
        if past:
            jobs = [job for job in jobs if not unfinished(job)]
        found = _filtered(jobs, options.last("--filter"), options.operands)
        if isinstance(found, str):
            return self._err(f"0211 pjstat Invalid jobid: {found}.")
        if not found and self._silent:
            return Reply()
        choice = options.last("--choose")
        lines = _chosen(found, choice.split(",")) if choice else _stock(found, call.zone)
        return Reply(stdout="".join(f"{line}\n" for line in lines))

    def _pjdel(self, call: Call, cluster: Cluster) -> Reply:
        out, err = [], []
        for word in call.words:
            match = re.fullmatch(r"(\d+)(?:\[(\d+)\])?", word)
            jobs = [] if match is None else [job for job in cluster.job(int(match[1])) if unfinished(job)]
            jobs = [job for job in jobs if match is None or match[2] is None or str(job.index) == match[2]]
            for job in jobs:
                cluster.cancel(job)
            if jobs:
                out.append(f"[INFO] PJM 0100 pjdel Accepted job {word}.\n")
            else:
                err.append(f"[ERR.] PJM 0105 pjdel Job {word} does not exist.\n")
        return Reply(returncode=self._error if err else 0, stdout="".join(out), stderr="".join(err))


def _wish(options: Options, asked: Sequence[str], script: str, text: str, call: Call) -> Wish:
    resources: dict[str, str] = {}
    for value in asked:
        for part in value.split(","):
            name, _, wanted = part.partition("=")
            resources[name] = wanted
    unknown = set(resources) - {"rscgrp", "rscunit", "node", "gpu", "elapse", "jobenv", "vnode-core", "vnode", "freq"}
    if unknown:
        raise Refusal(Refused.OPTION, f"-L {' '.join(sorted(unknown))}")
    shared = "gpu" in resources or "vnode-core" in resources
    nodes = re.match(r"\d+", resources.get("node", "1"))
    if nodes is None:
        raise Refusal(Refused.VALUE, resources["node"])
    elapse, elements = resources.get("elapse"), options.last("--sparam")
    if options.has("--bulk") and elements is None:
        raise Refusal(Refused.OPTION, "--bulk without --sparam")
    return Wish(
        name=options.last("-N", "--name") or script.rpartition("/")[2] or "STDIN",
        queue=resources.get("rscgrp"),
        nodes=int(nodes[0]),
        gpus=whole(resources.get("gpu", "0")),
        cpus=whole(resources.get("vnode-core", "1")),
        whole=not shared,
        walltime=None if elapse is None else duration(elapse),
        group=options.last("-g", "--group"),
        array=array(elements) if options.has("--bulk") and elements is not None else None,
        rerun=not options.has("--norestart"),
        comment=options.last("--comment") or "",
        output=options.last("-o", "--out"),
        script=script,
        text=text,
        folder=call.folder,
        environment=dict(call.environment) if options.has("-X") else {},
        asked=call.line,
    )


def _id(job: BatchJob) -> str:
    return str(job.number) if job.index is None else f"{job.number}[{job.index}]"


def _state(job: BatchJob) -> str:
    match job.phase:
        case Phase.ENDED:
            return "CCL" if job.fate is Fate.CANCELLED else "EXT"
        case Phase.ENDING:
            return "RNO"
        case Phase.RUNNING:
            return "RUN"
        case Phase.HELD:
            return "HLD"
        case Phase.QUEUED:
            return "QUE"


def _codes(job: BatchJob) -> tuple[int, int, int, str]:
    """EC, PC, SN and the reason."""
    if job.phase is not Phase.ENDED:
        return 0, 0, 0, _WAITS.get(job.wait, "-")
    assert job.fate is not None
    manager, reason = _CODES.get(job.fate, (0, "-"))
    if job.fate is Fate.LIMIT:
        return 0, manager, _SIGXCPU, reason
    if job.fate is not Fate.EXITED:
        return 0, manager, job.signal, reason
    return job.exit_code, 0, job.signal, reason


_ITEMS: Mapping[str, tuple[str, int, Callable[[BatchJob], str]]] = {
    "jid": ("JOB_ID", 10, _id),
    "jnam": ("JOB_NAME", 10, lambda job: job.wish.name[:_NAME]),
    "st": ("ST", 3, _state),
    "ec": ("EC", 3, lambda job: str(_codes(job)[0])),
    "pc": ("PC", 3, lambda job: str(_codes(job)[1])),
    "sn": ("SN", 3, lambda job: str(_codes(job)[2])),
    "ermsg": ("REASON", 16, lambda job: _codes(job)[3]),
    "rscg": ("RSC_GRP", 8, lambda job: job.queue),
    "usr": ("USER", 8, lambda job: job.user),
}


def _chosen(jobs: Sequence[BatchJob], items: Sequence[str]) -> list[str]:
    columns = [_ITEMS[item] for item in items]
    lines = [" ".join(f"{title:<{width}}" for title, width, _ in columns).rstrip()]
    return lines + [" ".join(f"{cell(job):<{width}}" for _, width, cell in columns).rstrip() for job in jobs]


def _stock(jobs: Sequence[BatchJob], zone: float) -> list[str]:
    lines = ["JOB_ID  JOB_NAME   MD  ST   USER   START_DATE      ELAPSE_LIM  NODE_REQUIRE  VNODE  CORE  V_MEM"]
    for job in jobs:
        start = stamp(job.started, "%m/%d %H:%M:%S", zone, "-")
        limit = "-" if job.limit is None else hms(job.limit, hours=4)
        mode = "NM" if job.index is None else "BU"
        lines.append(
            f"{_id(job):<7} {job.wish.name[:_NAME]:<10} {mode:<3} {_state(job):<4} {job.user:<6} {start:<15} {limit:<11}"
            f" {job.wish.nodes:<13} -      -     -"
        )
    return lines


def _wrapped(call: Call, cluster: Cluster) -> Reply:
    banner = ""
    if cluster.rules.stop is not None:
        when = stamp(cluster.rules.stop, "%Y/%m/%d(%a) %H:%M:%S", cluster.rules.zone)
        left = max(cluster.rules.stop - cluster.now, 0.0)
        banner = (
            f"Wisteria/BDEC-01 scheduled stop time: {when} (Remain: {int(left // 86400)}days {hms(left % 86400)})\n\n"
        )
    jobs = [job for job in call.live(cluster) if unfinished(job) and job.user == call.user]
    if not jobs:
        return Reply(stdout=f"{banner}No unfinished job found.\n")
    words = {Phase.QUEUED: "QUEUED", Phase.HELD: "HOLD", Phase.RUNNING: "RUNNING", Phase.ENDING: "RUNOUT"}
    title = "JOB_ID       JOB_NAME   STATUS  PROJECT    RSCGROUP          START_DATE        ELAPSE           TOKEN"
    lines = [f"{title}           NODE  GPU"]
    for job in jobs:
        start = stamp(job.started, "%m/%d %H:%M:%S", call.zone, "-")
        ran = hms(0.0 if job.started is None else cluster.now - job.started)
        lines.append(
            f"{_id(job):<12} {job.wish.name[:_NAME]:<10} {words[job.phase]:<7} {job.wish.group or '-':<10} {job.queue:<17}"
            f" {start:<17} {ran:<16} {0.0:<15} {job.wish.nodes if job.wish.whole else '-':<5} {job.wish.gpus or '-'}"
        )
    return Reply(stdout=banner + "".join(f"{line}\n" for line in lines))


def _filtered(jobs: Sequence[BatchJob], filters: str | None, operands: Sequence[str]) -> list[BatchJob] | str:
    """The jobs that are asked for, or the id that is none."""
    item, _, wanted = (filters or "").partition("=")
    words = [*operands, *(wanted.split("+") if item == "jid" else ())]
    odd: str | None = next((word for word in words if not re.fullmatch(r"\d+(\[\d*\]|_\d+)?", word)), None)
    if odd is not None:
        return odd
    if item == "jnam":
        named = wanted.split("+")
        return [job for job in jobs if job.wish.name in named]
    if not words:
        return list(jobs)
    plain = set(words)
    return [job for job in jobs if _id(job) in plain or str(job.number) in plain]


def _limits(cluster: Cluster, user: str) -> str:
    lines = [" USER:", f"  {user}"]
    for partition in cluster.rules.partitions:
        mine = [job for job in cluster.live() if unfinished(job) and job.queue == partition.name and job.user == user]
        lines.append(f"  RSCGRP: {partition.name}")
        lines.append(f"   ru-accept      {partition.queued or 'unlimited':>12} {len(mine):>8}")
        running = sum(job.phase is Phase.RUNNING for job in mine)
        lines.append(f"   ru-run-job     {partition.running or 'unlimited':>12} {running:>8}")
    return "".join(f"{line}\n" for line in lines)
