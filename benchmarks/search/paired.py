"""What the comparison says: regrets of engines relative to another's on the same seeds, with intervals.

The number is a geometric mean over problems; of each problem, the ratio of the two engines' mean regrets over the
seeds that both have run. Intervals are by a bootstrap that draws problems, and of each problem seeds, always of both
engines together: 90 % of the drawn numbers lie within. So they speak of problems like these, and not of these alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["COARSE", "FLOOR", "Key", "Relative", "relative"]

Key = tuple[str, str, int, int]  # engine, problem, workers, seed

# Below this share of the median random regret an incumbent is as good as the optimum, and a ratio says nothing.
FLOOR = 1e-6
# For a user a thousandth is as good: with this floor no problem that one engine solves exactly rules the mean.
COARSE = 1e-3
NOTHING = 1.0  # regret of a search in which no trial succeeded: the median random configuration's
DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """One engine's regret relative to another's.

    Attributes
    ----------
    value, low, high : float
        Geometric mean over the problems and its interval; below 1 the engine is better.
    problems : mapping of str to float
        The ratio of each problem.
    runs : int
        Pairs of searches that went into it.
    """

    value: float
    low: float
    high: float
    problems: Mapping[str, float]
    runs: int

    def of(self, names: Iterable[str]) -> float:
        """Geometric mean over some of the problems; nan where none of them was run."""
        ratios = [self.problems[name] for name in names if name in self.problems]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def relative(
    done: Mapping[Key, Mapping[str, Any]],
    engine: str,
    other: str,
    problems: Sequence[str],
    workers: int,
    *,
    floor: float = FLOOR,
) -> Relative | None:
    """Compare two engines on what both have run, regrets below ``floor`` counted as that; None where it is nothing."""
    pairs: dict[str, np.ndarray] = {}
    for problem in problems:
        seeds = sorted(seed for who, what, count, seed in done if (who, what, count) == (engine, problem, workers))
        both = [seed for seed in seeds if (other, problem, workers, seed) in done]
        if both:
            pairs[problem] = np.array(
                [[_regret(done[who, problem, workers, seed], floor) for seed in both] for who in (engine, other)]
            )
    if not pairs:
        return None
    rng = np.random.default_rng(0)
    by_problem = np.array([np.log(_redrawn(regrets, rng)) for regrets in pairs.values()])
    # A problem that is drawn twice has seeds of its own each time.
    chosen, draws = rng.integers(len(pairs), size=(len(pairs), DRAWS)), rng.integers(DRAWS, size=(len(pairs), DRAWS))
    low, high = np.exp(np.quantile(by_problem[chosen, draws].mean(axis=0), [0.05, 0.95]))
    ratios = {problem: float(regrets[0].mean() / regrets[1].mean()) for problem, regrets in pairs.items()}
    return Relative(
        value=math.exp(sum(map(math.log, ratios.values())) / len(ratios)),
        low=float(low),
        high=float(high),
        problems=ratios,
        runs=sum(regrets.shape[1] for regrets in pairs.values()),
    )


def _regret(row: Mapping[str, Any], floor: float) -> float:
    regret = row["regret"]
    return NOTHING if regret is None or math.isnan(regret) else max(floor, regret)


def _redrawn(regrets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ratios of mean regrets over seeds drawn anew, `DRAWS` of them."""
    count = regrets.shape[1]
    first, second = regrets[:, rng.integers(count, size=(DRAWS, count))].mean(axis=2)
    return np.asarray(first / second)
