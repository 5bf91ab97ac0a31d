"""PBS Professional and OpenPBS: qsub, qstat, qselect, qdel.

A finished job leaves ``qstat`` at once; where the server keeps history, ``qstat -x`` has it. An empty
answer proves nothing here (a server that is down prints valid, empty JSON): a job is absent only where
PBS says so of that job, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers import pbs_output, wrapped
from orchestrator.schedulers.base import Found, Refused, Scheduler, SchedulerOptions, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.pbs_output import canonical
from orchestrator.schedulers.reading import (
    LATER,
    NEVER,
    UNCLEAR,
    Message,
    absent,
    cancel_taken,
    evidence,
    found_jobs,
    read_submit,
    seconds,
    unknown,
    utc,
)
from orchestrator.transports.base import Command, Completion

__all__ = ["EXIT_STATUS", "PBS", "STATES"]

# PBS Reference Guide, "Job States"; M (moved to another server) is missing on purpose: the job lives on, elsewhere.
STATES: Mapping[str, JobState] = {
    "B": JobState.RUNNING,  # an array of which at least one job has begun
    "E": JobState.ENDING,
    "F": JobState.ENDED,
    "H": JobState.HELD,
    "Q": JobState.QUEUED,
    "R": JobState.RUNNING,
    "S": JobState.SUSPENDED,
    "T": JobState.QUEUED,  # in transit to its queue
    "U": JobState.SUSPENDED,  # the workstation's owner is back
    "W": JobState.QUEUED,  # waits for its start time
    "X": JobState.ENDED,  # a subjob
}

# Exit_status below zero is PBS's own: JOB_EXEC_* in src/include/job.h.
EXIT_STATUS: Mapping[int, tuple[Verdict | None, str]] = {
    -1: (Verdict.REJECTED, "could not be started, before its files"),
    -2: (Verdict.REJECTED, "could not be started, after its files"),
    -3: (Verdict.NODE_FAILURE, "could not be started, would be tried again"),
    -4: (Verdict.NODE_FAILURE, "aborted as the node's daemon began"),
    -5: (Verdict.NODE_FAILURE, "aborted as the node's daemon began"),
    -6: (Verdict.NODE_FAILURE, "aborted as the node's daemon began"),
    -7: (Verdict.NODE_FAILURE, "restart failed"),
    -10: (Verdict.REJECTED, "bad user or group id"),
    -11: (Verdict.PREEMPTED, "to be run again"),
    -12: (Verdict.PREEMPTED, "checkpointed and to be run again"),
    -13: (Verdict.REJECTED, "bad password"),
    -14: (Verdict.NODE_FAILURE, "a sister node failed, to be run again"),
    -15: (Verdict.PREEMPTED, "requeued"),
    -16: (Verdict.REJECTED, "a hook put it back"),
    -17: (Verdict.REJECTED, "a hook deleted it"),
    -18: (Verdict.REJECTED, "a hook put it back"),
    -19: (Verdict.REJECTED, "a hook deleted it"),
    -20: (Verdict.NODE_FAILURE, "connection to its first node failed"),
    -21: (Verdict.REJECTED, "security breach"),
    -23: (Verdict.REJECTED, "Kerberos ticket"),
    -24: (Verdict.FAILED, "exceeded ncpus"),
    -25: (Verdict.FAILED, "exceeded ncpus on average"),
    -26: (Verdict.OUT_OF_MEMORY, "exceeded vmem"),
    -27: (Verdict.OUT_OF_MEMORY, "exceeded mem"),
    -28: (Verdict.TIMEOUT, "exceeded cput"),
    -29: (Verdict.TIMEOUT, "exceeded walltime"),
}

# qsub's return code is PBSE_* of src/include/pbs_error.h, modulo 256. Codes that qsub itself uses (1 to 3) are
# not here. 162 (PBSE_SYSTEM) is what a missing server gives, but other faults too: its text decides.
_CODES: Mapping[int, str] = {
    38: LATER,  # 15142 ENTLIMCT: a limit on the number of jobs
    39: LATER,  # 15143 ENTLIMRESC: a limit on the resources of all jobs together
    173: LATER,  # 15021 QUNOENB: the queue is not enabled now
    185: LATER,  # 15033 NOCONNECTS
    186: LATER,  # 15034 NOSERVER
    196: LATER,  # 15044 RESCUNAV
    198: LATER,  # 15046 MAXQUED
    212: LATER,  # 15060 SVRDOWN: refused, the server is going down
    32: NEVER,  # 15136 HOOKERROR: the site's own check refused it
    69: NEVER,  # 15173 JOBNBIG
    71: NEVER,  # 15175 JOBSCRIPTMAXSIZE
    154: NEVER,  # 15002 NOATTR
    159: NEVER,  # 15007 PERM
    160: NEVER,  # 15008 BADHOST
    166: NEVER,  # 15014 BADATVAL
    170: NEVER,  # 15018 UNKQUE
    171: NEVER,  # 15019 BADCRED
    174: NEVER,  # 15022 QACESS
    175: NEVER,  # 15023 BADUSER
    187: NEVER,  # 15035 UNKRESC
    188: NEVER,  # 15036 EXCQRESC
    189: NEVER,  # 15037 QUENODFLT
    191: NEVER,  # 15039 ROUTEREJ: no destination of a routing queue takes it
    197: NEVER,  # 15045 BADGRP
    201: NEVER,  # 15049 BADACCT
    206: NEVER,  # 15054 BADDEPEND
}

# Texts of src/lib/Liblog/pbs_messages.c and of qsub itself, for wrappers that lose the return code.
_MESSAGES = (
    Message(r"timed out|Premature end|End of File|Protocol|Connection reset|Broken pipe", UNCLEAR),
    Message(r"Connection refused|cannot connect to server|No (default )?server|could not resolve", LATER),
    Message(r"would exceed .*limit|Maximum number of jobs|Server( is)? shut|not enabled|try again", LATER),
    Message(r"Unknown (queue|resource)|Illegal attribute|violates queue|Unauthorized|Bad UID|Bad GID", NEVER),
    Message(r"rejected by all possible destinations|exceeds server or queue size|hook|illegal -\w value", NEVER),
    Message(r"script file::|usage: qsub|invalid option|Job name is too long|Access .* denied|submit filter", NEVER),
)

_NO_HISTORY = re.compile(r"not configured to maintain job history|job_history_enable", re.IGNORECASE)
_TIME = "%a %b %d %H:%M:%S %Y"
_SPOKE = {0, 35, 153}  # all is well; 15139 HISTJOBID; 15001 UNKJOBID


class PBS(Scheduler):
    """PBS Professional 13 and later, OpenPBS.

    ``extra``: ``format`` (``plain``, or ``json``, which is given up for ``plain`` at the first document that leaves
    a job unknown: what spoils it is a user's own environment, and stays there); ``dialect`` (``wrapped`` where ``qstat`` is the site's own
    list of unfinished jobs, such as ``rbstat``).
    """

    name: ClassVar[str] = "pbs"
    template: ClassVar[str] = "pbs.sh.j2"
    extras: ClassVar[frozenset[str]] = frozenset({"dialect", "format"})

    def __init__(self, options: SchedulerOptions | None = None) -> None:
        super().__init__(options)
        self._json = self.options.extra.get("format") == "json"

    def submit(self, request: SubmitRequest) -> Command:
        """``qsub -N TAG``; an array of one element is not a thing that PBS has."""
        array = () if request.array is None else ("-J", f"0-{request.array - 1}")
        return self.command("qsub", "-N", request.tag, *array, *self.options.submit_options, request.script)

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read ``1234.server`` or ``1234[].server`` on a line of its own; the return code counts for more than text."""
        return read_submit(completion, _submitted, _MESSAGES, _CODES)

    def query(self, job_ids: Sequence[str]) -> Command:
        """``qstat -f`` of the ids (of all the user's jobs, where the site wraps it)."""
        if self._wrapped:
            return self.command("qstat")
        return self._qstat(*job_ids)

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the listed jobs; of the others, what PBS says of each."""
        if self._wrapped:
            return wrapped.pick(job_ids, wrapped.read_table(completion), _listed)
        return self._read(completion, job_ids, history=False)

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:  # noqa: ARG002 - ids are enough
        """``qstat -x -f`` of the ids."""
        return self._qstat("-x", *job_ids) if self._history else None

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the listed jobs; a server that keeps no history knows none."""
        if completion.returncode is not None and _NO_HISTORY.search(completion.stdout + completion.stderr):
            return {job_id: absent(job_id, evidence(completion)) for job_id in job_ids}
        return self._read(completion, job_ids, history=True)

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:  # noqa: ARG002 - qselect knows no since
        """``qselect -N TAG`` for each tag, then with history."""
        if self._wrapped:
            return (self.command("qstat"),)
        live = [self.listing("qselect", "-N", tag) for tag in tags]
        return (*live, *([self.listing("qselect", "-x", "-N", tag) for tag in tags] if self._history else []))

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Each command has named one tag and prints ids only: their state is for the next query to tell."""
        if self._wrapped:
            return wrapped.find([wrapped.read_table(completion) for completion in completions], tags, _listed)
        jobs: dict[str, dict[str, JobStatus]] = {tag: {} for tag in tags}
        faults = []
        for number, completion in enumerate(completions):
            tag = tags[number % len(tags)]
            said = completion.stdout + completion.stderr
            if number >= len(tags) and completion.returncode is not None and _NO_HISTORY.search(said):
                continue
            ids = _submitted(completion.stdout)
            if completion.returncode != 0 or len(ids) != len(completion.stdout.split()):
                faults.append(evidence(completion))
            for job_id in ids:
                line = f"qselect has {job_id} under the name {tag}"
                jobs[tag].setdefault(job_id, JobStatus(job_id=job_id, answer=Answer.UNKNOWN, name=tag, evidence=line))
        return found_jobs(jobs, faults)

    def cancel(self, job_ids: Sequence[str]) -> Command:
        """``qdel`` (never ``-x``, which erases the history)."""
        return self.command("qdel", *job_ids)

    def cancelled(self, completion: Completion) -> bool:
        """Whether the server took it, or says of each job that refused that it has ended."""
        harmless = r"Job has finished|Unknown Job Id|has already|being deleted"
        return cancel_taken(completion, harmless, completion.stderr)

    def element(self, job_id: str, index: int) -> str:
        """``16[1]`` of ``16[]``."""
        return f"{canonical(job_id).partition('[')[0]}[{index}]"

    def whole(self, job_id: str) -> str:
        """``16[]`` of ``16[1]``."""
        number, bracket, _ = canonical(job_id).partition("[")
        return f"{number}[]" if bracket else number

    def limits(self) -> Command | None:
        """Queues with their limits."""
        return self.command("qstat", "-Qf")

    def version(self) -> Command | None:
        """``pbs_version = 23.06.06``."""
        return self.command("qsub", "--version")

    @property
    def _wrapped(self) -> bool:
        return self.options.extra.get("dialect") == "wrapped"

    @property
    def _history(self) -> bool:
        return self.options.history and not self._wrapped

    def _qstat(self, *words: str) -> Command:
        form = ("-F", "json") if self._json else ()
        return self.listing("qstat", "-f", *form, *words)

    def _read(self, completion: Completion, job_ids: Sequence[str], *, history: bool) -> dict[str, JobStatus]:
        if completion.returncode not in _SPOKE:
            return unknown(job_ids, evidence(completion))
        listed = pbs_output.jobs(completion.stdout)
        if listed is None:
            self._json = False
            return unknown(job_ids, "the JSON of qstat cannot be read; from now on its plain form is asked for")
        both = (completion.stderr + "\n" + completion.stdout).splitlines()
        remarks = "\n".join(line for line in both if line.startswith("qstat:"))
        answers = {}
        for job_id in job_ids:
            attributes = listed.get(canonical(job_id))
            answers[job_id] = (
                _status(job_id, attributes)
                if attributes is not None
                else self._unlisted(job_id, remarks, evidence(completion), history=history)
            )
        if any(status.answer is Answer.UNKNOWN for status in answers.values()):
            self._json = False
        return answers

    def _unlisted(self, job_id: str, remarks: str, said: str, *, history: bool) -> JobStatus:
        number = re.escape(canonical(job_id))
        if re.search(rf"Unknown Job Id (Error )?{number}(\.|\s|$)", remarks):
            return absent(job_id, said)
        if re.search(rf"\s{number}(\.\S+)? Job has finished", remarks):
            if self._history and not history:
                return absent(job_id, f"has ended, history knows how: {said}")
            end = JobEnd(reason="has finished; the server keeps no history")
            return JobStatus(job_id=job_id, answer=Answer.ENDED, state=JobState.ENDED, end=end, evidence=said)
        return unknown([job_id], f"PBS says nothing of this job: {said}")[job_id]


def _submitted(text: str) -> list[str]:
    return [
        canonical(line.strip()) for line in text.splitlines() if re.fullmatch(r"\d+(\[\])?(\.[\w.-]+)?", line.strip())
    ]


def _listed(row: Mapping[str, str]) -> JobStatus:
    return wrapped.status(canonical(row["id"]), row, wrapped.WORDS)


def _status(job_id: str, attributes: Mapping[str, str]) -> JobStatus:
    word = attributes.get("job_state", "")
    comment = attributes.get("comment", "")
    line = f"job_state={word} substate={attributes.get('substate', '')} {comment}".strip()
    if word not in STATES:
        return unknown([job_id], f"unknown state {word!r}: {line}")[job_id]
    state = STATES[word]
    ended = state is JobState.ENDED
    reason = comment
    if state is JobState.HELD:
        holds = f"Hold_Types={attributes.get('Hold_Types', '')}"
        reason = " ".join(filter(None, (holds, attributes.get("depend"), comment)))
    run_count = attributes.get("run_count", "")
    return JobStatus(
        job_id=job_id,
        answer=Answer.ENDED if ended else Answer.ALIVE,
        state=state,
        word=word,
        reason=reason,
        stuck=state is JobState.HELD or (state is JobState.QUEUED and comment.startswith("Can Never Run")),
        name=attributes.get("Job_Name", ""),
        submitted=utc(attributes.get("ctime", ""), _TIME),
        started=utc(attributes.get("stime", ""), _TIME),
        ended=utc(attributes.get("obittime", attributes.get("mtime", "")), _TIME) if ended else None,
        restarts=max(int(run_count) - 1, 0) if run_count.isdigit() else None,
        nodes=attributes.get("exec_host", ""),
        end=_end(attributes, comment) if ended else None,
        evidence=line,
    )


def _end(attributes: Mapping[str, str], comment: str) -> JobEnd:
    text = attributes.get("Exit_status", "")
    code = int(text) if re.fullmatch(r"-?\d+", text) else None
    substate = attributes.get("substate")
    said = comment or f"substate {substate}"
    # The comment says which limit was exceeded, whatever the script made of the signal.
    if re.search(r"exceeded\s+resource (walltime|cput)", comment):
        return JobEnd(verdict=Verdict.TIMEOUT, reason=said)
    if re.search(r"exceeded\s+resource p?v?mem", comment):
        return JobEnd(verdict=Verdict.OUT_OF_MEMORY, reason=said)
    if code is not None and code < 0:
        verdict, meaning = EXIT_STATUS.get(code, (None, "unknown to us"))
        return JobEnd(verdict=verdict, reason=f"Exit_status {code} ({meaning}): {said}")
    signal = code - 256 if code is not None and code > 256 else None
    if "terminated by" in comment:
        return JobEnd(verdict=Verdict.CANCELLED, signal=signal, reason=said)
    if signal is not None and _out_of_time(attributes):
        return JobEnd(verdict=Verdict.TIMEOUT, signal=signal, reason=f"used up its walltime: {said}")
    if substate == "91":
        return JobEnd(verdict=Verdict.CANCELLED, signal=signal, reason=said)
    if code is None:
        return JobEnd(reason=said)
    if signal is not None:
        return JobEnd(verdict=Verdict.FAILED, signal=signal, reason=f"Exit_status {code}: {said}")
    # An array's own Exit_status is 0 though a subjob failed; its substate and comment tell.
    failed = code != 0 or substate == "93" or comment.endswith("and failed")
    exit_code = None if failed and code == 0 else code
    return JobEnd(verdict=Verdict.FAILED if failed else Verdict.SUCCEEDED, exit_code=exit_code, reason=said)


def _out_of_time(attributes: Mapping[str, str]) -> bool:
    """Old servers report a walltime kill as plain SIGTERM: then the clock tells."""
    used = seconds(attributes.get("resources_used.walltime", ""))
    limit = seconds(attributes.get("Resource_List.walltime", ""))
    return used is not None and limit is not None and used >= limit
