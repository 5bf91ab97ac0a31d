"""What the driver costs a login node: memory, CPU while it waits, CPU and store time per trial, the gap in a slot.

Runs a study of short local trials in 8 slots to its end, then extends it by long ones and watches the driver wait.

    python benchmarks/driver.py [--trials 500] [--slots 8] [--watch 60]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

PROGRAM = """#!/bin/sh
sleep "$1"
echo '{"metrics": {"loss": 0.5}}' > "$SURVEY_RESULT.part" && mv "$SURVEY_RESULT.part" "$SURVEY_RESULT"
"""


def write_study(folder: Path, trials: int, slots: int, seconds: float) -> Path:
    """A nine-parameter study whose program sleeps and writes a constant."""
    (folder / "program.sh").write_text(PROGRAM)
    (folder / "seconds").write_text(str(seconds))
    space = {f"p{index}": {"type": "float", "low": 0.0, "high": 1.0} for index in range(9)}
    path = folder / "study.yaml"
    study = {
        "schema_version": 1,
        "name": "cost",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": space,
        "sampler": {"name": "random", "seed": 1},
        "trials": trials,
        "parallel": slots,
        "command": 'sh program.sh "$(cat seconds)"',
    }
    path.write_text(yaml.safe_dump(study))
    return path


def start(folder: Path, study: Path) -> psutil.Popen:
    """A driver as a process of its own."""
    return psutil.Popen(
        [sys.executable, "-m", "orchestrator.cli.app", "-q", "run", str(study)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def events(folder: Path) -> list[dict[str, object]]:
    """The driver's own record of what happened."""
    path = folder / "runs/cost/events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count(folder: Path, name: str) -> int:
    """Number of events of one kind so far."""
    return sum(event["event"] == name for event in events(folder))


def busy(driver: psutil.Popen) -> tuple[float, float]:
    """CPU seconds of the driver itself, and of the commands it ran."""
    times = driver.cpu_times()
    return times.user + times.system, times.children_user + times.children_system


def gaps(folder: Path) -> list[float]:
    """Seconds from a program's end to the next program's start in the slot that it freed, less the ask.

    Trials are paired in the order of ends and of later starts: each end frees one slot.
    """
    import sqlite3

    connection = sqlite3.connect(folder / "runs/cost/study.db")
    rows = connection.execute("select value_json from trial_user_attributes where key = 'outcome'").fetchall()
    asks = connection.execute("select value_json from trial_user_attributes where key = 'ask_seconds'").fetchall()
    connection.close()
    outcomes = [json.loads(row[0]) for row in rows]
    ask = statistics.median(float(row[0]) for row in asks)
    ends = sorted(outcome["ended"] for outcome in outcomes)
    starts = sorted(outcome["started"] for outcome in outcomes)
    slots = sum(begun < ends[0] for begun in starts)
    return [begun - end - ask for end, begun in zip(ends, starts[slots:], strict=False)]


def main() -> None:
    """Run the study, watch the driver, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--watch", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driver = start(folder, write_study(folder, options.trials, options.slots, 0.1))
        while driver.poll() is None and not count(folder, "told"):
            time.sleep(0.1)
        own, children = busy(driver)
        told, largest = count(folder, "told"), 0
        last = (own, children)
        while driver.poll() is None:
            try:
                last, largest = busy(driver), max(largest, driver.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        ran = options.trials - told
        print(f"trials {options.trials}, slots {options.slots}, exit code {driver.wait()}")
        print(f"driver CPU per trial     {1000 * (last[0] - own) / ran:7.1f} ms  (goal 20)")
        print(f"  of commands it ran     {1000 * (last[1] - children) / ran:7.1f} ms")
        found = gaps(folder)
        print(f"gap in a slot, median    {statistics.median(found):7.3f} s   (goal 0.3)")
        print(f"gap in a slot, 90 %      {sorted(found)[int(0.9 * len(found))]:7.3f} s")
        driver = start(folder, write_study(folder, options.trials + options.slots, options.slots, options.watch + 60))
        while count(folder, "submitted") < options.trials + options.slots:
            time.sleep(0.2)
        time.sleep(15)
        own, children = busy(driver)
        begun = time.monotonic()
        time.sleep(options.watch)
        now, commands = busy(driver)
        seconds = time.monotonic() - begun
        print(f"CPU while waiting        {100 * (now - own) / seconds:7.2f} % of a core  (goal 1)")
        print(f"  of commands it ran     {100 * (commands - children) / seconds:7.2f} % of a core")
        largest = max(largest, driver.memory_info().rss)
        print(f"resident                 {largest / 2**20:7.0f} MB  (goal 200)")
        driver.kill()


if __name__ == "__main__":
    main()
