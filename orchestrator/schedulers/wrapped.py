"""Site commands that wrap a scheduler's status command into a list of the user's unfinished jobs.

The University of Tokyo's ``rbstat`` and ``pjstat`` and Kyushu's ``pjstat`` print a banner, a header with
``JOB_ID``, ``JOB_NAME`` and ``STATUS`` (``ST`` in Fujitsu's own), one line a job, or a sentence that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Found
from orchestrator.schedulers.reading import Table, absent, combine, evidence, found_jobs, unknown
from orchestrator.transports.base import Completion

__all__ = ["WORDS", "find", "is_name", "pick", "read_table", "status"]

# Long state words of wrapped commands (Wisteria, Reedbush and FX100 outputs; the count table's "RUNING" is its own).
WORDS: Mapping[str, tuple[JobState, Verdict | None]] = {
    "ACCEPT": (JobState.QUEUED, None),
    "ACCEPTED": (JobState.QUEUED, None),
    "QUEUED": (JobState.QUEUED, None),
    "READY": (JobState.QUEUED, None),
    "STGIN": (JobState.QUEUED, None),
    "RUNNING": (JobState.RUNNING, None),
    "RUNING": (JobState.RUNNING, None),
    "RUNOUT": (JobState.ENDING, None),
    "STGOUT": (JobState.ENDING, None),
    "EXITING": (JobState.ENDING, None),
    "SUSPENDED": (JobState.SUSPENDED, None),
    "HOLD": (JobState.HELD, None),
    "HELD": (JobState.HELD, None),
    "ERROR": (JobState.HELD, None),
}

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("JOB_ID", "JOBID"),
    "state": ("ST", "STATUS"),
    "name": ("JOB_NAME",),
    "EC": ("EC",),
    "PC": ("PC",),
    "SN": ("SN",),
    "reason": ("REASON",),
}
_JOB_ID = r"\d+(?:_\d+)?(?:\[\d*\])?(?:\.[\w.-]+)?"
_CUT_NAME = 10  # no list is known that shows less of a name
_NONE = re.compile(r"\bno (unfinished |matching |such )?jobs? (found|exists?)", re.IGNORECASE)


def read_table(completion: Completion) -> Table | str:
    """Read the list, empty where the command says that there is no job, or say why it cannot be trusted."""
    if completion.returncode is None or "[ERR.]" in completion.stdout + completion.stderr:
        return evidence(completion)
    table = Table.read(completion.stdout, _COLUMNS, _JOB_ID, opaque="START_DATE")
    if table is not None and completion.returncode == 0:
        return table
    if table is None and _NONE.search(completion.stdout + completion.stderr):
        return Table()
    return evidence(completion)


def pick(
    job_ids: Sequence[str], table: Table | str, read: Callable[[Mapping[str, str]], JobStatus]
) -> dict[str, JobStatus]:
    """Give each id the status that ``read`` makes of its row; an array as a whole takes its elements' too."""
    if isinstance(table, str):
        return unknown(job_ids, table)
    answers = {}
    for job_id in job_ids:
        rows = [row for row in table.rows if _belongs(row["id"], job_id)]
        if not rows and "[" in job_id:
            # Some lists show an array as one line: as long as it is there its elements may be.
            rows = [row for row in table.rows if _is_whole(row["id"], job_id)]
        if rows:
            answers[job_id] = combine(job_id, [read(row) for row in rows])
        elif table.odd:
            answers |= unknown([job_id], f"not listed, but a line cannot be read: {table.odd[0]}")
        else:
            answers[job_id] = absent(job_id, "the list does not have it")
    return answers


def find(lists: Sequence[Table | str], tags: Sequence[str], read: Callable[[Mapping[str, str]], JobStatus]) -> Found:
    """Jobs by tag in lists of all the user's jobs.

    A list may cut names short. A name that is only the beginning of a tag counts where no other job and no other
    tag could be meant; else nothing is said at all, since a job that is taken for ours may be cancelled.
    """
    faults = [
        found if isinstance(found, str) else f"a line cannot be read: {found.odd[0]}"
        for found in lists
        if isinstance(found, str) or found.odd
    ]
    rows = [row for found in lists if isinstance(found, Table) for row in found.rows]
    jobs: dict[str, dict[str, JobStatus]] = {tag: {} for tag in tags}
    for row in rows:
        named = [tag for tag in tags if is_name(row.get("name", ""), tag)]
        for tag in named:
            jobs[tag].setdefault(row["id"], read(row))
        if len(named) > 1:
            return Found(jobs={}, trusted=False, evidence=f"{row['name']!r} may be any of {', '.join(named)}")
    for tag, found in jobs.items():
        cut = next((status for status in found.values() if status.name != tag), None)
        if cut is not None and len(found) > 1:
            return Found(jobs={}, trusted=False, evidence=f"several jobs named {cut.name!r} may be {tag}")
    return found_jobs(jobs, faults)


def is_name(listed: str, tag: str) -> bool:
    """Whether a listed name is the tag, or what a list that cuts names leaves of it."""
    return listed == tag or (len(listed) >= _CUT_NAME and tag.startswith(listed))


def _belongs(listed: str, job_id: str) -> bool:
    """Whether a listed id is the job, or an element of the array that was asked for as a whole."""
    listed, job_id = listed.partition(".")[0], job_id.partition(".")[0]
    return listed == job_id or re.split(r"[\[_]", listed)[0] == job_id.removesuffix("[]")


def _is_whole(listed: str, element: str) -> bool:
    """Whether a listed id is the array that ``element`` is of."""
    return listed.partition(".")[0].removesuffix("[]") == element.partition("[")[0]


def status(job_id: str, row: Mapping[str, str], states: Mapping[str, tuple[JobState, Verdict | None]]) -> JobStatus:
    """One row; a final state without further words says that the job has ended, and not how."""
    line = " ".join(row.values())
    word = row["state"].upper()
    if word not in states:
        return unknown([job_id], f"unknown state {row['state']!r}: {line}")[job_id]
    state, verdict = states[word]
    reason = row.get("reason", "")
    return JobStatus(
        job_id=job_id,
        answer=Answer.ENDED if state is JobState.ENDED else Answer.ALIVE,
        state=state,
        word=word,
        reason="" if reason == "-" else reason,
        stuck=state is JobState.HELD,
        name=row.get("name", ""),
        end=JobEnd(verdict=verdict, reason=line) if state is JobState.ENDED else None,
        evidence=line,
    )
