"""Times that differ from job to job: queue waits and run times, from a distribution or from a recorded study.

::

    1h                    always the same
    uniform:10m:2h        anything between the two
    exponential:30m       with this mean
    lognormal:30m:1.2     with this median; the logarithm has this standard deviation
    recorded:runs/pilot   those of a study that has run

What a draw gives depends on the seed and on what it is for alone, so that two simulations that differ in
one thing differ by that thing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from orchestrator.config.loading import did_you_mean
from orchestrator.config.units import format_duration, parse_duration
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.store.record import StudyRecord

__all__ = ["Times", "parse_times"]

Part: TypeAlias = Literal["wait", "run"]

_FORMS = {
    "constant": ("constant:TIME", 1),
    "uniform": ("uniform:LEAST:MOST", 2),
    "exponential": ("exponential:MEAN", 1),
    "lognormal": ("lognormal:MEDIAN:SIGMA", 2),
    "recorded": ("recorded:STUDY_FOLDER", 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A distribution of seconds.

    Attributes
    ----------
    kind : str
        ``constant``, ``uniform``, ``exponential``, ``lognormal`` or ``recorded``.
    values : tuple of float
        Its parameters in seconds, the last one of ``lognormal`` without a unit; the seconds of a recorded study.
    words : str
        As the user wrote it.
    """

    kind: str
    values: tuple[float, ...]
    words: str

    def draw(self, seed: int, *what: object) -> float:
        """Seconds for ``what`` (a trial's number, a job's)."""
        rng = random.Random(f"{seed}-{'-'.join(map(str, what))}")
        first, *rest = self.values
        match self.kind:
            case "uniform":
                return rng.uniform(first, rest[0])
            case "exponential":
                return rng.expovariate(1.0 / first) if first else 0.0
            case "lognormal":
                return first * rng.lognormvariate(0.0, rest[0])
            case "recorded":
                return rng.choice(self.values)
        return first

    @property
    def typical(self) -> float:
        """The median."""
        first, *rest = self.values
        match self.kind:
            case "uniform":
                return (first + rest[0]) / 2
            case "exponential":
                return first * math.log(2.0)
            case "recorded":
                return sorted(self.values)[len(self.values) // 2]
        return first


def parse_times(text: str, part: Part, option: str) -> Times:
    """Read a distribution as it is written on a command line.

    Parameters
    ----------
    part : str
        What is taken from a recorded study: its queue waits or its run times.
    option : str
        The option's name, for messages.

    Raises
    ------
    UsageError
        Naming the option, what is wrong with it, and the forms that there are.
    """
    kind, *words = text.split(":")
    if kind not in _FORMS:
        try:
            return Times(kind="constant", values=(parse_duration(text),), words=text)
        except ValueError:
            near = did_you_mean(kind, _FORMS)
            raise UsageError(
                f"{option} {text!r}: {near or 'neither a time nor a distribution'}", hint=_hint()
            ) from None
    form, count = _FORMS[kind]
    if kind == "recorded":
        return _recorded(Path(text.partition(":")[2]), part, option, text)
    if len(words) != count:
        raise UsageError(f"{option} {text!r}: write {form}, as in {_example(kind)}", hint=_hint())
    try:
        values = [parse_duration(word) for word in words[:1]]
        values += [float(word) if kind == "lognormal" else parse_duration(word) for word in words[1:]]
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}", hint=_hint()) from None
    if kind == "uniform" and values[0] > values[1]:
        raise UsageError(f"{option} {text!r}: the least time is above the most", hint=_hint())
    if kind == "lognormal" and not 0.0 <= values[1] < math.inf:
        raise UsageError(f"{option} {text!r}: sigma must be zero or more", hint=_hint())
    return Times(kind=kind, values=tuple(values), words=text)


def _recorded(folder: Path, part: Part, option: str, text: str) -> Times:
    from orchestrator.studies.reader import read_study

    values = recorded_times(read_study(folder), part)
    if not values:
        what = "whose queue wait is known" if part == "wait" else "that has run"
        raise UsageError(f"{option} {text}: the study in {folder} has no trial {what}", hint=_hint())
    return Times(kind="recorded", values=values, words=f"{text} ({len(values)} trials)")


def recorded_times(record: StudyRecord, part: Part) -> tuple[float, ...]:
    """Queue waits or run times of a study's ended trials, in seconds."""
    from orchestrator.reports.curves import durations

    known = durations(record)
    found = known.wait if part == "wait" else known.run
    return tuple(float(value) for value in found if math.isfinite(value))


def _example(kind: str) -> str:
    shown = format_duration(1800.0)
    return {"uniform": f"uniform:10m:{shown}", "lognormal": f"lognormal:{shown}:1.2"}.get(kind, f"{kind}:{shown}")


def _hint() -> str:
    return "A time such as 30m, or one of " + ", ".join(form for form, _ in _FORMS.values()) + "."
