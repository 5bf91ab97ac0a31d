"""What a dialect is: a scheduler's commands over the emulated cluster, in that scheduler's words."""

from __future__ import annotations

import abc
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.simulate.batchjob import BatchJob, Phase
from orchestrator.simulate.cluster import Cluster

__all__ = ["Call", "Dialect", "Reply", "hms", "stamp"]


@dataclass(slots=True, kw_only=True)
class Reply:
    """What a command prints; ``returncode`` None stands for one that never answers, ``delay`` is in seconds."""

    returncode: int | None = 0
    stdout: str = ""
    stderr: str = ""
    delay: float = 0.0


@dataclass(slots=True, kw_only=True)
class Call:
    """One command line, as the login node runs it.

    Attributes
    ----------
    zone : float
        Hours that the caller's clock is ahead of UTC.
    hidden : set of int
        Job numbers that this call does not see.
    fault : str or None
        The fault whose form is the dialect's own (see `orchestrator.simulate.faults`).
    open : callable
        Reads a file of the login node, None if it is not there.
    """

    program: str
    words: tuple[str, ...]
    stdin: str = ""
    folder: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "tester"
    zone: float = 0.0
    hidden: frozenset[int] = frozenset()
    fault: str | None = None
    open: Callable[[str], str | None] = lambda _path: None

    @property
    def name(self) -> str:
        """The program without its folder."""
        return self.program.rpartition("/")[2]

    @property
    def line(self) -> str:
        """The command line's words."""
        return " ".join(self.words)

    def live(self, cluster: Cluster) -> Iterator[BatchJob]:
        """The live list as this call sees it."""
        return (job for job in cluster.live() if job.number not in self.hidden)


class Dialect(abc.ABC):
    """One scheduler's commands.

    Attributes
    ----------
    programs : mapping
        Each command to its roles in a `orchestrator.simulate.faults.Fault`.
    scheduler : str
        Name of the adaptor that speaks it.
    """

    scheduler: ClassVar[str]
    programs: Mapping[str, Sequence[str]]

    @abc.abstractmethod
    def run(self, call: Call, cluster: Cluster) -> Reply:
        """Carry out a command."""

    @abc.abstractmethod
    def trouble(self, kind: str, call: Call) -> Reply:
        """The words for ``down``, ``busy``, ``limit``, ``refused`` and ``timed-out``."""

    @abc.abstractmethod
    def environment(self, job: BatchJob) -> dict[str, str]:
        """Variables that the scheduler sets for a job."""

    def roles(self, call: Call) -> Sequence[str]:
        """What this command line does."""
        return self.programs.get(call.name, ())

    @abc.abstractmethod
    def strange(self, text: str) -> str:
        """Put a state word that no manual has in place of each in a listing."""

    def output_path(self, job: BatchJob) -> str | None:
        """Where the job's output goes, with the scheduler's placeholders filled."""
        path = job.wish.output
        if path is None:
            return None
        return path if path.startswith("/") else f"{job.wish.folder.rstrip('/')}/{path}"


def unfinished(job: BatchJob) -> bool:
    """Whether a job has not ended."""
    return job.phase is not Phase.ENDED


@functools.lru_cache(maxsize=8192)
def stamp(moment: float | None, form: str, zone: float, missing: str = "") -> str:
    """A time in the caller's zone."""
    if moment is None:
        return missing
    return time.strftime(form, time.gmtime(moment + zone * 3600.0))


def hms(seconds: float, *, hours: int = 2) -> str:
    """``hh:mm:ss``."""
    whole = int(seconds)
    return f"{whole // 3600:0{hours}d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
