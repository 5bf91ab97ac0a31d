"""What a cluster knows of its jobs: the live list, the records of what is over, and who has which name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from orchestrator.simulate.batchjob import BatchJob, Key

__all__ = ["Register"]

_K = TypeVar("_K")


class Register:
    """Jobs by number, by name, and in the order of their submits. It judges nothing and knows no time."""

    def __init__(self) -> None:
        self._live: dict[Key, BatchJob] = {}
        self._by_number: dict[int, list[BatchJob]] = {}  # the live list again
        self._past: dict[int, list[BatchJob]] = {}
        self._names: dict[str, list[BatchJob]] = {}

    def enter(self, job: BatchJob) -> None:
        """Take a new job into the live list."""
        self._live[job.key] = job
        self._by_number.setdefault(job.number, []).append(job)
        self._names.setdefault(job.wish.name, []).append(job)

    def leave(self, job: BatchJob) -> None:
        """Take a job off the live list."""
        if self._live.get(job.key) is job:
            del self._live[job.key]
            _drop(self._by_number, job.number, job)

    def record(self, record: BatchJob) -> None:
        """Keep the record of a start that is over."""
        self._past.setdefault(record.number, []).append(record)

    def forget(self, job: BatchJob) -> None:
        """Drop all records of a job, and its name."""
        for record in (*job.earlier, job):
            _drop(self._past, job.number, record)
        self.unname(job)

    def unname(self, job: BatchJob) -> None:
        """Let nobody find the job by its name any more."""
        _drop(self._names, job.wish.name, job)

    def live(self) -> Iterator[BatchJob]:
        """The live list."""
        return iter(self._live.values())

    def numbered(self, number: int) -> list[BatchJob]:
        """Live jobs of one number: one, or the elements of an array."""
        return self._by_number.get(number, [])

    def named(self, name: str) -> list[BatchJob]:
        """Jobs of one name, live or past."""
        return self._names.get(name, [])

    def past(self, numbers: Iterable[int] | None = None) -> Iterator[BatchJob]:
        """Records of some numbers or of all, those of one number the oldest first."""
        for number in list(self._past) if numbers is None else numbers:
            yield from self._past.get(number, ())


def _drop(index: dict[_K, list[BatchJob]], key: _K, job: BatchJob) -> None:
    kept = [other for other in index.get(key, ()) if other is not job]
    if kept:
        index[key] = kept
    else:
        index.pop(key, None)
