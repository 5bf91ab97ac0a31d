"""What carries an emulated cluster's jobs out: in memory, or as real processes."""

from __future__ import annotations

from typing import Protocol

from orchestrator.simulate.batchjob import BatchJob

__all__ = ["Host"]


class Host(Protocol):
    """What carries jobs out."""

    def start(self, job: BatchJob) -> None:
        """Begin to run the job's script on its nodes."""
        ...

    def signal(self, job: BatchJob, number: int) -> None:
        """Send a signal to all that the job runs; after SIGKILL nothing of it may go on."""
        ...

    def lose(self, job: BatchJob) -> None:
        """Its node is gone, and all that ran there with it: nothing is reported any more."""
        ...
