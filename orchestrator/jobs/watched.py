"""What the watcher knows of one attempt in flight, and how often it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.jobs.collect import Remains
from orchestrator.model import JobEnd, JobStatus

__all__ = ["Cadence", "Watched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often a site is looked at; all in seconds.

    Attributes
    ----------
    look : float
        Between looks at the attempts' files.
    query_min, query_max : float
        Between queries of the scheduler: the shorter after something has changed, growing to the longer.
    grace : float
        For how long a job must be gone without a report before that is believed.
    """

    look: float
    query_min: float
    query_max: float
    grace: float


@dataclass(slots=True, kw_only=True)
class Watched:
    """One attempt in flight.

    Attributes
    ----------
    name : str
        Name of its batch job: another job's name under its id means that the id was given anew.
    on_progress : callable
        Called with step and value of each new report; lines of another form are passed over.
    on_state : callable
        Called with the latest `JobStatus` when its state word or reason changes.
    on_claim : callable
        Called when an agent is first seen to have claimed the attempt.
    on_suspect : callable
        Called with the time since which the job is gone without a report, or None when it is back.
    """

    tag: str
    directory: str
    name: str
    job_id: str | None
    submitted: float
    suspect_since: float | None = None
    signalled: Mapping[str, Any] | None = None  # an agent's report of a signal that nothing explains yet
    signalled_since: float | None = None  # since when the job is seen to run in spite of that report
    on_progress: Callable[[int, float], None] = lambda _step, _value: None
    on_state: Callable[[JobStatus], None] = lambda _status: None
    on_suspect: Callable[[float | None], None] = lambda _since: None
    on_claim: Callable[[], None] = lambda: None
    claimed: bool = False
    looked: bool = False  # whether its files were looked at since it is watched
    answered: bool = False  # whether the scheduler was asked about it since it is watched
    stopped: bool = False
    offset: int = 0
    last: JobStatus | None = None
    end: JobEnd | None = None
    restarts: int = 0
    result: str | None = None
    remains: asyncio.Future[Remains] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
