"""Fujitsu Technical Computing Suite (PJM): pjsub, pjstat, pjdel.

Its commands may return 0 for an error and print dates in two words, so: a job was taken only where the
INFO line says so, any ``[ERR.]`` line spoils an answer, and ``pjstat -v --choose`` is asked for columns of
one word each, free text last. EXT is not success: a job that ran out of time has EC 0.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from orchestrator.model import JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers import wrapped
from orchestrator.schedulers.base import Found, Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.reading import (
    LATER,
    NEVER,
    UNCLEAR,
    Message,
    Table,
    found_jobs,
    read_submit,
)
from orchestrator.transports.base import Command, Completion

__all__ = ["PJM", "PJM_CODES", "STATES"]

# Job Operation Software End-user's Guide, "Job state"; Fugaku user guide 5.12.
STATES: Mapping[str, tuple[JobState, Verdict | None]] = {
    "ACC": (JobState.QUEUED, None),  # accepted
    "QUE": (JobState.QUEUED, None),
    "RNA": (JobState.QUEUED, None),  # its nodes are being acquired
    "RNP": (JobState.RUNNING, None),  # prologue
    "RUN": (JobState.RUNNING, None),
    "RNE": (JobState.RUNNING, None),  # epilogue
    "RNO": (JobState.ENDING, None),  # not final: its end is being processed
    "SPP": (JobState.SUSPENDED, None),
    "SPD": (JobState.SUSPENDED, None),
    "RSM": (JobState.RUNNING, None),
    "HLD": (JobState.HELD, None),
    "ERR": (JobState.HELD, None),  # stopped by an error of the manager: an operator must act
    "EXT": (JobState.ENDED, None),  # how, is for EC, PC and SN to say
    "CCL": (JobState.ENDED, Verdict.CANCELLED),
    "RJT": (JobState.ENDED, Verdict.REJECTED),
}

# The job manager's exit code (PC): Fugaku user guide 5.16.1.
PJM_CODES: Mapping[int, tuple[Verdict, str]] = {
    1: (Verdict.CANCELLED, "pjdel"),
    2: (Verdict.REJECTED, "at acceptance"),
    3: (Verdict.REJECTED, "by the job manager's exit"),
    6: (Verdict.CANCELLED, "by a step job's dependency"),
    7: (Verdict.CANCELLED, "by a deadline"),
    8: (Verdict.CANCELLED, "by the job manager's exit"),
    9: (Verdict.NODE_FAILURE, "ended as the system recovered, and must not be run again"),
    11: (Verdict.TIMEOUT, "elapse limit"),
    12: (Verdict.OUT_OF_MEMORY, "memory limit"),
    13: (Verdict.FAILED, "disk limit"),
    16: (Verdict.REJECTED, "its folder or its output cannot be reached"),
    18: (Verdict.PREEMPTED, "ended beyond its minimum elapse time"),
    20: (Verdict.NODE_FAILURE, "node down"),
    21: (Verdict.REJECTED, "its shell cannot be executed"),
    22: (Verdict.NODE_FAILURE, "interconnect"),
    23: (Verdict.OUT_OF_MEMORY, "OOM killer"),
    25: (Verdict.NODE_FAILURE, "job manager failed over"),
    26: (Verdict.NODE_FAILURE, "prologue or epilogue"),
    27: (Verdict.NODE_FAILURE, "release of its resources"),
    28: (Verdict.NODE_FAILURE, "abnormal end"),
}

# Reasons for which a queued job waits for ever: the guide's table of REASON, cut at 16 characters as pjstat does.
# RUNLIMIT EXCEED, USELIMIT EXCEED, WAIT SCHED, INSUFF ... end by themselves.
_STUCK = re.compile(
    r"RSCGRP NOT EXIST|RSCUNIT NOT EXIS|RSCGRP STOP|RSCUNIT STOP|IMPOSSIBLE SCHED|USER NOT EXIST"
    r"|NO CURRENT DIR|INVALID HOSTFILE|GATE CHECK|INTERNAL ERROR"
)

# pjsub's own message codes, as Fugaku, Wisteria and K documents and their users print them.
_MESSAGES = (
    Message(r"timed? ?out|communication (error|failed)|connection (reset|lost)|Broken pipe", UNCLEAR),
    Message(r"ru-accept|accept(ed)? (job )?limit|too many jobs|exceeds? the (maximum )?number of", LATER),
    Message(r"Connection refused|not (yet )?(running|started)|out of service|maintenance|temporarily", LATER),
    Message(r"PJM 0057 |greater than the upper limit|less than the lower limit", NEVER),
    Message(r"PJM 0070 |No execute permission", NEVER),
    Message(r"PJM 0071 |Group not authorized", NEVER),
    Message(r"PJM 0007 |Staging option error", NEVER),
    Message(r"Resource (group|unit) (does not exist|stop)|Invalid resource|not a data area", NEVER),
    Message(r"No permission|Exceeds limit of elapse|Invalid (option|argument|parameter|job name)", NEVER),
    Message(r"No such file|usage: pjsub|cannot open|illegal option|unrecognized option", NEVER),
)

_INFO = re.compile(r"\[INFO\.?\]\s+PJM\s+0000\s+pjsub\s+Job\s+(\d+)(?:_\d+)?(?:\[[\d-]+\])?\s+submitted")
_CHOICE = "jid,st,ec,pc,sn,jnam,ermsg"


class PJM(Scheduler):
    """Fujitsu TCS.

    ``extra``: ``dialect``: ``choose`` (default), or ``stock`` / ``wrapped`` where ``pjstat -v --choose`` is not to
    be had (a bare ``pjstat`` is read by its header); ``empty``: ``absent`` where this ``pjstat`` prints nothing at
    all when there is no job.
    """

    name: ClassVar[str] = "pjm"
    template: ClassVar[str] = "pjm.sh.j2"
    extras: ClassVar[frozenset[str]] = frozenset({"dialect", "empty"})

    def submit(self, request: SubmitRequest) -> Command:
        """``pjsub -N TAG``."""
        array = () if request.array is None else ("--bulk", "--sparam", f"0-{request.array - 1}")
        return self.command("pjsub", "-N", request.tag, *array, *self.options.submit_options, request.script)

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        """Read ``[INFO] PJM 0000 pjsub Job 1234 submitted.``, and nothing else."""
        if completion.returncode == 0 and "[ERR.]" in completion.stdout + completion.stderr:
            completion = dataclasses.replace(completion, returncode=1)
        return read_submit(completion, _INFO.findall, _MESSAGES)

    def query(self, job_ids: Sequence[str]) -> Command:
        """``pjstat -v --choose``, filtered by the ids."""
        return self._pjstat(_filter(job_ids))

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the list by its header."""
        return wrapped.pick(job_ids, self._table(completion), self._status)

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:  # noqa: ARG002 - pjstat -H has its own span
        """``pjstat -H``, filtered by the ids; a site's own list has unfinished jobs only."""
        return self._pjstat(_filter(job_ids), "-H") if self._history else None

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the list by its header."""
        return self.parse_query(completion, job_ids)

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:  # noqa: ARG002 - pjstat -H has its own span
        """``pjstat`` filtered by each name, then with history; of a bare ``pjstat``, all jobs."""
        names = [f"jnam={tag}" for tag in tags] if self._choose else [""]
        live = [self._pjstat(name) for name in names]
        return (*live, *([self._pjstat(name, "-H") for name in names] if self._history else []))

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        """Match names, which pjstat may cut short; with a filter, each command has named one tag."""
        lists = [self._table(completion) for completion in completions]
        if not self._choose:
            return wrapped.find(lists, tags, self._status)
        jobs: dict[str, dict[str, JobStatus]] = {tag: {} for tag in tags}
        faults = []
        for number, table in enumerate(lists):
            tag = tags[number % len(tags)]
            if isinstance(table, str) or table.odd:
                faults.append(table if isinstance(table, str) else f"a line cannot be read: {table.odd[0]}")
                continue
            for row in table.rows:
                if wrapped.is_name(row.get("name", ""), tag):
                    jobs[tag].setdefault(row["id"], self._status(row))
        return found_jobs(jobs, faults)

    def cancel(self, job_ids: Sequence[str]) -> Command:
        """``pjdel``; it accepts at once, the jobs go later."""
        return self.command("pjdel", *job_ids)

    def cancelled(self, completion: Completion) -> bool:
        """Whether each job was accepted, or is no longer there."""
        harmless = re.compile(r"does not exist|no such|not found|already|finished|Invalid jobid", re.IGNORECASE)
        errors = [line for line in (completion.stdout + completion.stderr).splitlines() if "[ERR.]" in line]
        if completion.returncode is None:
            return False
        return all(harmless.search(line) for line in errors) if errors else completion.returncode == 0

    def element(self, job_id: str, index: int) -> str:
        """``12345[1]``."""
        return f"{self.whole(job_id)}[{index}]"

    def whole(self, job_id: str) -> str:
        """``12345`` of ``12345[1]``."""
        return job_id.partition("[")[0]

    def limits(self) -> Command | None:
        """Limits of the user and the group."""
        return self.command("pjstat", "--limit")

    @property
    def _choose(self) -> bool:
        return self.options.extra.get("dialect", "choose") == "choose"

    @property
    def _history(self) -> bool:
        return self.options.history and self.options.extra.get("dialect") != "wrapped"

    @property
    def _states(self) -> Mapping[str, tuple[JobState, Verdict | None]]:
        return {**wrapped.WORDS, **STATES}

    def _pjstat(self, select: str, *mode: str) -> Command:
        if not self._choose:
            return self.listing("pjstat", *mode)
        # -E lists the elements of bulk and step jobs, whose parent's state is a mere sum.
        elements = ("-E",) if re.search(r"[\[_]", select) else ()
        return self.listing("pjstat", "-v", *elements, *mode, "--choose", _CHOICE, "--filter", select)

    def _table(self, completion: Completion) -> Table | str:
        silent = not completion.stdout.strip() and not completion.stderr.strip()
        if completion.returncode == 0 and silent and self.options.extra.get("empty") == "absent":
            return Table()
        table = wrapped.read_table(completion)
        if isinstance(table, str) and completion.returncode == 0 and silent:
            return f"{table}; if that is how this pjstat says that there is no job, set empty: absent"
        return table

    def _status(self, row: Mapping[str, str]) -> JobStatus:
        status = wrapped.status(row["id"], row, self._states)
        if row["state"].upper() == "EXT":
            return dataclasses.replace(status, end=_end(row, status.evidence))
        waits = status.state is JobState.QUEUED
        return dataclasses.replace(status, stuck=status.stuck or (waits and _STUCK.search(status.reason) is not None))


def _filter(job_ids: Sequence[str]) -> str:
    return "jid=" + "+".join(dict.fromkeys(job_ids))


def _end(row: Mapping[str, str], line: str) -> JobEnd:
    numbers = [int(row[name]) if re.fullmatch(r"-?\d+", row.get(name, "")) else None for name in ("EC", "PC", "SN")]
    code, manager, signal = numbers
    if code is None or manager is None or signal is None:
        return JobEnd(reason=f"EXT without EC, PC and SN: {line}")
    said = f"EC {code} PC {manager} SN {signal} {row.get('reason', '')}".strip()
    if manager != 0:
        verdict, meaning = PJM_CODES.get(manager, (None, "unknown to us"))
        return JobEnd(verdict=verdict, exit_code=code or None, signal=signal or None, reason=f"{said} ({meaning})")
    succeeded = code == 0 and signal == 0
    verdict = Verdict.SUCCEEDED if succeeded else Verdict.FAILED
    return JobEnd(verdict=verdict, exit_code=None if signal else code, signal=signal or None, reason=said)
