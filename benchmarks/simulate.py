"""What a simulated trial costs: CPU of the driver, the store and the emulated cluster, beside the sampler's; memory.

python benchmarks/simulate.py                                  # 50 trials of each of several numbers of slots
python benchmarks/simulate.py --trials 10000 --parallel 1000   # random search on a thousand GPUs
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from orchestrator.config.study import Study
from orchestrator.search.asking import Asker
from orchestrator.simulate.study_model import Machine, Way, simulate_arm
from orchestrator.simulate.surrogate import Expected
from orchestrator.simulate.times import parse_times


def study(sampler: str, trials: int) -> Study:
    """Nine parameters, as the aneurysm study has."""
    return Study.model_validate(
        {
            "name": "cost",
            "objective": {"metric": "loss", "direction": "minimize"},
            "space": {f"p{index}": {"type": "float", "low": 0.0, "high": 1.0} for index in range(9)},
            "sampler": {"name": sampler, "seed": 1},
            "trials": trials,
            "command": ["train"],
            "resources": {"gpus": 1},
        }
    )


def training(params: Mapping[str, Any], seed: int) -> Expected:
    """A smooth function, and a run time of half an hour to two hours."""
    loss = sum((value - 0.3) ** 2 for value in params.values())
    return Expected(metrics={"loss": loss}, seconds=random.Random(seed).uniform(1800.0, 7200.0))


def watch_asks() -> list[float]:
    """CPU seconds of each ask from now on: the sampler, and the write of the new trial."""
    spent: list[float] = []
    ask = Asker._ask_now  # noqa: SLF001 - measured from outside, so that the product carries no stopwatch

    def timed(asker: Asker) -> Any:
        begun = time.process_time()
        asked = ask(asker)
        spent.append(time.process_time() - begun)
        return asked

    Asker._ask_now = timed  # type: ignore[method-assign, assignment]  # noqa: SLF001
    return spent


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--ways", nargs="+", default=["asynchronous"])
    parser.add_argument("--profile", type=Path, help="write a profile of the last arm here, for pstats")
    options = parser.parse_args()
    asks = watch_asks()
    machine = Machine(queue_wait=parse_times("lognormal:30m:1.2", "wait", "--queue-wait"), submits_per_minute=1e4)
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {options.trials} trials of sampler {options.sampler}")
    plan: list[tuple[Way, int]] = [(way, parallel) for parallel in options.parallel for way in options.ways]
    # The first study imports what all of them use.
    simulate_arm(study("random", 4), training, machine, way="asynchronous", parallel=2, typical=4500.0)
    for way, parallel in plan:
        asks.clear()
        profiler = None
        if options.profile and (way, parallel) == plan[-1]:
            import cProfile

            profiler = cProfile.Profile()
            profiler.enable()
        begun, wall = time.process_time(), time.monotonic()
        arm = simulate_arm(
            study(options.sampler, options.trials), training, machine, way=way, parallel=parallel, typical=4500.0
        )
        spent = time.process_time() - begun
        if profiler:
            profiler.disable()
            profiler.dump_stats(options.profile)
        last = max(job.ended for job in arm.jobs)
        print(
            f"{way:12} N = {parallel:4}  {1000 * (spent - sum(asks)) / options.trials:6.2f} ms of CPU a trial"
            f" + {1000 * sum(asks) / options.trials:7.2f} ms asking; {time.monotonic() - wall:6.1f} s,"
            f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:5.0f} MiB; {last / 3600:8.1f} simulated hours",
            flush=True,
        )


if __name__ == "__main__":
    main()
