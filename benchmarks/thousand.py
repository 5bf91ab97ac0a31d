"""What a thousand GPUs do for a search: the driver with up to 1,000 slots in virtual time, random search, one GPU a trial.

    python benchmarks/thousand.py --figure docs/figures/thousand

Speed-up is what the trainings take one after the other, over the time from the first trial to the last end. Prints a table; the
memory is the highest of the whole command.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from orchestrator.config.study import Study
from orchestrator.reports import canvas
from orchestrator.reports.canvas import COLOURS, MUTED
from orchestrator.reports.figures import DASHES, MARKERS
from orchestrator.simulate.study_model import Machine, simulate_arm
from orchestrator.simulate.surrogate import Expected
from orchestrator.simulate.times import parse_times

RUN_TIME = "lognormal:4h:0.4"
# Of more trials one GPU's column takes long to simulate and says nothing new.
PLAN: Mapping[int, Sequence[int]] = {
    20: (1, 10, 20, 100, 1000),
    200: (1, 10, 100, 200, 1000),
    1000: (10, 100, 1000),
    10_000: (100, 1000),
}


def study(trials: int) -> Study:
    """Nine parameters, as the aneurysm study has."""
    return Study.model_validate(
        {
            "name": "thousand",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {f"p{index}": {"type": "float", "low": 0.0, "high": 1.0} for index in range(9)},
            "sampler": {"name": "random", "seed": 1},
            "trials": trials,
            "command": ["train"],
            "resources": {"gpus": 1},
        }
    )


def training(params: Mapping[str, Any], _seed: int) -> Expected:
    """A smooth function; the run time is the machine's."""
    return Expected(metrics={"loss": sum((value - 0.3) ** 2 for value in params.values())}, seconds=None)


def main() -> None:
    """Simulate, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[*PLAN], choices=[*PLAN])
    parser.add_argument("--figure", type=Path, help="write the figure there, as .svg")
    given = parser.parse_args()
    times = parse_times(RUN_TIME, "run", "RUN_TIME")
    machine = Machine(queue_wait=parse_times("0s", "wait", "--queue-wait"), run_time=times, submits_per_minute=1e4)
    found: dict[int, list[tuple[int, float]]] = {}
    print("| trials | GPUs | speed-up | GPUs busy | CPU a trial | memory |\n| --- | --- | --- | --- | --- | --- |")
    for trials in given.trials:
        for gpus in PLAN[trials]:
            begun = time.process_time()
            arm = simulate_arm(
                study(trials), training, machine, way="asynchronous", parallel=gpus, typical=times.typical
            )
            spent = time.process_time() - begun
            work = sum(job.ended - job.started for job in arm.jobs)
            speed_up = work / max(job.ended for job in arm.jobs)
            found.setdefault(trials, []).append((gpus, speed_up))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"| {trials:,} | {gpus:,} | {speed_up:.1f} | {speed_up / gpus:.0%} | {1000 * spent / trials:.1f} ms |"
                f" {memory:.0f} MiB |",
                flush=True,
            )
    if given.figure:
        draw(found, given.figure)


def draw(found: Mapping[int, Sequence[tuple[int, float]]], stem: Path) -> None:
    """Speed-up over GPUs, a line for each number of trials, and what dividing by the GPUs promises."""
    with canvas.style("thousand"):
        figure = canvas.new_figure(3.5, 2.8)
        axes = figure.subplots()
        canvas.tidy(axes)
        axes.plot([1, 1000], [1, 1000], color=MUTED, lw=0.8, label="divided by GPUs")
        for index, (trials, points) in enumerate(found.items()):
            axes.plot(
                [gpus for gpus, _ in points],
                [speed_up for _, speed_up in points],
                color=COLOURS[index],
                ls=DASHES[index],
                marker=MARKERS[index],
                ms=3.5,
                label=f"{trials:,} trials",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
        axes.minorticks_off()
        axes.set_xlabel("GPUs")
        axes.set_ylabel("speed-up")
        axes.legend(loc="upper left")
        canvas.save(figure, stem, ["svg"])


if __name__ == "__main__":
    main()
