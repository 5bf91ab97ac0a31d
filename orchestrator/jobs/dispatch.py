"""Bundles on their way out: written down, submitted, written down again.

Before the submit each attempt's file says under which name its job goes and how many share it, so
that a driver that dies in between leaves all that is needed to find the job again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.clock import Clock
from orchestrator.jobs.packing import Sent
from orchestrator.jobs.submission import Accepted, Bundle, Rejected, Submitter
from orchestrator.model import Attempt
from orchestrator.schedulers.base import Scheduler
from orchestrator.store.ledger import Ledger

__all__ = ["Dispatcher"]


class Dispatcher:
    """Takes bundles from the packer to the submitter, and keeps the ledger.

    Parameters
    ----------
    guard : callable
        Called before each durable step; raises if the lease was lost.
    tell : callable
        Called with an event's name and its fields.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        submitter: Submitter,
        scheduler: Scheduler,
        clock: Clock,
        guard: Callable[[], None],
        tell: Callable[..., None],
    ) -> None:
        self._ledger = ledger
        self._submitter = submitter
        self._scheduler = scheduler
        self._clock = clock
        self._guard = guard
        self._tell = tell
        self.arrays = True
        """False once this site has refused an array job: it is not asked again."""

    async def send(self, bundle: Bundle) -> Sequence[Sent] | None:
        """Submit a bundle; None if it was an array job and was refused: then its jobs are to go one by one."""
        bundle = self._write_ahead(bundle)
        answer = await self._submitter.submit(bundle)
        if isinstance(answer, Rejected) and bundle.elements is not None:
            self.arrays = False
            words = f"the array job was refused ({answer.reason}); its jobs are submitted one by one"
            self._tell("waiting", tag=bundle.name, message=words)
            return None
        if not isinstance(answer, Accepted):
            return [Sent(attempt=attempt, answer=answer) for _, attempt in bundle.members]
        # All of them in one go: a driver that dies here leaves as few as can be to be looked for.
        self._guard()
        return [Sent(attempt=self.accepted(attempt, answer.job_id), answer=answer) for _, attempt in bundle.members]

    def accepted(self, attempt: Attempt, job_id: str | None, *, found: bool = False) -> Attempt:
        """Write down that the attempt's job is there; ``found``: the id is the element's own already."""
        if job_id is not None and attempt.job_index is not None and not found:
            job_id = self._scheduler.element(job_id, attempt.job_index)
        attempt = dataclasses.replace(attempt, job_id=job_id, submitted=attempt.submitted or self._clock.now())
        self._ledger.save(attempt)
        fields: dict[str, Any] = {"key": attempt.key, "attempt": attempt.number, "job_id": attempt.job_id or ""}
        if attempt.packed > 1:
            fields["packed"] = attempt.packed
        self._tell("submitted", **fields)
        return attempt

    def _write_ahead(self, bundle: Bundle) -> Bundle:
        self._guard()
        members = []
        for number, (job, attempt) in enumerate(bundle.members):
            planned = dataclasses.replace(
                attempt,
                job_name=bundle.name if len(bundle.members) > 1 else "",
                job_index=None if bundle.elements is None else number // bundle.each,
                packed=bundle.each,
            )
            if planned != attempt:
                self._ledger.save(planned)
            members.append((job, planned))
        return dataclasses.replace(bundle, members=tuple(members))
