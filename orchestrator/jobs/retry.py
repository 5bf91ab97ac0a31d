"""When an attempt that did not succeed is followed by another, and with how much memory.

A decision follows from the attempts as the ledger has them, and from what the site says of itself:
a driver that takes the study over decides the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.jobs.placement import Placement, place
from orchestrator.model import Attempt, Job, Resources, Verdict

if TYPE_CHECKING:
    from orchestrator.config.site import BatchOptions, Queue, Site

__all__ = [
    "CHECKPOINTED",
    "NEVER_RAN",
    "Decision",
    "RetryPolicy",
    "asked_for",
    "left_checkpoint",
    "with_more_memory",
]

NEVER_RAN = "never-ran"
"""Note on an attempt whose claim the driver took: it cost nothing and does not count."""

CHECKPOINTED = "checkpointed"
"""Note on an attempt whose program wrote a checkpoint: the next one goes on from there."""

_DEFAULTS = {
    Verdict.NODE_FAILURE: 3,
    Verdict.PREEMPTED: 5,
    Verdict.LOST: 2,
    Verdict.TIMEOUT: 5,
    Verdict.OUT_OF_MEMORY: 2,
    Verdict.REQUEUE_REQUESTED: 20,
}
_MANY = 1 << 20  # attempts that could share a job, as the packer asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether there is another attempt, and why (not), in words for people."""

    again: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How many further attempts each verdict is worth; a verdict without a number is worth none."""

    limits: Mapping[Verdict, int] = field(default_factory=lambda: dict(_DEFAULTS))
    memory_factor: float = 2.0

    def again(self, attempts: Sequence[Attempt], *, roomier: bool = False) -> bool:
        """Whether the job is to run again after ``attempts``, as `decide` decides."""
        return self.decide(attempts, roomier=roomier).again

    def decide(self, attempts: Sequence[Attempt], *, roomier: bool = False) -> Decision:
        """Decide what follows ``attempts``, the last of which has just ended.

        Parameters
        ----------
        roomier : bool
            Whether the next attempt would get more memory than the last one had.
        """
        last = attempts[-1]
        if last.outcome is None:
            return Decision(again=False, why="the attempt has not ended")
        verdict = last.outcome.verdict
        if verdict in {Verdict.SUCCEEDED, Verdict.STOPPED}:
            return Decision(again=False, why="there is a result")
        if verdict is Verdict.PAUSED:
            return Decision(again=False, why="it was paused, to go on when it is promoted")
        if NEVER_RAN in last.notes:
            return Decision(again=True, why="the attempt never ran")
        limit = self.limits.get(verdict, 0)
        if not limit:
            return Decision(again=False, why=f"`retry: {verdict}` is 0")
        if verdict is Verdict.TIMEOUT and CHECKPOINTED not in last.notes:
            why = "no checkpoint was written in the attempt: another one would come no further"
            return Decision(again=False, why=why)
        if verdict is Verdict.OUT_OF_MEMORY and not roomier:
            return Decision(again=False, why="the site has no more memory to give")
        ended_so = sum(
            attempt.outcome is not None and attempt.outcome.verdict is verdict and NEVER_RAN not in attempt.notes
            for attempt in attempts
        )
        if ended_so > limit:
            return Decision(again=False, why=f"{ended_so} attempts have ended so, and `retry: {verdict}` is {limit}")
        return Decision(again=True, why=f"further attempt {ended_so} of {limit} that `retry: {verdict}` allows")


def left_checkpoint(report: Mapping[str, Any] | None, tag: str) -> bool:
    """Whether the agent's report on the attempt of ``tag`` says that its program wrote a checkpoint."""
    return report is not None and report.get("tag") == tag and isinstance(report.get("checkpoint"), int | float)


def asked_for(job: Job, attempt: Attempt) -> Resources:
    """What ``attempt`` asks for: its job's resources, with more memory where the ledger says so."""
    if attempt.memory is None or attempt.memory <= (job.resources.memory or 0):
        return job.resources
    return dataclasses.replace(job.resources, memory=attempt.memory)


def with_more_memory(
    site: Site, batch: BatchOptions, had: Resources, attempt: Attempt, factor: float
) -> Resources | None:
    """What is to be asked for after an attempt that ran out of memory; None where the site cannot give more.

    Parameters
    ----------
    had : Resources
        What was asked for it. Without a number for the memory, it had its part of the node, or as
        much as it was seen to use.
    factor : float
        How much more it is to be; half the step is tried where the site has no room for the whole.
    """
    memory = had.memory or _part_of_a_node(site, batch, had, attempt) or _used(attempt)
    if memory is None:
        return None
    for times in (factor, (1.0 + factor) / 2.0):
        wanted = dataclasses.replace(had, memory=math.ceil(memory * times))
        try:
            before = place(site, had, batch, attempts=_MANY)
            after = place(site, wanted, batch, attempts=_MANY)
        except UsageError:
            continue
        if site.memory_syntax is not None or _share(after) != _share(before, attempt.packed):
            return wanted
    return None


def _share(placement: Placement, packed: int | None = None) -> tuple[object, ...]:
    """What decides on the memory of an attempt where a job cannot ask for it."""
    return placement.queue, placement.unit, placement.units, packed or placement.pack


def _part_of_a_node(site: Site, batch: BatchOptions, had: Resources, attempt: Attempt) -> int | None:
    """Memory of an attempt on a queue that sells nodes or parts of them, by what the site's file says."""
    try:
        placement = place(site, had, batch, attempts=_MANY)
    except UsageError:
        return None
    queue: Queue | None = next(
        (each for each in site.queues if (each.name, each.unit) == (placement.queue, placement.unit)), None
    )
    if queue is None or queue.memory_per_unit is None or queue.unit == "share":
        return None
    units = 1 if queue.unit == "node" else placement.units
    return queue.memory_per_unit * units // attempt.packed


def _used(attempt: Attempt) -> int | None:
    used = attempt.outcome.max_rss if attempt.outcome is not None else None
    return math.ceil(used) if used else None
