"""What the adaptors share when they read a command's output: refusals, times, lists with a header.

All of it is strict in one direction: what cannot be read with certainty is reported as not known.
"""

from __future__ import annotations

import calendar
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.model import Answer, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Found, Refused, Submitted, Unclear
from orchestrator.transports.base import Completion

__all__ = [
    "LATER",
    "NEVER",
    "UNCLEAR",
    "Message",
    "Table",
    "absent",
    "cancel_taken",
    "combine",
    "evidence",
    "found_jobs",
    "indices",
    "read_submit",
    "seconds",
    "unknown",
    "utc",
]

LATER, NEVER, UNCLEAR = "later", "never", "unclear"

_EVIDENCE = 300


@dataclass(frozen=True, slots=True)
class Message:
    """One row of a table of messages: what the scheduler prints, and what that says of the submit."""

    pattern: str
    meaning: str  # LATER or NEVER: certainly not taken; UNCLEAR: perhaps taken

    def matches(self, text: str) -> bool:
        """Whether ``text`` has the message, upper or lower case."""
        return re.search(self.pattern, text, re.IGNORECASE) is not None


def evidence(completion: Completion) -> str:
    """Say in short, for people, what a completion says: its return code and its message."""
    if completion.returncode is None:
        return "no answer within the time limit"
    lines = [line.strip() for line in (completion.stderr + "\n" + completion.stdout).splitlines() if line.strip()]
    return f"exit code {completion.returncode}: {' / '.join(lines[:3]) or 'no output'}"[:_EVIDENCE]


def unknown(job_ids: Iterable[str], why: str) -> dict[str, JobStatus]:
    """`Answer.UNKNOWN` for each id."""
    return {job_id: JobStatus(job_id=job_id, answer=Answer.UNKNOWN, evidence=why[:_EVIDENCE]) for job_id in job_ids}


def absent(job_id: str, why: str) -> JobStatus:
    """`Answer.ABSENT` for one id."""
    return JobStatus(job_id=job_id, answer=Answer.ABSENT, evidence=why[:_EVIDENCE])


def read_submit(
    completion: Completion,
    find_ids: Callable[[str], Sequence[str]],
    messages: Sequence[Message],
    codes: Mapping[int, str] | None = None,
) -> Submitted | Refused | Unclear:
    """Read a submit command's answer.

    Parameters
    ----------
    find_ids : callable
        All job ids in a text that certainly are ids.
    messages : sequence of Message
        The first that matches counts.
    codes : mapping, optional
        Meanings of return codes, which count for more than text.
    """
    said = evidence(completion)
    if completion.returncode is None:
        return Unclear(reason=said)
    ids = list(dict.fromkeys(find_ids(completion.stdout)))
    if ids:
        if completion.returncode == 0 and len(ids) == 1:
            return Submitted(job_id=ids[0])
        return Unclear(reason=f"{'several job ids' if len(ids) > 1 else 'a job id and an error'}: {said}")
    if completion.returncode in {126, 127}:
        return Refused(reason=f"the submit command cannot be run ({said}); see `commands` in the site file")
    meaning = (codes or {}).get(completion.returncode)
    if meaning is None:
        text = f"{completion.stderr}\n{completion.stdout}"
        meaning = next((message.meaning for message in messages if message.matches(text)), UNCLEAR)
    if meaning == UNCLEAR:
        return Unclear(reason=f"no job id: {said}" if completion.returncode == 0 else said)
    return Refused(reason=said, later=meaning == LATER)


def cancel_taken(completion: Completion, harmless: str, messages: str) -> bool:
    """Whether a cancel command was taken.

    Parameters
    ----------
    harmless : str
        Regular expression for what the scheduler says of jobs that need no cancelling any more.
    messages : str
        What the command printed of the jobs that it refused: each line of it must be harmless.
    """
    if completion.returncode is None or completion.returncode == 0:
        return completion.returncode == 0
    lines = [line for line in messages.splitlines() if line.strip()]
    return bool(lines) and all(re.search(harmless, line, re.IGNORECASE) for line in lines)


def found_jobs(jobs: Mapping[str, Mapping[str, JobStatus]], faults: Sequence[str]) -> Found:
    """Answer of a look-up: jobs by tag and id, to be trusted if there were no faults."""
    listed = {tag: tuple(by_id.values()) for tag, by_id in jobs.items()}
    return Found(jobs=listed, trusted=not faults, evidence="; ".join(faults))


def utc(text: str, *formats: str) -> float | None:
    """Seconds since the epoch of a time in UTC, or None where ``text`` is no time in any of ``formats``."""
    for form in formats:
        try:
            return float(calendar.timegm(time.strptime(text.strip(), form)))
        except ValueError:
            continue
    return None


def seconds(text: str) -> int | None:
    """Seconds of ``[[hours:]minutes:]seconds``, or None where ``text`` is something else."""
    if re.fullmatch(r"\d+(:\d{1,2}){0,2}", text.strip()) is None:
        return None
    total = 0
    for part in text.strip().split(":"):
        total = total * 60 + int(part)
    return total


def indices(text: str) -> set[int] | None:
    """Read an array range such as ``4-9%2``, ``0-10:5``, ``1,3,5-7``; None where that is not possible whole."""
    found: set[int] = set()
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        found.update(range(first, last + 1, max(step, 1)))
    return found


# Of an array that was asked for as a whole, the worst end is the end.
_WORST = (
    Verdict.NODE_FAILURE,
    Verdict.PREEMPTED,
    Verdict.OUT_OF_MEMORY,
    Verdict.TIMEOUT,
    Verdict.CANCELLED,
    Verdict.REJECTED,
    Verdict.FAILED,
)


def combine(job_id: str, elements: Sequence[JobStatus]) -> JobStatus:
    """Make one status of an array's elements (or of one job's records); alive as long as any element is."""
    for answer in (Answer.UNKNOWN, Answer.ALIVE):
        of_answer = [element for element in elements if element.answer is answer]
        if of_answer:
            chosen = next((one for one in of_answer if one.state is JobState.RUNNING), of_answer[0])
            return _renamed(chosen, job_id)
    for verdict in _WORST:
        for element in elements:
            if element.end is not None and element.end.verdict is verdict:
                return _renamed(element, job_id)
    unsaid = [element for element in elements if element.end is None or element.end.verdict is None]
    return _renamed((unsaid or list(elements))[0], job_id)


def _renamed(status: JobStatus, job_id: str) -> JobStatus:
    return dataclasses.replace(status, job_id=job_id)


@dataclass(slots=True, kw_only=True)
class Table:
    """A list with a header line, read by the names in the header.

    Attributes
    ----------
    rows : list of dict
        Cells by our name for the column.
    odd : list of str
        Lines that begin like a job's but cannot be read: what is not among ``rows`` may be there.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str, columns: Mapping[str, tuple[str, ...]], job_id: str, *, opaque: str = "") -> Table | None:
        """Read ``text``; banners before the header and blank lines are passed over.

        Parameters
        ----------
        columns : mapping
            Our name of each column to the names it has in headers. The first two are required; a column that
            is last in the header takes the rest of the line.
        job_id : str
            Regular expression that the cell of the first column must match whole.
        opaque : str
            Name of a column whose cells may be several words: it and what follows are not read.

        Returns
        -------
        Table or None
            None where there is no header.
        """
        lines = text.splitlines()
        names = {alias: name for name, aliases in columns.items() for alias in aliases}
        required = set(list(columns)[:2])
        header: list[tuple[str, int]] = []
        whole = True
        while lines and not required <= {name for name, _start in header}:
            words = list(re.finditer(r"\S+", lines.pop(0)))
            stop = next((number for number, word in enumerate(words) if word.group().upper() == opaque), len(words))
            whole = stop == len(words)
            header = [(names.get(word.group().upper(), ""), word.start()) for word in words[:stop]]
        if not required <= {name for name, _start in header}:
            return None
        table = cls()
        key = next(iter(columns))
        for line in lines:
            cells = _cells(line, header, whole=whole)
            if re.fullmatch(job_id, cells.get(key, "")) and all(cells.get(name) for name in required):
                table.rows.append(cells)
            elif re.match(r"\s*\d", line):
                table.odd.append(line.strip())
        return table


def _cells(line: str, header: Sequence[tuple[str, int]], *, whole: bool) -> dict[str, str]:
    found = list(re.finditer(r"\S+", line))
    cells: dict[str, str] = {}
    if len(found) >= len(header):
        for index, (name, _start) in enumerate(header):
            last = whole and index == len(header) - 1
            cells[name] = line[found[index].start() :].strip() if last else found[index].group()
    else:
        # Empty cells: a word belongs to the last column that begins at or before it.
        for word in found:
            column = ([name for name, start in header if start <= word.start()] or [header[0][0]])[-1]
            cells[column] = f"{cells[column]} {word.group()}" if column in cells else word.group()
    cells.pop("", None)
    return cells
