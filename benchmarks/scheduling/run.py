"""How well one job a trial fills the slots of a Slurm: ours beside a hand-written loop, submitit and dask-jobqueue.

Each drives the same asynchronous study of sleeping trials, one after the other in one run. Printed for each: the
makespan over the ideal one (trials x seconds / slots), the commands it gave the scheduler, what the driver cost.

    python benchmarks/scheduling/run.py [--trials 48] [--seconds 3] [--slots 6] [--only hand ours] [--folder DIR]

It needs Slurm's commands, and a folder that its compute nodes see (--folder; the current one if not given).
submitit and dask-jobqueue take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from contenders import CONTENDERS

_NEEDS = {"submitit": "submitit", "dask": "dask_jobqueue"}
_QUERIES = ("squeue", "sacct", "scontrol", "sinfo")
_PATIENCE = 5.0
_COMMANDS = ("sbatch", "scancel", *_QUERIES)


def count_commands(folder: Path) -> Path:
    """Put wrappers of Slurm's commands into ``folder`` that note each call; returns the notes' file."""
    notes = folder / "calls"
    notes.touch()
    for name in _COMMANDS:
        real = shutil.which(name)
        if real is None:
            sys.exit(f"there is no {name} here: this benchmark runs on a machine with Slurm")
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> "{notes}"\nexec "{real}" "$@"\n')
        wrapper.chmod(0o700)
    return notes


def run(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Run one contender in a process of its own and print its line."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    notes = count_commands(commands)
    work = folder / "work"
    work.mkdir()
    argv = [sys.executable, str(Path(__file__).with_name("contenders.py")), name, str(work)]
    argv += ["--trials", str(options.trials), "--seconds", str(options.seconds), "--slots", str(options.slots)]
    ideal = options.trials * options.seconds / options.slots
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
            check=False,
            timeout=_PATIENCE * ideal,
        )
    except subprocess.TimeoutExpired:
        print(f"{name:10} had not ended after {_PATIENCE:g} times the ideal makespan")
        return
    if done.returncode:
        print(f"{name:10} failed: {(folder / 'stderr').read_text().strip().splitlines()[-1:]}")
        return
    reading = json.loads(done.stdout.splitlines()[-1])
    calls = Counter(notes.read_text().split())
    queries = sum(calls[command] for command in _QUERIES)
    every = reading["makespan"] / queries if queries else float("inf")
    print(
        f"{name:10} {reading['makespan']:9.1f} {reading['makespan'] / ideal:7.3f} {queries:8d} {every:10.2f} "
        f"{1000 * reading['cpu'] / options.trials:10.1f} {reading['memory']:7.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--slots", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=sorted(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    options = parser.parse_args()
    ideal = options.trials * options.seconds / options.slots
    print(
        f"{options.trials} trials of {options.seconds:g} s in {options.slots} slots: ideal {ideal:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':10} {'makespan':>9} {'/ideal':>7} {'queries':>8} {'s a query':>10} {'CPU ms/tr':>10} {'MiB':>7}")
    for name in options.only:
        library = _NEEDS.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            print(f"{name:10} {library} is not installed")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="scheduling-") as folder:
            run(name, options, Path(folder))


if __name__ == "__main__":
    main()
