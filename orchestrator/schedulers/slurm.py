"""Slurm: sbatch, squeue, sacct, scancel.

The text formats are read, not JSON: its schema changes with each release's data parser, and it is
a hundred times the bytes. The live list is all of the user's jobs (``--me``) and not ``-j IDS``,
because ``squeue -j`` fails as a whole for one purged id; its header is kept, so that "no jobs" and
"no answer" differ.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Found, Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.reading import (
    LATER,
    NEVER,
    UNCLEAR,
    Message,
    absent,
    cancel_taken,
    combine,
    evidence,
    found_jobs,
    indices,
    read_submit,
    unknown,
    utc,
)
from orchestrator.transports.base import Command, Completion

__all__ = ["STATES", "Slurm"]

_Reader: TypeAlias = Callable[[str, Mapping[str, str]], JobStatus]

# squeue(1) and sacct(1), "JOB STATE CODES". None: not final. REVOKED is missing on purpose: a sibling of
# the job runs on another cluster of the federation, which this query cannot see.
STATES: Mapping[str, tuple[JobState, Verdict | None]] = {
    "BOOT_FAIL": (JobState.ENDED, Verdict.NODE_FAILURE),
    "CANCELLED": (JobState.ENDED, Verdict.CANCELLED),
    "COMPLETED": (JobState.ENDED, Verdict.SUCCEEDED),
    "CONFIGURING": (JobState.QUEUED, None),  # has its nodes, which are still being made ready
    "COMPLETING": (JobState.ENDING, None),
    "DEADLINE": (JobState.ENDED, Verdict.TIMEOUT),
    "FAILED": (JobState.ENDED, Verdict.FAILED),
    "LAUNCH_FAILED": (JobState.ENDED, Verdict.NODE_FAILURE),
    "NODE_FAIL": (JobState.ENDED, Verdict.NODE_FAILURE),
    "OUT_OF_MEMORY": (JobState.ENDED, Verdict.OUT_OF_MEMORY),
    "PENDING": (JobState.QUEUED, None),
    "POWER_UP_NODE": (JobState.QUEUED, None),
    "PREEMPTED": (JobState.ENDED, Verdict.PREEMPTED),
    "RECONFIG_FAIL": (JobState.ENDED, Verdict.NODE_FAILURE),
    "REQUEUED": (JobState.QUEUED, None),  # REQUEUE* are flags: the job runs again under the same id
    "REQUEUE_FED": (JobState.QUEUED, None),
    "REQUEUE_HOLD": (JobState.HELD, None),
    "RESIZING": (JobState.RUNNING, None),
    "RESV_DEL_HOLD": (JobState.HELD, None),
    "RUNNING": (JobState.RUNNING, None),
    "SIGNALING": (JobState.RUNNING, None),
    "SPECIAL_EXIT": (JobState.HELD, None),
    "STAGE_OUT": (JobState.ENDING, None),
    "STOPPED": (JobState.SUSPENDED, None),
    "SUSPENDED": (JobState.SUSPENDED, None),
    "TIMEOUT": (JobState.ENDED, Verdict.TIMEOUT),
}

# Reasons for which a pending job waits for ever: Slurm's "Job reason codes" (resource_limits.html,
# job_reason_codes.html). PartitionDown, *Grp*, *PerUser* and the like end by themselves.
_STUCK = re.compile(
    r"JobHeld(User|Admin)|DependencyNeverSatisfied|BadConstraints|PartitionTimeLimit|PartitionConfig"
    r"|Invalid(Account|QOS)|AccountNotAllowed|QOSNotAllowed|JobHoldMaxRequeue|RESV_DEL_HOLD|ReservationDeleted"
    r"|(Assoc|QOS)\w*Per(Job|Node)(Limit)?\b|MaxWallDurationPerJob|QOSMin\w+|QOSJobLimit"
    r"|launch failed requeued held|requeued in (held|special exit) state",
    re.IGNORECASE,
)

# What sbatch prints when no job was made: the strings of slurm_strerror (src/common/slurm_errno.c), and
# those of sbatch's own checks. The first that matches counts.
_MESSAGES = (
    Message(r"Socket timed out|Zero Bytes were transmitted|Unexpected message received", UNCLEAR),  # reply lost
    Message(r"Transport endpoint|Connection (reset|timed out)|Message (send|receive) failure", UNCLEAR),
    Message(r"Unable to contact slurm controller \(connect failure\)", LATER),  # nothing was sent
    Message(r"Slurm controller (not responding|is in standby)|in standby mode", LATER),
    Message(r"MaxSubmitJobs?|MaxSubmitJob\w*Limit|GrpSubmitJobs?\w*Limit", LATER),  # QOS and association counts
    Message(r"MaxJobCount|temporarily unable to accept job|Resource temporarily unavailable", LATER),
    Message(r"Job submission rate limit|rate limit exceeded|try again later", LATER),
    Message(r"Partition .*(drain|inactive)|(inactive|drain).* partition", LATER),
    # Any other limit that is named at submit is one that this job alone exceeds (acct_policy_validate).
    Message(r"\b(QOS|Assoc)(Max|Min|Grp)\w+|QOSJobLimit", NEVER),
    # Without the limit's name this is most often the count of jobs.
    Message(r"violates accounting/QOS policy", LATER),
    Message(r"invalid partition|Invalid (account|qos|node name|job array|generic resource|user id|wckey)", NEVER),
    Message(r"Requested (node configuration|time limit|partition configuration|reservation is invalid)", NEVER),
    Message(r"(Memory|Node|CPU) (count )?(specification|per node)|More processors requested|invalid feature", NEVER),
    Message(r"(User|Account|Group)('s group)? not permitted to use this partition|Access.* denied|not allowed", NEVER),
    Message(r"Job dependency problem|Invalid (--\S+|directive|\S+) specification|Invalid argument", NEVER),
    Message(r"Unable to open file|does not look like a batch script|Batch script (is empty|contains)", NEVER),
    Message(r"unrecognized option|invalid option|option requires an argument|Try \"sbatch --help\"", NEVER),
    Message(r"Job size specification needs to be provided|Pathname of a file.*too long|size limit", NEVER),
)

_LIVE = ("JobID", "JobIDRaw", "State", "Submit", "Start", "End", "NodeList", "Reason", "JobName")
_LIVE_FORMAT = "%i|%A|%T|%V|%S|%e|%N|%r|%j"  # the name last: it may hold anything
_PAST = ("JobID", "JobIDRaw", "State", "Submit", "Start", "End", "NodeList", "ExitCode", "JobName")
_TIMES = ("SLURM_TIME_FORMAT=standard",)
_NO_HISTORY = "accounting storage is disabled"
_MARGIN = 3600  # by which clocks may differ, s


class Slurm(Scheduler):
    """Slurm 20.11 and later.

    ``extra``: ``user`` (asks ``--user=NAME`` where ``squeue`` is too old for ``--me``).
    """

    name: ClassVar[str] = "slurm"
    template: ClassVar[str] = "slurm.sh.j2"
    extras: ClassVar[frozenset[str]] = frozenset({"user"})

    def submit(self, request: SubmitRequest) -> Command:
        """``sbatch --parsable``; the name goes on the command line, where nothing can override it."""
        array = () if request.array is None else (f"--array=0-{request.array - 1}",)
        return self.command(
            "sbatch", "--parsable", f"--job-name={request.tag}", *array, *self.options.submit_options, request.script
        )

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read ``12345``, ``12345;cluster`` or ``Submitted batch job 12345`` on a line of its own."""
        return read_submit(completion, _submitted, _MESSAGES)

    def query(self, job_ids: Sequence[str]) -> Command:  # noqa: ARG002 - the list has all of the user's jobs
        """``squeue`` of all jobs of the user, those that have just ended too."""
        return self._squeue()

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the list; a job that is not in it is absent."""
        rows = _rows(completion, _LIVE, "JOBID|")
        if isinstance(rows, str):
            return unknown(job_ids, rows)
        return _picked(job_ids, rows, _live_status)

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:
        """``sacct`` with the earlier records of requeued jobs and of reused ids."""
        if not self.options.history:
            return None
        jobs = ",".join(_plain(job_id) for job_id in job_ids)
        return self._sacct(f"--jobs={jobs}", f"--starttime={_stamp(since - _MARGIN)}")

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the accounting records.

        Accounting lags by seconds, and of a job that the controller lost it says PENDING or RUNNING for ever:
        only records of an end count, all else is as if there were none.
        """
        if _NO_HISTORY in completion.stderr:
            return {job_id: absent(job_id, evidence(completion)) for job_id in job_ids}
        rows = _rows(completion, _PAST, "JobID|")
        if isinstance(rows, str):
            return unknown(job_ids, rows)
        return _picked(job_ids, rows, _past_status)

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:
        """``squeue --name``, then ``sacct --name`` from an hour before ``since``."""
        names = f"--name={','.join(tags)}"
        live = self._squeue(names)
        return (live, self._sacct(names, f"--starttime={_stamp(since - _MARGIN)}")) if self.options.history else (live,)

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Match whole names; a cluster without accounting has only its live list."""
        jobs: dict[str, dict[str, JobStatus]] = {tag: {} for tag in tags}
        faults: list[str] = []
        for number, completion in enumerate(completions):
            if number and _NO_HISTORY in completion.stderr:
                continue
            names, first = (_PAST, "JobID|") if number else (_LIVE, "JOBID|")
            rows = _rows(completion, names, first)
            if isinstance(rows, str):
                faults.append(rows)
                continue
            if any("|" in row["?"] or row["?"][:1].isdigit() for row in rows if "?" in row):
                faults.append("a line of the list cannot be read")
            # A line without columns is no job's: a wrapper's last word.
            for row in (row for row in rows if "?" not in row):
                job_id, name = row["JobID"], row["JobName"]
                if name in jobs and job_id not in jobs[name]:
                    jobs[name][job_id] = (_past_status if number else _live_status)(job_id, row)
        return found_jobs(jobs, faults)

    def cancel(self, job_ids: Sequence[str]) -> Command:
        """``scancel``, which says nothing of jobs that have ended or never were."""
        return self.command("scancel", *(_plain(job_id) for job_id in job_ids))

    def cancelled(self, completion: Completion) -> bool:
        """Whether the controller took it; older versions fail for jobs that have ended."""
        harmless = r"Invalid job id|already completing or completed"
        return cancel_taken(completion, harmless, completion.stderr)

    def element(self, job_id: str, index: int) -> str:
        """``36_1``."""
        return f"{self.whole(job_id)}_{index}"

    def whole(self, job_id: str) -> str:
        """``36`` of ``36_1`` and of ``36_[4-9]``."""
        return _plain(job_id).partition("_")[0]

    def limits(self) -> Command | None:
        """Limits of the qualities of service."""
        fields = "format=Name,MaxWall,MaxJobsPU,MaxSubmitPU,MaxTRESPU,GrpTRES"
        return self.command("sacctmgr", "--parsable2", "show", "qos", fields) if self.options.history else None

    def version(self) -> Command | None:
        """``slurm 22.05.8``."""
        return self.command("sbatch", "--version")

    def _squeue(self, *filters: str) -> Command:
        user = self.options.extra.get("user")
        whose = f"--user={user}" if user else "--me"
        return self.listing("squeue", whose, "-r", "-t", "all", *filters, "-o", _LIVE_FORMAT, variables=_TIMES)

    def _sacct(self, *filters: str) -> Command:
        return self.listing("sacct", "-X", "-P", "-D", *filters, "-o", ",".join(_PAST), variables=_TIMES)


def _submitted(text: str) -> list[str]:
    pattern = r"^(?:Submitted batch job )?(\d+)(?:;[\w.-]+| on cluster [\w.-]+)?\s*$"
    return re.findall(pattern, text, re.MULTILINE)


def _plain(job_id: str) -> str:
    """Drop the cluster's name and the step of an id."""
    return re.split(r"[;.]", job_id)[0]


def _stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(moment, 0.0)))


def _rows(completion: Completion, names: Sequence[str], first: str) -> list[dict[str, str]] | str:
    """Read the lines below the header by column, or say why they cannot be trusted; an odd line is a row ``{"?": line}``."""
    lines = completion.stdout.splitlines()
    header = next((number for number, line in enumerate(lines) if line.startswith(first)), None)
    if completion.returncode != 0 or header is None or lines[header].count("|") != len(names) - 1:
        return evidence(completion)
    rows = []
    for line in lines[header + 1 :]:
        cells = line.split("|", len(names) - 1)
        if len(cells) == len(names) and re.match(r"\d+", cells[0]):
            rows.append(dict(zip(names, cells, strict=True)))
        elif line.strip():
            rows.append({"?": line})
    return rows


def _picked(job_ids: Sequence[str], rows: Sequence[Mapping[str, str]], read: _Reader) -> dict[str, JobStatus]:
    """Answer for each id, from the rows that can be about it: those of its number, and those that cannot be read."""
    odd = [row for row in rows if "?" in row]
    by_number: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if "?" not in row:
            for number in {row["JobID"].partition("_")[0], row["JobIDRaw"].partition("_")[0]}:
                by_number.setdefault(number, []).append(row)
    return {
        job_id: _pick(job_id, [*by_number.get(_plain(job_id).partition("_")[0], ()), *odd], read) for job_id in job_ids
    }


def _pick(job_id: str, rows: Sequence[Mapping[str, str]], read: _Reader) -> JobStatus:
    """Choose the one status of a job id among the rows: the job, an element of an array, or an array as a whole."""
    plain = _plain(job_id)
    listed = [row for row in rows if "?" not in row]
    own = [row for row in listed if row["JobID"] == plain]
    if own:
        return _latest(job_id, own, read)
    elements = [row for row in listed if row["JobID"].startswith(f"{plain}_")]
    if elements:
        return combine(job_id, [read(row["JobID"], row) for row in elements])
    array, _, index = plain.partition("_")
    for row in listed:
        bracket = re.fullmatch(rf"{re.escape(array)}_\[(.+)\]", row["JobID"])
        if bracket is not None and index:
            inside = indices(bracket[1])
            if inside is None:
                return unknown([job_id], f"the range of {row['JobID']} is cut short")[job_id]
            if int(index) in inside:
                return read(job_id, row)
    own = [row for row in listed if row["JobIDRaw"] == plain]
    if own:
        return _latest(job_id, own, read)
    odd = next((row["?"] for row in rows if "?" in row), None)
    if odd is not None:
        return unknown([job_id], f"not listed, but a line cannot be read: {odd}")[job_id]
    return absent(job_id, "the list does not have it")


def _latest(job_id: str, records: Sequence[Mapping[str, str]], read: _Reader) -> JobStatus:
    """Choose the last of several records of one id; earlier ones of the same name are starts of the same job."""
    last = max(records, key=lambda row: _time(row["Submit"]) or 0.0)
    last = [row for row in records if row["Submit"] == last["Submit"]][-1]
    status = read(job_id, last)
    restarts = sum(row["JobName"] == last["JobName"] for row in records) - 1
    return dataclasses.replace(status, restarts=restarts) if len(records) > 1 else status


def _time(text: str) -> float | None:
    return utc(text, "%Y-%m-%dT%H:%M:%S")


def _live_status(job_id: str, row: Mapping[str, str]) -> JobStatus:
    reason = "" if row["Reason"] in {"None", "(null)"} else row["Reason"]
    return _status(job_id, row, reason, None)


def _past_status(job_id: str, row: Mapping[str, str]) -> JobStatus:
    status = _status(job_id, row, "", row["ExitCode"])
    if status.answer is Answer.ALIVE:
        return absent(job_id, f"accounting knows no end of it: {status.evidence}")
    return status


def _status(job_id: str, row: Mapping[str, str], reason: str, exit_code: str | None) -> JobStatus:
    line = "|".join(row.values())
    # "CANCELLED by 1000"; some versions mark a cut word with "+".
    word = row["State"].partition(" ")[0].rstrip("+").upper()
    if word not in STATES:
        return unknown([job_id], f"unknown state {row['State']!r}: {line}")[job_id]
    state, verdict = STATES[word]
    waits = state in {JobState.QUEUED, JobState.HELD}
    if waits and re.search(r"\bheld\b|JobHeld", reason):
        state = JobState.HELD
    ended = state is JobState.ENDED
    return JobStatus(
        job_id=job_id,
        answer=Answer.ENDED if ended else Answer.ALIVE,
        state=state,
        word=word,
        reason=reason,
        stuck=waits and (state is JobState.HELD or _STUCK.search(reason) is not None),
        name=row["JobName"],
        submitted=_time(row["Submit"]),
        started=None if waits else _time(row["Start"]),
        ended=_time(row["End"]) if ended else None,
        nodes="" if row["NodeList"] == "None assigned" else row["NodeList"],
        end=_end(verdict, row["State"], reason, exit_code) if ended else None,
        evidence=line,
    )


def _end(verdict: Verdict | None, word: str, reason: str, exit_code: str | None) -> JobEnd:
    match = re.fullmatch(r"(\d+):(\d+)", exit_code or "")
    code, signal = (int(match[1]), int(match[2])) if match else (None, None)
    said = " ".join(filter(None, (word, f"({reason})" if reason else "", exit_code)))
    if verdict is Verdict.FAILED and ((code, signal) == (0, 53) or reason == "JobLaunchFailure"):
        # slurmd's code for a job whose folder or output file it could not open: the next would end like it.
        verdict = Verdict.REJECTED
        said += ": it could not be launched; is there the folder for its output?"
    elif verdict is Verdict.FAILED and reason == "BadConstraints":
        verdict = Verdict.REJECTED  # taken at submit, and given up before it ran: no node can ever meet it
    return JobEnd(
        verdict=verdict,
        exit_code=code,
        # 53 and 125 are slurmd's own codes for a failed launch and for memory, not signals.
        signal=signal if signal and signal not in {53, 125} else None,
        reason=said,
    )
