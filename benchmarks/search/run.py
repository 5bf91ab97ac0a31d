"""Compare search engines on paired seeds: JSON lines, then a table of regrets relative to a baseline.

    python benchmarks/search/run.py --small
    python benchmarks/search/run.py --set report --engines bo tpe-default random --seeds 15 --workers 1 8 --out runs.jsonl

What is in the output file already is not run again, so that an interrupted comparison goes on. ``bo``, ``tpe`` and
the other names are this project's samplers; ``tpe-default`` is Optuna's ``TPESampler()`` as it comes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from problems import ALL, DEVELOPMENT, REPORT, SMALL
from protocol import one_thread, search

from orchestrator.samplers import NAMES, make_sampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BASELINE = "tpe-default"
# Below this an incumbent is as good as the optimum, and a ratio of two such regrets says nothing.
FLOOR = 1e-6
SETS = {"small": SMALL, "development": DEVELOPMENT, "report": REPORT}

Key = tuple[str, str, int, int]  # engine, problem, workers, seed


def engine(name: str, seed: int) -> BaseSampler:
    return TPESampler(seed=seed) if name == BASELINE else make_sampler(name, seed=seed)


def load(path: Path) -> dict[Key, Mapping[str, Any]]:
    """Read what was run before; a last line that was cut short is passed over."""
    found: dict[Key, Mapping[str, Any]] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[row["engine"], row["problem"], row["workers"], row["seed"]] = row
    return found


def ratios(
    done: Mapping[Key, Mapping[str, Any]], name: str, problems: Sequence[str], workers: int, seeds: Sequence[int]
) -> np.ndarray:
    """Regrets of an engine and of the baseline on the same seeds, shape (2, problems, seeds)."""
    return np.array(
        [
            [[max(FLOOR, done[who, problem, workers, seed]["regret"]) for seed in seeds] for problem in problems]
            for who in (name, BASELINE)
        ]
    )


def geometric(regrets: np.ndarray) -> float:
    """Geometric mean over problems of the ratio of mean regrets."""
    mean = regrets.mean(axis=2)
    return float(np.exp(np.log(mean[0] / mean[1]).mean()))


def table(
    done: Mapping[Key, Mapping[str, Any]],
    engines: Sequence[str],
    problems: Sequence[str],
    workers: Sequence[int],
    seeds: Sequence[int],
) -> None:
    """Print relative regrets with 90 % intervals, by a bootstrap over the seeds."""
    print(f"regret relative to {BASELINE}, {len(seeds)} seeds x {len(problems)} problems (below 1 is better)")
    print(
        f"{'engine':14s}{'N':>3s}{'all':>7s}{'90 % interval':>16s}{'ms/ask':>8s}"
        + "".join(f"{p[:9]:>10s}" for p in problems)
    )
    rng = np.random.default_rng(0)
    for name, count in itertools.product(engines, workers):
        regrets = ratios(done, name, problems, count, seeds)
        drawn = [geometric(regrets[:, :, rng.integers(len(seeds), size=len(seeds))]) for _ in range(500)]
        low, high = np.quantile(drawn, [0.05, 0.95])
        cpu = 1e3 * np.mean([done[name, problem, count, seed]["cpu"] for problem in problems for seed in seeds])
        mean = regrets.mean(axis=2)
        cells = "".join(f"{a / b:10.2f}" for a, b in zip(mean[0], mean[1], strict=True))
        print(f"{name:14s}{count:3d}{geometric(regrets):7.2f}{f'{low:.2f} - {high:.2f}':>16s}{cpu:8.0f}{cells}")


def main() -> None:
    one_thread()
    parser = argparse.ArgumentParser(description="Compare search engines", epilog="see the module's first lines")
    parser.add_argument("--engines", nargs="+", default=["bo", "random"], choices=[*NAMES, BASELINE])
    parser.add_argument("--set", default="development", choices=SETS, help="problems")
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("search.jsonl"))
    parser.add_argument("--small", action="store_true", help="four problems, two seeds, 30 trials: a minute or two")
    given = parser.parse_args()
    if given.small:
        given.set, given.seeds, given.trials, given.out = "small", 2, 30, given.out.with_name("search-small.jsonl")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    engines = list(dict.fromkeys([*given.engines, BASELINE]))
    problems = list(SETS[given.set])
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    done = load(given.out)
    with given.out.open("a", encoding="utf-8") as out:
        for seed, problem, count, name in itertools.product(seeds, problems, given.workers, engines):
            key = (name, problem, count, seed)
            if key in done and len(done[key]["curve"]) == given.trials:
                continue
            made = search(ALL[problem], functools.partial(engine, name), seed=seed, workers=count, trials=given.trials)
            row = {"engine": name, "problem": problem, "workers": count, "seed": seed, **made}
            row["curve"] = [None if math.isnan(value) else value for value in made["curve"]]
            out.write(json.dumps(row) + "\n")
            out.flush()
            done[key] = row
    table(done, engines, problems, given.workers, seeds)


if __name__ == "__main__":
    main()
