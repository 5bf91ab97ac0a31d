"""CPU that the driver needs for one poll cycle with 1,000 jobs in flight: the look at their files, and the queue's list.

No scheduler is needed: a stand-in for ``squeue`` prints the list.

    python benchmarks/scheduling/cycle.py [--jobs 1000] [--cycles 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from orchestrator.model import Answer
from orchestrator.schedulers.base import SchedulerOptions
from orchestrator.schedulers.slurm import Slurm
from orchestrator.transports.base import Completion
from orchestrator.transports.local import LocalTransport

_ROW = "{job}|{job}|PENDING|2026-01-05T10:00:00|N/A|N/A||Priority|t{job:05d}-k3j9x2q8"
_HEADER = "JOBID|JOBID|STATE|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|REASON|NAME"


def prepare(folder: Path, jobs: int) -> tuple[Slurm, list[str], list[str]]:
    """Attempts' folders as they are while their jobs wait, and a queue that lists them all."""
    directories = []
    for number in range(jobs):
        directory = folder / "trials" / f"{number:05d}" / "attempt-1"
        directory.mkdir(parents=True)
        (directory / "job.json").write_text(json.dumps({"version": 1, "tag": f"t{number:05d}-k3j9x2q8"}))
        directories.append(str(directory))
    (folder / "list").write_text("\n".join([_HEADER, *(_ROW.format(job=job) for job in range(1, jobs + 1))]) + "\n")
    squeue = folder / "squeue"
    squeue.write_text(f'#!/bin/sh\nexec cat "{folder}/list"\n')
    squeue.chmod(0o700)
    options = SchedulerOptions(commands={"squeue": str(squeue)})
    return Slurm(options), [str(job) for job in range(1, jobs + 1)], directories


async def cycle(
    scheduler: Slurm, transport: LocalTransport, ids: list[str], directories: list[str]
) -> tuple[float, float]:
    """CPU seconds of the look with its query, and of the reading of the answer."""
    command = scheduler.query(ids)
    begun = time.process_time()
    reply = await transport.look(
        {
            "attempts": {directory: {"progress": 0, "result": False} for directory in directories},
            "query": {"argv": list(command.argv), "stdin": "", "timeout": 60.0},
        }
    )
    looked = time.process_time()
    assert reply is not None
    answer = reply["query"]
    completion = Completion(argv=command.argv, returncode=answer["returncode"], stdout=answer["stdout"])
    statuses = scheduler.parse_query(completion, ids)
    read = time.process_time()
    assert all(status.answer is Answer.ALIVE for status in statuses.values())
    return looked - begun, read - looked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--cycles", type=int, default=10)
    options = parser.parse_args()

    async def measure(folder: Path) -> list[tuple[float, float]]:
        scheduler, ids, directories = prepare(folder, options.jobs)
        transport = LocalTransport()
        return [await cycle(scheduler, transport, ids, directories) for _ in range(options.cycles)]

    with tempfile.TemporaryDirectory() as name:
        looks, reads = zip(*asyncio.run(measure(Path(name))), strict=True)
    look, read = statistics.median(looks), statistics.median(reads)
    print(
        f"{options.jobs} jobs: look {look:.3f} s, list {read:.3f} s, together {look + read:.3f} s of CPU  (goal 0.5 s)"
    )


if __name__ == "__main__":
    main()
