"""Asynchronous successive halving (Li et al., 2020): who goes on at a rung, who is set aside, who is taken up again.

Pure functions of what the trials have reported: nothing is remembered, so that a driver that takes the
study over decides the same.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Halving", "Standing", "crosses"]


def crosses(min_step: int, factor: int, *, after: int, step: int) -> bool:
    """Whether a rung (``min_step``, ``factor`` times that, ...) lies above the step ``after``, and not above ``step``."""
    rung = min_step
    while rung <= after:
        rung *= factor
    return rung <= step


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a trial stands.

    Attributes
    ----------
    steps : mapping
        What it has reported, by step.
    paused : bool
        Whether it is set aside.
    complete : bool
        Whether it has come to its end.
    """

    steps: Mapping[int, float]
    paused: bool = False
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """The rungs of a study.

    Attributes
    ----------
    max_step : int or None
        A rung is below it; None: below the last step of the trials that are complete, once there is one.
    least : int
        So many go on at each rung although there are fewer than ``factor`` times as many.
    """

    min_step: int
    factor: int
    max_step: int | None
    maximize: bool
    least: int = 0

    def why_paused(self, number: int, trials: Mapping[int, Standing]) -> str:
        """Why a trial does not go on beyond the highest rung that it has come to, in words; empty if it does."""
        last = self._last(trials)
        own = self._values(trials[number], last)
        if not own or max(trials[number].steps) >= last:
            return ""
        level = len(own) - 1
        ranked = self._ranked(level, trials, last)
        place, most = ranked.index(number) + 1, self._most(len(ranked))
        if place <= most:
            return ""
        step = next(itertools.islice(self._rungs(last), level, None))
        goes = f"the best {most} go on" if most != 1 else "the best one goes on"
        words = goes if most else f"one goes on of every {self.factor}"
        return f"at step {step}: {own[level]:.6g} is number {place} of {len(ranked)} so far, and {words}"

    def promotable(self, trials: Mapping[int, Standing]) -> int | None:
        """The paused trial that is to go on first: of the highest rung, the best one; None if none is to."""
        last = self._last(trials)
        levels = {number: len(self._values(trial, last)) - 1 for number, trial in trials.items() if trial.paused}
        for level in sorted(set(levels.values()), reverse=True):
            here = {number for number in levels if levels[number] == level}
            if level < 0:
                return min(here)  # without a value at any rung nothing speaks against it
            ranked = self._ranked(level, trials, last)
            if going := [number for number in ranked[: self._most(len(ranked))] if number in here]:
                return going[0]
        return None

    def _rungs(self, last: float) -> Iterator[int]:
        rung = self.min_step
        while rung < last:
            yield rung
            rung *= self.factor

    def _last(self, trials: Mapping[int, Standing]) -> float:
        if self.max_step is not None:
            return self.max_step
        return max((max(trial.steps) for trial in trials.values() if trial.complete and trial.steps), default=math.inf)

    def _values(self, trial: Standing, last: float) -> list[float]:
        """Its value at each rung that it has come to: the first report there, or beyond."""
        steps = sorted(trial.steps)
        values = []
        for rung in self._rungs(last):
            index = bisect.bisect_left(steps, rung)
            if index == len(steps):
                break
            values.append(trial.steps[steps[index]])
        return values

    def _ranked(self, level: int, trials: Mapping[int, Standing], last: float) -> list[int]:
        """Trials with a value at a rung, the best first."""
        sign = -1.0 if self.maximize else 1.0
        keyed = []
        for number, trial in trials.items():
            values = self._values(trial, last)
            if len(values) > level:
                value = values[level]
                keyed.append((math.inf if math.isnan(value) else sign * value, number))
        return [number for _, number in sorted(keyed)]

    def _most(self, trials: int) -> int:
        return max(self.least, trials // self.factor)
