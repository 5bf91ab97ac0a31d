"""What simulated studies say about how many trials to ask for at a time, and in which way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.config.units import format_duration
from orchestrator.errors import UsageError
from orchestrator.reports.curves import best_so_far, sign, utilisation

if TYPE_CHECKING:
    from orchestrator.simulate.study_model import Arm, Way

__all__ = ["Answer", "Line", "advice", "answer", "default_target"]

_USUAL = 0.9
_ENOUGH = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way with one number of slots: medians over its repeats.

    Attributes
    ----------
    to_target, hours_to_target : float or None
        Seconds, and hours of devices, until the target was reached; None where fewer than half of the repeats did.
    reached, repeats : int
        In how many of them it was.
    to_end, hours : float
        Until the whole budget was spent.
    idle : float
        Share of the slots' time in which no program ran.
    failed : int
        Trials that failed, of all repeats together.
    """

    way: Way
    parallel: int
    repeats: int
    reached: int
    to_target: float | None
    hours_to_target: float | None
    to_end: float
    hours: float
    idle: float
    best: float
    failed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All lines, in the order in which they were asked for.

    Attributes
    ----------
    unit : str
        What hours are of: ``GPU-hours``, or ``trial-hours`` where no GPU is asked for.
    """

    metric: str
    direction: str
    target: float
    unit: str
    lines: tuple[Line, ...]

    def header(self) -> list[str]:
        """Column titles."""
        goal = f"{self.metric} {'≥' if self.direction == 'maximize' else '≤'} {self.target:.4g}"
        return ["way", "N", f"time to {goal}", f"{self.unit} to it", "time to end", self.unit, "idle", "best"]

    def cells(self) -> list[list[str]]:
        """Rows of text for people."""
        return [
            [
                line.way,
                str(line.parallel),
                _reached(line),
                "-" if line.hours_to_target is None else f"{line.hours_to_target:.1f}",
                format_duration(line.to_end),
                f"{line.hours:.1f}",
                f"{line.idle:.0%}",
                f"{line.best:.4g}",
            ]
            for line in self.lines
        ]

    def to_markdown(self) -> str:
        """Write the table for a page."""
        rows = [self.header(), ["---"] * 8, *self.cells()]
        return "".join("| " + " | ".join(row) + " |\n" for row in rows)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "metric": self.metric,
            "direction": self.direction,
            "target": self.target,
            "unit": self.unit,
            "advice": advice(self),
            "lines": [line.to_json() for line in self.lines],
        }


def default_target(arms: Sequence[Arm]) -> float:
    """The value that 9 of 10 of the simulated studies reach."""
    direction = arms[0].record.directions[0]
    bests = [best.values[0] for arm in arms for best in arm.record.best() if best.values]
    if not bests:
        raise UsageError("no trial of any simulated study has succeeded", hint="lower --failures, or look at the table")
    method: Any = "lower" if direction == "maximize" else "higher"
    share = 1.0 - _USUAL if direction == "maximize" else _USUAL
    return float(np.quantile(np.array(bests), share, method=method))


def answer(arms: Sequence[Arm], target: float) -> Answer:
    """Sum up the arms, those of one way and one parallelism in one line."""
    first = arms[0].record
    groups: dict[tuple[Way, int], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.way, arm.parallel), []).append(arm)
    return Answer(
        metric=first.objectives[0],
        direction=first.directions[0],
        target=target,
        unit="GPU-hours" if arms[0].devices else "trial-hours",
        lines=tuple(_line(group, target) for group in groups.values()),
    )


def _line(arms: Sequence[Arm], target: float) -> Line:
    better = sign(arms[0].record.directions[0])
    times = [_time_to(arm, target, better) for arm in arms]
    hours = [arm.hours(time) if math.isfinite(time) else math.inf for arm, time in zip(arms, times, strict=True)]
    bests = [best.values[0] for arm in arms for best in arm.record.best() if best.values]
    return Line(
        way=arms[0].way,
        parallel=arms[0].parallel,
        repeats=len(arms),
        reached=sum(math.isfinite(time) for time in times),
        to_target=_finite(statistics.median(times)),
        hours_to_target=_finite(statistics.median(hours)),
        to_end=statistics.median(utilisation(arm.record).span for arm in arms),
        hours=statistics.median(arm.hours() for arm in arms),
        idle=statistics.fmean(utilisation(arm.record).idle_share for arm in arms),
        best=statistics.median(bests) if bests else math.nan,
        failed=sum(trial.state == "failed" for arm in arms for trial in arm.record.trials),
    )


def _time_to(arm: Arm, target: float, better: float) -> float:
    times, best = best_so_far(arm.record, "time")
    reached = np.flatnonzero(better * best >= better * target)
    return float(times[reached[0]]) if len(reached) else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _reached(line: Line) -> str:
    words = "not reached" if line.to_target is None else format_duration(line.to_target)
    return words if line.reached == line.repeats else f"{words} ({line.reached} of {line.repeats})"


def advice(found: Answer) -> str:
    """What to ask for, in a sentence: the fewest slots that come near the shortest time, in the first of the ways."""
    lines = [line for line in found.lines if line.way == found.lines[0].way and line.to_target is not None]
    if not lines:
        return f"{found.metric} {found.target:.4g} is reached by no N in half of the repeats: ask for more trials."
    shortest = min(line.to_target or 0.0 for line in lines)
    chosen = min(
        (line for line in lines if (line.to_target or 0.0) <= _ENOUGH * shortest), key=lambda each: each.parallel
    )
    fewest = min(lines, key=lambda line: line.hours_to_target or 0.0)
    words = (
        f"N = {chosen.parallel} reaches {found.metric} {found.target:.4g} in {format_duration(chosen.to_target or 0.0)}"
        f" for {chosen.hours_to_target:.1f} {found.unit}"
    )
    if fewest.parallel == chosen.parallel:
        return f"{words}; no N needs less."
    return (
        f"{words}; N = {fewest.parallel} needs the least, {fewest.hours_to_target:.1f} {found.unit},"
        f" and {format_duration(fewest.to_target or 0.0)}."
    )
