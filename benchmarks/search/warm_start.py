"""Does an earlier study help, and does an unrelated one harm? Regret after 15 trials, warm over cold, on paired seeds.

    python benchmarks/search/warm_start.py --seeds 10 --figure warm-start.svg      # the tables in docs/warm-start.md
    python benchmarks/search/warm_start.py --seeds 10 --draw-only

Each source is a search of 40 trials by Optuna's ``TPESampler()`` on another problem than the one that is solved: a related one
(shifted, in other units, noisier, on a part of the data), or an unrelated one (reversed values, noise alone, another optimum).
What is in the output file already is not run again.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import problems as known
import tunings
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import BaseTrial, TrialState
from paired import Key, relative
from protocol import SIGMA, luck, one_thread

from orchestrator.samplers import BOSampler
from orchestrator.samplers.transfer import Source

TRIALS, EARLIER, FIRST_SEED, SPACE_DRAWS = 15, 40, 3000, 40
ROOT = Path(__file__).resolve().parents[2]
Objective = Callable[[BaseTrial], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A problem, and the one that was searched before; noise is the standard deviation of what an observation adds."""

    source: Objective
    target: Objective
    source_noise: float = 0.0
    noise: float = 0.0
    best: float = 0.0


def scaled(objective: Objective, offset: float, factor: float) -> Objective:
    return lambda trial: offset + factor * objective(trial)


def hartmann6(shift: float) -> Objective:
    def objective(trial: BaseTrial) -> float:
        x = np.array([trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(6)]) + shift
        distances = (known.HARTMANN_A * (x - known.HARTMANN_P) ** 2).sum(axis=1)
        return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-distances))

    return objective


def nothing(objective: Objective) -> Objective:
    """The same space, and no objective: what is observed is noise."""

    def flat(trial: BaseTrial) -> float:
        objective(trial)
        return 0.0

    return flat


@contextmanager
def _part_of_data(share: float) -> Iterator[None]:
    whole = tunings._data  # noqa: SLF001 - the tunings' own data, made smaller

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        X, y = whole(name)
        rows = np.random.default_rng(5).permutation(len(X))[: int(share * len(X))]
        return X[rows], y[rows]

    tunings._data = part  # type: ignore[assignment]  # noqa: SLF001
    try:
        yield
    finally:
        tunings._data = whole  # noqa: SLF001


def on_part(objective: Objective, share: float) -> Objective:
    def smaller(trial: BaseTrial) -> float:
        with _part_of_data(share):
            return objective(trial)

    return smaller


@cache
def _trainings(seed: int) -> tuple[Any, Any, float]:
    """Space, surrogate and best value of the table of aneurysm trainings with one seed."""
    from orchestrator.config.study import Study
    from orchestrator.simulate.surrogate import Neighbours
    from orchestrator.simulate.table import Table, read_table

    study = Study.load(ROOT / "examples/aneurysm/study.yaml")
    table = read_table(ROOT / "benchmarks/tables/aneurysm-1-of-1.jsonl", study)
    rows, seen = [], dict[str, int]()
    for row in table.rows:
        key = json.dumps(dict(row.params), sort_keys=True)
        if seen.setdefault(key, 0) == seed:
            rows.append(row)
        seen[key] += 1
    best = max(row.metrics["pauc"] for row in rows if row.metrics is not None)
    return study.space, Neighbours(Table(rows=tuple(rows), place=""), study.space, "pauc"), best


def aneurysm(seed: int) -> Objective:
    def objective(trial: BaseTrial) -> float:
        from orchestrator.search.space import suggest

        space, surrogate, best = _trainings(seed)
        asked: Any = trial
        expected = surrogate.expect(suggest(space, asked), 0)
        return math.nan if expected.metrics is None else float(best - expected.metrics["pauc"])

    return objective


TRAINING, NET = known.training(-3.0, 4.0, 0.25), known.architecture(3, -3.0, "dropout")
TARGETS: Mapping[str, dict[str, Any]] = {
    "training9": {"target": TRAINING, "noise": 0.01},
    "architecture17": {"target": NET, "noise": 0.01},
    "hartmann6": {"target": hartmann6(0.0), "best": -3.32236801141551},
    "ackley5": {"target": known.ackley(5, 0.0)},
    "svc_cancer": {"target": tunings.svc_cancer, "best": 0.0158},
    "svr_diabetes": {"target": tunings.svr_diabetes, "best": 0.477},
    "aneurysm": {"target": aneurysm(1)},
}
RELATED: Mapping[str, Pair] = {
    "training9, shifted, other unit": Pair(
        source=scaled(known.training(-3.3, 5.0, 0.35), 1.0, 3.0), source_noise=0.1, **TARGETS["training9"]
    ),
    "architecture17, shifted, noisy": Pair(
        source=known.architecture(3, -3.4, "dropout"), source_noise=0.03, **TARGETS["architecture17"]
    ),
    "hartmann6, shifted, other unit": Pair(
        source=scaled(hartmann6(0.06), 5.0, 2.0), source_noise=0.1, **TARGETS["hartmann6"]
    ),
    "ackley5, shifted, noisy": Pair(source=known.ackley(5, 1.5), source_noise=0.5, **TARGETS["ackley5"]),
    "svc_cancer on 20 % of the data": Pair(source=on_part(tunings.svc_cancer, 0.2), **TARGETS["svc_cancer"]),
    "svr_diabetes on 25 % of the data": Pair(source=on_part(tunings.svr_diabetes, 0.25), **TARGETS["svr_diabetes"]),
    "aneurysm, another seed": Pair(source=aneurysm(0), **TARGETS["aneurysm"]),
}
UNRELATED: Mapping[str, Pair] = {
    "training9, reversed": Pair(source=scaled(TRAINING, 0.0, -1.0), source_noise=0.01, **TARGETS["training9"]),
    "training9, the worst of another": Pair(
        source=scaled(known.training(-1.0, 7.0, 0.6), 0.0, -1.0), source_noise=0.01, **TARGETS["training9"]
    ),
    "architecture17, noise alone": Pair(source=nothing(NET), source_noise=1.0, **TARGETS["architecture17"]),
    "hartmann6, reversed": Pair(source=scaled(hartmann6(0.0), 0.0, -1.0), **TARGETS["hartmann6"]),
    "ackley5, reversed": Pair(source=scaled(known.ackley(5, 0.0), 0.0, -1.0), **TARGETS["ackley5"]),
    "svc_cancer, reversed": Pair(source=scaled(tunings.svc_cancer, 0.0, -1.0), **TARGETS["svc_cancer"]),
    "svr_diabetes, noise alone": Pair(
        source=nothing(tunings.svr_diabetes), source_noise=1.0, **TARGETS["svr_diabetes"]
    ),
    "aneurysm, reversed": Pair(source=scaled(aneurysm(0), 0.0, -1.0), **TARGETS["aneurysm"]),
}
ALL: Mapping[str, Pair] = {**RELATED, **UNRELATED}


@cache
def scale(objective: Objective) -> float:
    """Median value of random configurations that do not diverge."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    return float(np.nanmedian([objective(study.ask()) for _ in range(150)]))


def space_of(objective: Objective) -> dict[str, Any]:
    """All parameters that the objective may ask for, as study.yaml would give them."""
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    found: dict[str, Any] = {}
    for _ in range(SPACE_DRAWS):
        trial = study.ask()
        objective(trial)
        found |= trial.distributions
    return found


def earlier(pair: Pair, seed: int) -> Source:
    """The history of the earlier search."""
    study = optuna.create_study(sampler=TPESampler(seed=seed + 5000))
    for index in range(EARLIER):
        trial = study.ask()
        value = pair.source(trial)
        if math.isnan(value):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value + pair.source_noise * luck(seed + 777, index)[1])
    values = tuple(math.nan if trial.value is None else trial.value for trial in study.trials)
    return Source(tuple(trial.params for trial in study.trials), values)


def search(pair: Pair, source: Source | None, *, seed: int, workers: int) -> list[float]:
    """Regret after each trial, as a fraction of the median random configuration's."""
    # The random values that a cold study begins with depend on the seed alone: a warm one has every other of them.
    study = optuna.create_study(sampler=BOSampler(seed=seed, space=space_of(pair.target), source=source))
    running: list[tuple[float, int, optuna.Trial, float]] = []
    now, asked, seen, incumbent = 0.0, 0, math.inf, math.nan
    curve: list[float] = []
    median = scale(pair.target)
    while asked < TRIALS or running:
        while asked < TRIALS and len(running) < workers:
            trial = study.ask()
            value = pair.target(trial)
            heapq.heappush(running, (now + math.exp(SIGMA * luck(seed, asked)[0]), asked, trial, value))
            asked += 1
        now, index, trial, value = heapq.heappop(running)
        if math.isnan(value):
            study.tell(trial, state=TrialState.FAIL)
        else:
            observed = value + pair.noise * luck(seed, index)[1]
            study.tell(trial, observed)
            if observed < seen:
                seen, incumbent = observed, value
        curve.append((incumbent - pair.best) / (median - pair.best))
    return curve


def load(path: Path) -> dict[Key, Mapping[str, Any]]:
    found: dict[Key, Mapping[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row = json.loads(text)
        found[row["engine"], row["problem"], row["workers"], row["seed"]] = row
    return found


def run(path: Path, names: Sequence[str], seeds: Sequence[int], workers: Sequence[int]) -> None:
    """Run what ``path`` lacks."""
    done = load(path)
    colds: dict[tuple[Objective, int, int], list[float]] = {}
    with path.open("a", encoding="utf-8") as out:
        for seed in seeds:
            for name in names:
                missing = [count for count in workers if ("warm", name, count, seed) not in done]
                source = earlier(ALL[name], seed) if missing else None
                for count in missing:
                    key = (ALL[name].target, count, seed)
                    if key not in colds:
                        kept = done.get(("cold", name, count, seed))
                        colds[key] = kept["curve"] if kept else search(ALL[name], None, seed=seed, workers=count)
                    curves = {"cold": colds[key], "warm": search(ALL[name], source, seed=seed, workers=count)}
                    for engine, curve in curves.items():
                        row = {"engine": engine, "problem": name, "workers": count, "seed": seed, "regret": curve[-1]}
                        out.write(json.dumps({**row, "curve": [round(each, 9) for each in curve]}) + "\n")
                    out.flush()
                    print(
                        f"{name} N={count} seed {seed}: {curves['warm'][-1]:.4f} / {curves['cold'][-1]:.4f}", flush=True
                    )


def tables(done: Mapping[Key, Mapping[str, Any]], workers: Sequence[int]) -> str:
    """Regret after the last trial, warm over cold, by problem and in the geometric mean."""
    lines = [
        "| source | " + " | ".join(f"N = {count}" for count in workers) + " |",
        "|" + " --- |" * (1 + len(workers)),
    ]
    for kind, names in (("related", RELATED), ("unrelated", UNRELATED)):
        found = [relative(done, "warm", "cold", list(names), count) for count in workers]
        for name in names:
            cells = [f"{each.problems[name]:.2f}" if each and name in each.problems else "" for each in found]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        cells = [f"**{each.value:.2f}** ({each.low:.2f} - {each.high:.2f})" if each else "" for each in found]
        lines.append(f"| **{kind}, geometric mean** | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_curve(done: Mapping[Key, Mapping[str, Any]], engine: str, name: str, workers: int) -> np.ndarray | None:
    """Mean regret after each trial; before the first that did not fail a search has that of a median random trial."""
    curves = [row["curve"] for key, row in done.items() if key[:3] == (engine, name, workers)]
    if not curves:
        return None
    filled = np.nan_to_num(np.array(curves, dtype=float), nan=1.0)
    return np.asarray(np.maximum(1e-6, filled.mean(axis=0)))


def figure(done: Mapping[Key, Mapping[str, Any]], workers: Sequence[int], path: Path) -> None:
    """Geometric mean of the regret, relative to the cold one at the end, against the trial."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "warm"
    drawn, axes = plt.subplots(1, 2, sharey=True, figsize=(8.4, 3.3))
    colors = {1: "tab:blue", 4: "tab:orange", 8: "tab:green"}
    for axis, (title, names) in zip(axes, (("related source", RELATED), ("unrelated source", UNRELATED)), strict=True):
        for count in workers:
            for engine, style in (("cold", "--"), ("warm", "-")):
                means = [mean for name in names if (mean := _mean_curve(done, engine, name, count)) is not None]
                if means:
                    together = np.exp(np.mean(np.log(means), axis=0))
                    label = f"{engine}, N = {count}"
                    axis.plot(np.arange(1, TRIALS + 1), together, style, color=colors[count], label=label)
        axis.set_title(title)
        axis.set_xlabel("trials ended")
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("regret / that of a median random trial")
    axes[1].legend(fontsize=8)
    drawn.tight_layout()
    drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    one_thread()
    parser = argparse.ArgumentParser(description="Warm against cold starts", epilog="see the module's first lines")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--problems", nargs="+", help="some only", choices=[*ALL])
    parser.add_argument("--out", type=Path, default=Path("warm-start.jsonl"))
    parser.add_argument("--draw-only", action="store_true", help="tables and figure of what is there already")
    parser.add_argument("--figure", type=Path, help="write the figure there (.svg or .png)")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not given.draw_only:
        seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
        run(given.out, given.problems or list(ALL), seeds, given.workers)
    done = load(given.out)
    print(f"\n{tables(done, given.workers)}")
    if given.figure:
        figure(done, given.workers, given.figure)


if __name__ == "__main__":
    main()
