"""Grid Engine (Sun, Son of, Univa, Altair): qsub, qstat, qacct, qdel.

The live list is read as XML, whose names are whole. A finished job stays in it, without a word of how it ended,
as long as the qmaster remembers it (``finished_jobs`` of sge_conf(5), often 100, may be 0); how it ended is in the
accounting file, which lags by up to a minute. Elements of an array count from 1 here.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar
from xml.etree import ElementTree as ET  # the documents come from the site's own scheduler

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
    seconds,
    unknown,
    utc,
)
from orchestrator.transports.base import Command, Completion

__all__ = ["FAILED", "GridEngine"]

# A state is a word of letters, each a flag (qstat(1), sge_status(5)); the first row whose letter occurs counts.
_STATES: Sequence[tuple[str, JobState]] = (
    ("d", JobState.ENDING),  # being deleted
    ("E", JobState.HELD),  # error: it waits for qmod -cj
    ("z", JobState.ENDED),
    ("s", JobState.SUSPENDED),
    ("S", JobState.SUSPENDED),
    ("T", JobState.SUSPENDED),
    ("N", JobState.SUSPENDED),
    ("P", JobState.SUSPENDED),
    ("r", JobState.RUNNING),
    ("t", JobState.RUNNING),  # being transferred to its host
    ("h", JobState.HELD),  # after r: a running job may be held for when it is run again
    ("q", JobState.QUEUED),
    ("w", JobState.QUEUED),
)
_LETTERS = set("dEhzsSTNPrtqwR")

# "failed" of qacct: sge_status(5). 37 and 100 need a closer look; all that is not here has run.
FAILED: Mapping[int, tuple[Verdict, str]] = {
    **dict.fromkeys((1, 3, 4, 6, 7, 8, 9, 10, 11), (Verdict.NODE_FAILURE, "before it could begin")),
    **dict.fromkeys((18, 19, 20, 21), (Verdict.NODE_FAILURE, "its shepherd failed")),
    24: (Verdict.PREEMPTED, "migrating"),
    25: (Verdict.PREEMPTED, "to be run again"),
    26: (Verdict.REJECTED, "its output file cannot be opened"),
    27: (Verdict.REJECTED, "its shell cannot be found"),
    28: (Verdict.REJECTED, "its working directory cannot be entered"),
    29: (Verdict.NODE_FAILURE, "AFS"),
    31: (Verdict.NODE_FAILURE, "password file"),
    36: (Verdict.NODE_FAILURE, "before it could begin"),
    38: (Verdict.NODE_FAILURE, "additional group id"),
}

# Texts of the qmaster (source/libs/sgeobj/msg_sgeobjlib.h, daemons/qmaster/msg_qmaster.h) and of the communication
# library.
_MESSAGES = (
    Message(r"timeout|got read error|connection reset|failed receiving", UNCLEAR),
    Message(r"got select error \(Connection refused\)", LATER),  # nothing was sent
    Message(r"unable to send message", UNCLEAR),
    Message(r"only \d+ jobs are allowed per (user|cluster)", LATER),
    Message(r"unable to contact qmaster|can't connect to service|Connection refused|shut(ting)? ?down", LATER),
    Message(r"unknown (queue|resource|project|user|department)|requests unknown|no suitable queues", NEVER),
    Message(r"Job was rejected|job rejected|denied:|not allowed|has no permission|cannot run in", NEVER),
    Message(r"Unknown option|invalid option|error opening|not found|No such file|script file .* (empty|not)", NEVER),
    Message(r"requires? (an )?argument|group .*(required|invalid)|No such (group|project)|does not exist", NEVER),
    Message(r"is not an? \w+ value|is not a valid|is an invalid|must not contain", NEVER),
)

# A job that is deleted while it waits leaves no accounting record: then this is all there is of it.
_FINISHED = "has left the queue; without an accounting record it was deleted before it began"
_NO_ACCOUNTING = re.compile(r"No such file or directory|no jobs running since startup", re.IGNORECASE)
_NOT_FOUND = re.compile(r"job (id|name) \S+ not found", re.IGNORECASE)
_SIGUSR1 = 10
_ENDING_SIGNALS = {9, 15}  # of qdel: SIGKILL, or what a queue's terminate_method names
_TIMES = ("%Y-%m-%dT%H:%M:%S", "%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S")


class GridEngine(Scheduler):
    """Sun Grid Engine 6.2, Son of Grid Engine 8, Univa and Altair Grid Engine.

    ``extra``: ``user`` (lists and accounting of this user's jobs only; the site's default for qstat otherwise).
    """

    name: ClassVar[str] = "gridengine"
    template: ClassVar[str] = "gridengine.sh.j2"
    extras: ClassVar[frozenset[str]] = frozenset({"user"})

    def submit(self, request: SubmitRequest) -> Command:
        """``qsub -terse``; arrays count from 1."""
        array = () if request.array is None else ("-t", f"1-{request.array}")
        return self.command("qsub", "-terse", "-N", request.tag, *array, *self.options.submit_options, request.script)

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read ``12``, ``12.1-4:2`` or ``Your job 12 ("name") has been submitted`` on a line of its own."""
        return read_submit(completion, _submitted, _MESSAGES)

    def query(self, job_ids: Sequence[str]) -> Command:  # noqa: ARG002 - the list has all jobs
        """``qstat -xml`` of all jobs, those that have just finished too."""
        return self._qstat()

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the document; a job that is not in it is absent."""
        listed = _listed(completion)
        if isinstance(listed, str):
            return unknown(job_ids, listed)
        return {job_id: _pick(job_id, listed, "the list does not have it") for job_id in job_ids}

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:
        """``qacct -j ID``, which takes one id only; for several, all records since a day before ``since``."""
        if not self.options.history:
            return None
        if len(job_ids) == 1:
            return self.listing("qacct", "-j", re.split(r"[.]", job_ids[0])[0])
        user = self.options.extra.get("user")
        begin = time.strftime("%Y%m%d%H%M", time.gmtime(max(since - 86400, 0.0)))
        return self.listing("qacct", *(("-o", user) if user else ()), "-b", begin, "-j")

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the records; one that is not there may yet come."""
        records = _records(completion)
        if isinstance(records, str):
            return unknown(job_ids, records)
        return {job_id: _pick(job_id, records, "no accounting record (yet)") for job_id in job_ids}

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:  # noqa: ARG002 - by name, of all times
        """``qstat -xml`` with what has just finished, then ``qacct -j TAG`` for each tag."""
        past = [self.listing("qacct", "-j", tag) for tag in tags] if self.options.history else []
        return (self._qstat(), *past)

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Match whole names."""
        jobs: dict[str, dict[str, JobStatus]] = {tag: {} for tag in tags}
        faults = []
        for number, completion in enumerate(completions):
            listed = _records(completion) if number else _listed(completion)
            if isinstance(listed, str):
                faults.append(listed)
                continue
            for status in listed:
                if status.name in jobs:
                    job_id = status.job_id.partition(".")[0]
                    jobs[status.name].setdefault(job_id, _pick(job_id, listed, ""))
        return found_jobs(jobs, faults)

    def cancel(self, job_ids: Sequence[str]) -> Command:
        """``qdel``; an element of an array is named ``ID.INDEX``."""
        return self.command("qdel", *job_ids)

    def cancelled(self, completion: Completion) -> bool:
        """Whether the qmaster took it, or says of each job that refused that there is none."""
        harmless = r"does not exist|already (in deletion|registered)|has (deleted|registered)"
        return cancel_taken(completion, harmless, f"{completion.stderr}\n{completion.stdout}")

    def element(self, job_id: str, index: int) -> str:
        """``2.1`` for the first element of ``2``."""
        return f"{self.whole(job_id)}.{index + 1}"

    def whole(self, job_id: str) -> str:
        """``2`` of ``2.1``."""
        return job_id.partition(".")[0]

    def limits(self) -> Command | None:
        """Show the user's quotas."""
        return self.command("qquota")

    def version(self) -> Command | None:
        """Show the help, whose first line it is."""
        return self.command("qstat", "-help")

    def _qstat(self) -> Command:
        user = self.options.extra.get("user")
        # prs is what a bare qstat lists; z adds what has finished.
        return self.listing("qstat", *(("-u", user) if user else ()), "-s", "prsz", "-xml")


def _submitted(text: str) -> list[str]:
    pattern = r'^(?:Your job(?:-array)? )?(\d+)(?:\.\d+-\d+:\d+)?(?: \(".*"\) has been submitted)?\s*$'
    return re.findall(pattern, text, re.MULTILINE)


def _pick(job_id: str, listed: Sequence[JobStatus], otherwise: str) -> JobStatus:
    """Give the status of a job, of an element ``ID.INDEX``, or of an array as a whole."""
    number, _, index = job_id.partition(".")
    own = [
        status
        for status in listed
        if status.job_id.partition(".")[0] == number
        and (not index or index == status.job_id.partition(".")[2] or _within(index, status.job_id.partition(".")[2]))
    ]
    return combine(job_id, own) if own else absent(job_id, otherwise)


def _within(index: str, tasks: str) -> bool:
    found = indices(tasks)
    return found is not None and index.isdigit() and int(index) in found


def _listed(completion: Completion) -> list[JobStatus] | str:
    """Each ``job_list`` of a qstat document, or why it cannot be trusted."""
    start, last = completion.stdout.find("<?xml"), completion.stdout.rfind("</job_info>")
    if completion.returncode != 0 or start < 0:
        return evidence(completion)
    # Wrappers may speak before and after the document; one that is cut off stays one that cannot be read.
    end = len(completion.stdout) if last < 0 else last + len("</job_info>")
    try:
        document = ET.fromstring(completion.stdout[start:end].strip())  # noqa: S314 - from the site's own scheduler
    except ET.ParseError as error:
        return f"the XML of qstat cannot be read: {error}"
    if document.tag.rpartition("}")[2] != "job_info":
        return f"qstat answered with <{document.tag}> instead of <job_info>"
    return [_live_status({child.tag: (child.text or "").strip() for child in job}) for job in document.iter("job_list")]


def _live_status(job: Mapping[str, str]) -> JobStatus:
    job_id = ".".join(filter(None, (job.get("JB_job_number", ""), job.get("tasks", ""))))
    word, name = job.get("state", ""), job.get("JB_name", "")
    line = f"{job_id} {name} {word} {job.get('queue_name', '')}".strip()
    state = next((state for letter, state in _STATES if letter in word), None)
    if state is None or not set(word) <= _LETTERS:
        return JobStatus(job_id=job_id, answer=Answer.UNKNOWN, name=name, evidence=f"unknown state {word!r}: {line}")
    return JobStatus(
        job_id=job_id,
        answer=Answer.ENDED if state is JobState.ENDED else Answer.ALIVE,
        state=state,
        word=word,
        reason="error state: see qstat -j" if "E" in word else "",
        stuck=state is JobState.HELD,
        name=name,
        submitted=utc(job.get("JB_submission_time", ""), *_TIMES),
        started=utc(job.get("JAT_start_time", ""), *_TIMES) if state is JobState.RUNNING else None,
        nodes=job.get("queue_name", ""),
        end=JobEnd(reason=_FINISHED) if state is JobState.ENDED else None,
        evidence=line,
    )


def _records(completion: Completion) -> list[JobStatus] | str:
    """Each record that qacct prints, or why its answer cannot be trusted."""
    said = completion.stdout + completion.stderr
    if completion.returncode is None:
        return evidence(completion)
    if completion.returncode != 0:
        # Before the first record is written there is no accounting file at all.
        return [] if _NO_ACCOUNTING.search(said) or _NOT_FOUND.search(said) else evidence(completion)
    records: dict[str, JobStatus] = {}
    for block in re.split(r"^={20,}\s*$", completion.stdout, flags=re.MULTILINE)[1:]:
        pairs = [line.split(None, 1) for line in block.splitlines() if line.strip()]
        record = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
        if record.get("jobnumber", "").isdigit():
            status = _past_status(record)
            earlier = records.get(status.job_id)
            # One record for each start: the last one counts. Ids are given anew when their counter has run over.
            same = earlier is not None and (earlier.name, earlier.submitted) == (status.name, status.submitted)
            restarts = (earlier.restarts or 0) + 1 if earlier is not None and same else 0
            records[status.job_id] = dataclasses.replace(status, restarts=restarts)
    # The summary of all jobs, or of one user's (-o), stands where there is no record to print.
    if records or re.search(r"^(Total System Usage|OWNER\s+WALLCLOCK)", completion.stdout, re.MULTILINE):
        return list(records.values())
    return evidence(completion)


def _past_status(record: Mapping[str, str]) -> JobStatus:
    task = record.get("taskid", "undefined")
    job_id = record["jobnumber"] + (f".{task}" if task.isdigit() else "")
    line = f"failed {record.get('failed', '?')}, exit_status {record.get('exit_status', '?')}"
    return JobStatus(
        job_id=job_id,
        answer=Answer.ENDED,
        state=JobState.ENDED,
        word="finished",
        name=record.get("jobname", ""),
        submitted=_moment(record.get("qsub_time", "")),
        started=_moment(record.get("start_time", "")),
        ended=_moment(record.get("end_time", "")),
        nodes=record.get("hostname", ""),
        end=_end(record, line),
        evidence=line,
    )


def _moment(text: str) -> float | None:
    # Univa and Altair add thousandths of a second.
    return utc(re.sub(r"(:\d\d)\.\d+", r"\1", text), *_TIMES)


def _end(record: Mapping[str, str], line: str) -> JobEnd:
    failed, status = _number(record.get("failed", "")), _number(record.get("exit_status", ""))
    if failed is None or status is None:
        return JobEnd(reason=line)
    # accounting(5): a job that died by a signal has 128 + the signal.
    signal = status - 128 if 128 < status < 193 else None
    code = None if signal else status
    if record.get("deleted_by", "NONE") not in {"NONE", ""}:
        return JobEnd(
            verdict=Verdict.CANCELLED, exit_code=code, signal=signal, reason=f"{line}, {record['deleted_by']}"
        )
    if failed == 37:
        verdict = Verdict.TIMEOUT if _out_of_time(record) else Verdict.OUT_OF_MEMORY
        return JobEnd(verdict=verdict, signal=signal, reason=line)
    if signal == _SIGUSR1 and _used_up(record, "s_rt"):
        return JobEnd(verdict=Verdict.TIMEOUT, signal=signal, reason=f"{line}, s_rt was used up")
    if failed == 100 and signal in _ENDING_SIGNALS and "deleted_by" not in record:
        # Son of Grid Engine writes this of a qdel and of nothing else but a kill by hand or by the kernel: a program
        # that dies of a signal leaves its agent alive to say so.
        return JobEnd(verdict=Verdict.CANCELLED, signal=signal, reason=f"{line}: qdel, or killed on its node")
    if failed in FAILED:
        verdict, meaning = FAILED[failed]
        return JobEnd(verdict=verdict, exit_code=code, signal=signal, reason=f"{line} ({meaning})")
    good = status == 0 and failed in {0, 12, 13, 14, 15, 16}
    return JobEnd(verdict=Verdict.SUCCEEDED if good else Verdict.FAILED, exit_code=code, signal=signal, reason=line)


def _out_of_time(record: Mapping[str, str]) -> bool:
    """Code 37 stands for h_rt, h_cpu and h_vmem: memory only where it was limited and the time was not used up."""
    return "h_vmem=" not in record.get("category", "") or _used_up(record, "h_rt")


def _used_up(record: Mapping[str, str], name: str) -> bool:
    limit, used = _limit(record, name), _number(record.get("ru_wallclock", ""))
    return limit is not None and used is not None and used >= limit


def _limit(record: Mapping[str, str], name: str) -> int | None:
    match = re.search(rf"\b{name}=([^,\s]+)", record.get("category", ""))
    return seconds(match[1]) if match else None


def _number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match.group()) if match else None
