"""Statistics of a comparison: several studies run as one experiment on paired seeds.

Each arm is one study: a sampler at a parallelism, in one repeat. Repeat r has the same seed in all
arms, so an arm is compared with the baseline repeat by repeat. A gain is positive where the arm is
better than the baseline, whichever way the objective is optimised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UsageError
from orchestrator.reports.curves import Band, best_so_far, mean_band, sign, t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.record import StudyRecord

__all__ = ["Arm", "ComparisonResult", "Gain", "Row", "compare"]

Array: TypeAlias = NDArray[np.float64]
Group: TypeAlias = tuple[str, int]

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One study of a comparison.

    Attributes
    ----------
    label : str
        The arm's own name, for messages.
    sampler : str
        What the arm's row is called: the sampler's name, or a label where two have different options.
    repeat : int
        Arms with the same repeat ran on the same seed.
    """

    label: str
    sampler: str
    parallel: int
    repeat: int
    record: StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Paired difference to the baseline, positive where the arm is better.

    Attributes
    ----------
    n : int
        Repeats that have a value in both arms.
    wins : int
        Repeats in which the arm is strictly better.
    t, bootstrap : (float, float) or None
        Confidence interval of the mean difference; None below two repeats.
    """

    n: int
    mean: float | None
    wins: int
    t: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    level: float

    @property
    def words(self) -> str:
        """The gain in a table's cell."""
        if self.mean is None:
            return "no repeat to compare"
        if self.t is None:
            return f"{self.mean:+.4g} (one repeat: no interval)"
        return f"{self.mean:+.4g} [{self.t[0]:+.4g}, {self.t[1]:+.4g}], n={self.n}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sampler at one parallelism, over its repeats.

    Attributes
    ----------
    repeats : int
        Repeats with a value; mean, median and SD (n - 1) are theirs.
    reach : float or None
        Median number of trials to be as good as the baseline's mean final best, over the
        ``reached`` repeats that got there.
    area : float or None
        Mean over trials of the best so far, then over repeats: what a search stopped at a random
        moment would have. Trials before the first value count with that first value.
    hours : float or None
        Mean wall-clock hours to the last trial compared, where all repeats have times.
    gain : Gain or None
        None for the baseline itself, and where there is no baseline.
    """

    sampler: str
    parallel: int
    repeats: int
    mean: float | None
    sd: float | None
    median: float | None
    reach: float | None
    reached: int
    area: float | None
    hours: float | None
    gain: Gain | None
    finals: tuple[float | None, ...]
    band: Band | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonResult:
    """What `compare` found.

    Attributes
    ----------
    trials : int
        All arms are compared after this many trials: the number that the slowest arm has ended.
    target : float or None
        The baseline's mean final best.
    left_out : tuple of str
        Arms in which no trial has ended.
    """

    objective: str
    direction: str
    baseline: str
    trials: int
    target: float | None
    rows: tuple[Row, ...]
    level: float = 0.95
    left_out: tuple[str, ...] = ()

    def gain_words(self, row: Row) -> str:
        """Say a row's gain over the baseline, for a table's cell."""
        if row.gain is None:
            return "baseline" if row.sampler == self.baseline else f"no {self.baseline} to compare with"
        return row.gain.words

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows for a table or a CSV file; None where there is nothing to say."""
        return [{**_flat(row), "note": self.gain_words(row)} for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dump``, curves included (None where a curve has no value yet)."""
        return {
            "objective": self.objective,
            "direction": self.direction,
            "baseline": self.baseline,
            "trials": self.trials,
            "target": self.target,
            "level": self.level,
            "left_out": list(self.left_out),
            "rows": [
                {**flat, "finals": list(row.finals), "band": None if row.band is None else _band(row.band)}
                for row, flat in zip(self.rows, self.to_rows(), strict=True)
            ],
        }

    def to_markdown(self) -> str:
        """Write a table for a README or a paper's notes, with a sentence that says how to read it."""
        head = (
            "sampler",
            "N",
            "mean",
            "SD",
            "median",
            "trials to target",
            "area",
            "hours",
            f"gain over {self.baseline}",
        )
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        lines += [
            " | ".join(
                (
                    _cell(row.sampler),
                    str(row.parallel),
                    _number(row.mean),
                    _number(row.sd),
                    _number(row.median),
                    f"{_number(row.reach)} ({row.reached}/{row.repeats})",
                    _number(row.area),
                    _number(row.hours),
                    self.gain_words(row),
                )
            )
            for row in self.rows
        ]
        table = "\n".join(f"| {line} |" for line in lines)
        left_out = f" Without an ended trial, left out: {', '.join(self.left_out)}." if self.left_out else ""
        return (
            f"{table}\n\nBest {self.objective} ({self.direction}) after {self.trials} trials. Target: the mean final "
            f"best of {self.baseline}, {_number(self.target)}. Gain: mean paired difference, positive is better, with "
            f"its {self.level:.0%} t interval.{left_out}\n"
        )


def compare(arms: Sequence[Arm], *, baseline: str = "random", level: float = 0.95) -> ComparisonResult:
    """Compare arms with each other and, repeat by repeat, with the baseline.

    Parameters
    ----------
    baseline : str
        Sampler of the arms to compare with. Where it ran at several parallelisms, an arm
        is compared with the baseline of its own, else with the baseline's first.
    level : float
        Of the confidence intervals.

    Raises
    ------
    UsageError
        If there is no arm, a study has several objectives, arms differ in theirs, or two arms are the same repeat.
    """
    if not arms:
        raise UsageError("a comparison needs at least one arm")
    if (most := max(len(arm.record.objectives) for arm in arms)) > 1:
        raise UsageError(
            f"a comparison compares one objective, and these studies have {most}",
            hint="compare on each objective alone, or compare the fronts that `survey export` marks",
        )
    goals = {(arm.record.objectives[0], arm.record.directions[0]) for arm in arms}
    if len(goals) > 1:
        listed = ", ".join(f"{name} ({direction})" for name, direction in sorted(goals))
        raise UsageError(
            f"the studies have different objectives: {listed}", hint="compare studies of the same first objective"
        )
    (objective, direction), *_ = goals
    curves: dict[Group, dict[int, Array]] = {}
    left_out = []
    for arm in arms:
        repeats = curves.setdefault((arm.sampler, arm.parallel), {})
        if arm.repeat in repeats:
            raise UsageError(
                f"{arm.label} is a second study of {arm.sampler} with N={arm.parallel} for repeat {arm.repeat}",
                hint="give each sampler and each repeat a name of its own",
            )
        y = best_so_far(arm.record)[1]
        if len(y):
            repeats[arm.repeat] = y
        else:
            left_out.append(arm.label)
    trials = min((len(y) for repeats in curves.values() for y in repeats.values()), default=0)
    cut = {group: {repeat: y[:trials] for repeat, y in sorted(repeats.items())} for group, repeats in curves.items()}
    finals = {group: {repeat: float(y[-1]) for repeat, y in repeats.items()} for group, repeats in cut.items()}

    bases = [group for group in finals if group[0] == baseline]
    base_finals = [value for group in bases for value in finals[group].values() if np.isfinite(value)]
    target = float(np.mean(base_finals)) if base_finals else None
    order = {arm.sampler: index for index, arm in reversed(list(enumerate(arms)))}
    rows = []
    for group in sorted(finals, key=lambda group: (group not in bases, order[group[0]], group[1])):
        same = [base for base in bases if base[1] == group[1]] or bases
        against = finals[same[0]] if same and group not in bases else None
        records = [arm.record for arm in arms if (arm.sampler, arm.parallel) == group]
        rows.append(
            _row(
                group,
                cut[group],
                gain=None if against is None else _gain(finals[group], against, sign(direction), level),
                target=target,
                direction=sign(direction),
                hours=_hours(records, trials),
                level=level,
            )
        )
    return ComparisonResult(
        objective=objective,
        direction=direction,
        baseline=baseline,
        trials=trials,
        target=target,
        rows=tuple(rows),
        level=level,
        left_out=tuple(left_out),
    )


def _row(
    group: Group,
    curves: dict[int, Array],
    *,
    gain: Gain | None,
    target: float | None,
    direction: float,
    hours: float | None,
    level: float,
) -> Row:
    finals = np.array([y[-1] for y in curves.values()], dtype=float)
    known = finals[np.isfinite(finals)]
    reach = []
    if target is not None:
        for y in curves.values():
            there = np.flatnonzero(direction * y >= direction * target)
            if len(there):
                reach.append(int(there[0]) + 1)
    areas = [float(np.mean(_filled(y))) for y in curves.values() if np.isfinite(y[-1])]
    return Row(
        sampler=group[0],
        parallel=group[1],
        repeats=len(known),
        mean=float(known.mean()) if len(known) else None,
        sd=float(known.std(ddof=1)) if len(known) > 1 else None,
        median=float(np.median(known)) if len(known) else None,
        reach=float(np.median(reach)) if reach else None,
        reached=len(reach),
        area=float(np.mean(areas)) if areas else None,
        hours=hours,
        gain=gain,
        finals=tuple(float(value) if np.isfinite(value) else None for value in finals),
        band=mean_band(list(curves.values()), level=level) if curves else None,
    )


def _filled(y: Array) -> Array:
    first = y[np.isfinite(y)][0]
    return np.where(np.isfinite(y), y, first)


def _gain(finals: dict[int, float], base: dict[int, float], direction: float, level: float) -> Gain:
    pairs = [direction * (finals[repeat] - base[repeat]) for repeat in finals if repeat in base]
    differences = np.array([difference for difference in pairs if np.isfinite(difference)])
    n = len(differences)
    wins = int(np.count_nonzero(differences > 0))
    if n == 0:
        return Gain(n=0, mean=None, wins=0, t=None, bootstrap=None, level=level)
    mean = float(differences.mean())
    if n == 1:
        return Gain(n=1, mean=mean, wins=wins, t=None, bootstrap=None, level=level)
    half = t_quantile(level, n - 1) * float(differences.std(ddof=1)) / float(np.sqrt(n))
    # A fixed seed: the same studies give the same interval each time.
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(differences[drawn].mean(axis=1), [0.5 - level / 2, 0.5 + level / 2])
    return Gain(
        n=n, mean=mean, wins=wins, t=(mean - half, mean + half), bootstrap=(float(low), float(high)), level=level
    )


def _hours(records: Sequence[StudyRecord], trials: int) -> float | None:
    ends = []
    for record in records:
        x = best_so_far(record, by="time")[0]
        if 0 < trials <= len(x):
            ends.append(float(x[trials - 1]) / 3600)
    return float(np.mean(ends)) if ends and len(ends) == len(records) else None


def _flat(row: Row) -> dict[str, Any]:
    gain = row.gain
    t: tuple[float | None, float | None] = (gain.t if gain else None) or (None, None)
    bootstrap: tuple[float | None, float | None] = (gain.bootstrap if gain else None) or (None, None)
    return {
        "sampler": row.sampler,
        "parallel": row.parallel,
        "repeats": row.repeats,
        "final_mean": row.mean,
        "final_sd": row.sd,
        "final_median": row.median,
        "trials_to_target": row.reach,
        "reached": row.reached,
        "area": row.area,
        "hours": row.hours,
        "gain_mean": gain.mean if gain else None,
        "gain_n": gain.n if gain else None,
        "gain_wins": gain.wins if gain else None,
        "gain_t_low": t[0],
        "gain_t_high": t[1],
        "gain_bootstrap_low": bootstrap[0],
        "gain_bootstrap_high": bootstrap[1],
    }


def _band(band: Band) -> dict[str, Any]:
    def plain(curve: Array) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in curve]

    return {
        "kind": band.kind,
        "n": band.n,
        "mean": plain(band.mean),
        "low": plain(band.low),
        "high": plain(band.high),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
