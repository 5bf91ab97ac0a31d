"""The same asynchronous study of sleeping trials, driven in four ways; each runs in a process of its own.

    python contenders.py hand|submitit|dask|ours FOLDER --trials N --seconds S --slots K

prints one line of JSON: makespan, CPU seconds of the driver after its start-up, its largest memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["CONTENDERS", "Plan"]

_PAUSE = 0.2
_LOOK = 0.05  # at files alone, which costs the scheduler nothing

# Reads the time that a trial takes from a file, so that the study's definition is the same for all.
_PROGRAM = """#!/bin/sh
sleep "$1"
echo '{"metrics": {"loss": 0.5}}' > "$SURVEY_RESULT.part" && mv "$SURVEY_RESULT.part" "$SURVEY_RESULT"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run, and where files go."""

    folder: Path
    trials: int
    seconds: float
    slots: int


class Meter:
    """Time and CPU of this process from `begin` on."""

    def begin(self) -> None:
        """Start-up is over: the next thing is the first submit."""
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def reading(self) -> dict[str, float]:
        """Makespan and CPU time in seconds, peak memory in MiB."""
        return {
            "makespan": time.perf_counter() - self._begun,
            "cpu": time.process_time() - self._cpu,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def hand(plan: Plan, meter: Meter) -> None:
    """Run ``sbatch`` for each trial and ``squeue`` every 0.2 s, as one writes it on the first day."""
    meter.begin()
    running: set[str] = set()
    for number in range(plan.trials + plan.slots):
        while len(running) >= plan.slots or (running and number >= plan.trials):
            time.sleep(_PAUSE)
            running &= set(_output("squeue", "--me", "-h", "-o", "%A").split())
        if number < plan.trials:
            result = plan.folder / f"result-{number}"
            command = f"sleep {plan.seconds}; echo 0.5 > {result}"
            running.add(_output("sbatch", "--parsable", f"--output={plan.folder}/%j.log", f"--wrap={command}").strip())
    results = [float((plan.folder / f"result-{number}").read_text()) for number in range(plan.trials)]
    assert len(results) == plan.trials


def submitit(plan: Plan, meter: Meter) -> None:
    """Futures of submitit, asked in turn every 0.2 s."""
    executor = import_module("submitit").SlurmExecutor(folder=plan.folder)
    executor.update_parameters(time=10, mem="100M")
    meter.begin()
    running: list[Any] = []
    done = submitted = 0
    while done < plan.trials:
        while len(running) < plan.slots and submitted < plan.trials:
            running.append(executor.submit(_sleep, plan.seconds))
            submitted += 1
        for job in [job for job in running if job.done()]:
            assert job.result() == 0.5
            running.remove(job)
            done += 1
        time.sleep(_PAUSE)


def dask(plan: Plan, meter: Meter) -> None:
    """Pilot jobs: one worker a slot, which runs trial after trial and needs no further submit."""
    distributed, jobqueue = import_module("dask.distributed"), import_module("dask_jobqueue")
    meter.begin()
    with (
        jobqueue.SLURMCluster(
            cores=1,
            processes=1,
            memory="400MB",
            walltime="00:30:00",
            python=sys.executable,
            interface="lo",
            log_directory=str(plan.folder),
            local_directory=str(plan.folder),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.scale(jobs=plan.slots)
        first = [client.submit(_sleep, plan.seconds, pure=False) for _ in range(min(plan.slots, plan.trials))]
        ended = distributed.as_completed(first)
        submitted = len(first)
        for future in ended:
            assert future.result() == 0.5
            if submitted < plan.trials:
                ended.add(client.submit(_sleep, plan.seconds, pure=False))
                submitted += 1


def ours(plan: Plan, meter: Meter) -> None:
    """Run a study of one job a trial, as `survey run --site` does, looking at files every 0.05 s, with leave for a query every two seconds."""
    import yaml

    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.search.driver import run_study

    (plan.folder / "program.sh").write_text(_PROGRAM)
    study = {
        "schema_version": 1,
        "name": "sleep",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 1},
        "trials": plan.trials,
        "parallel": plan.slots,
        "command": ["sh", "program.sh", str(plan.seconds)],
    }
    site = {
        "schema_version": 1,
        "name": "benchmark",
        "extends": "slurm",
        "python": sys.executable,  # what `python3` means may be a wrapper that takes longer than the agent
        "poll": {"look": _LOOK, "query_min": 2, "query_max": 10},
        "limits": {"submits_per_minute": 6000, "queries_per_minute": 30},
    }
    for name, data in (("study", study), ("site", site)):
        (plan.folder / f"{name}.yaml").write_text(yaml.safe_dump(data))

    def listen(event: Any) -> None:
        if event["event"] == "started":
            meter.begin()

    root = plan.folder / "runs"
    record = asyncio.run(
        run_study(
            Study.load(plan.folder / "study.yaml"),
            load_site(plan.folder / "site.yaml"),
            root,
            origin=plan.folder,
            on_event=listen,
        )
    )
    assert len(record.finished) == plan.trials


CONTENDERS: dict[str, Callable[[Plan, Meter], None]] = {"hand": hand, "submitit": submitit, "dask": dask, "ours": ours}


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return 0.5


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--slots", type=int, required=True)
    options = parser.parse_args()
    plan = Plan(folder=options.folder, trials=options.trials, seconds=options.seconds, slots=options.slots)
    meter = Meter()
    CONTENDERS[options.contender](plan, meter)
    print(json.dumps(meter.reading()))


if __name__ == "__main__":
    main()
