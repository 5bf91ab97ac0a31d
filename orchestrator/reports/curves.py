"""Curves over a study: best value so far, bands over repeats, where slots spent their time.

Everything is an array made from a `StudyRecord`; nothing here draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = [
    "Band",
    "By",
    "Durations",
    "Interval",
    "Utilisation",
    "best_so_far",
    "counted",
    "durations",
    "gpu_hours",
    "job_hours",
    "mean_band",
    "sign",
    "study_start",
    "t_quantile",
    "utilisation",
]

Array: TypeAlias = NDArray[np.float64]
By: TypeAlias = Literal["trial", "time", "gpu-hours"]

FEW_REPEATS = 5  # below this many, a t interval says more about n than about the curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The mean of several curves and a band around it, each of shape (length,).

    Attributes
    ----------
    kind : str
        ``none`` (one curve), ``range`` (lowest and highest curve) or ``t`` (confidence interval of the mean).
    n : int
        Number of curves.
    """

    mean: Array
    low: Array
    high: Array
    kind: Literal["none", "range", "t"]
    n: int
    level: float = 0.95

    @property
    def words(self) -> str:
        """What the band shows, for a legend or a caption."""
        if self.kind == "none":
            return "one repeat: no band"
        if self.kind == "range":
            return f"lowest to highest of {self.n} repeats"
        return f"{self.level:.0%} t interval of the mean of {self.n} repeats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A trial's stay in a slot: it waits from ``begin`` to ``start`` and runs from ``start`` to ``end``.

    Seconds since the study's start; ``start`` equals ``end`` for a trial that never ran.
    """

    number: int
    state: str
    begin: float
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """Where the slots' time went.

    Attributes
    ----------
    slots : tuple of tuple of Interval
        The stays in each slot, in order of time.
    span : float
        Seconds from the study's start to its last sign of life.
    running, waiting, empty : float
        Shares of ``parallel * span``: a program ran; a trial held the slot, but nothing ran (queue,
        staging, start-up); no trial held the slot.
    """

    slots: tuple[tuple[Interval, ...], ...]
    parallel: int
    span: float
    running: float
    waiting: float
    empty: float

    @property
    def idle_share(self) -> float:
        """Share of slot time in which no program ran."""
        return self.waiting + self.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Seconds per ended trial, in the order of their ends; NaN where a time is not known."""

    number: NDArray[np.int64]
    ask: Array
    wait: Array
    run: Array


def sign(direction: str) -> float:
    """1 for ``maximize``, -1 for ``minimize``: values times this are better when larger."""
    return 1.0 if direction == "maximize" else -1.0


def study_start(record: StudyRecord) -> float | None:
    """When the first trial was made, in seconds since the epoch; None if no trial has a time."""
    known = [time for trial in record.trials for time in _times(trial) if time is not None]
    return min(known, default=None)


def counted(record: StudyRecord) -> list[TrialRecord]:
    """List the ended trials in the order of their ends, without those that a retry has superseded."""
    return list(record.counted)


def best_so_far(record: StudyRecord, by: By = "trial") -> tuple[Array, Array]:
    """Best first objective among the feasible trials so far, at the end of each trial.

    A trial that failed, was pruned or breaks a constraint takes part in the count and keeps the best. Before the
    first feasible trial the best is NaN. A failed trial that was asked for again shares its place in the budget
    with its retry, so only the last of them counts.

    Parameters
    ----------
    by : {"trial", "time", "gpu-hours"}
        ``trial``: number of trials ended, from 1, in the order of their ends; ``time``: seconds
        since `study_start`; ``gpu-hours``: GPU-hours of all trials ended by then.

    Returns
    -------
    x, y : ndarray, shape (ended trials,)

    Raises
    ------
    UsageError
        By GPU-hours, if no trial used a GPU.
    """
    ended = counted(record)
    if by == "trial":
        x = np.arange(1, len(ended) + 1, dtype=float)
    elif by == "time":
        start = study_start(record) or 0.0
        ended = [trial for trial in ended if trial.ended is not None]
        x = np.array([(trial.ended or 0.0) - start for trial in ended])
    else:
        # What a superseded trial held is spent all the same.
        spent = dict(
            zip(
                (trial.number for trial in record.finished),
                np.cumsum([gpu_hours([trial]) for trial in record.finished]),
                strict=True,
            )
        )
        x = np.array([spent[trial.number] for trial in ended])
        if ended and not x[-1]:
            raise UsageError(f"no trial of {record.name} used a GPU", hint='ask for by="time" instead')
    direction = sign(record.directions[0])
    values = [direction * trial.values[0] if trial.feasible and trial.values else np.nan for trial in ended]
    # fmax passes over NaN, so a failed trial keeps what was best before it.
    return x, direction * np.fmax.accumulate(np.array(values, dtype=float))


def mean_band(curves: Sequence[Array], *, level: float = 0.95) -> Band:
    """Mean of repeats with a band, over the trials that all repeats have reached.

    The band is the t confidence interval of the mean; for fewer than five repeats it is the range
    from the lowest to the highest curve, as an interval from so few would mislead. The mean is NaN
    where any repeat has no value yet.
    """
    if not curves:
        raise ValueError("a band needs at least one curve")
    length = min(len(curve) for curve in curves)
    stack = np.stack([curve[:length] for curve in curves])
    n = len(stack)
    mean = stack.mean(axis=0)
    if n == 1:
        return Band(mean=mean, low=mean, high=mean, kind="none", n=n, level=level)
    if n < FEW_REPEATS:
        return Band(mean=mean, low=stack.min(axis=0), high=stack.max(axis=0), kind="range", n=n, level=level)
    half = t_quantile(level, n - 1) * stack.std(axis=0, ddof=1) / np.sqrt(n)
    return Band(mean=mean, low=mean - half, high=mean + half, kind="t", n=n, level=level)


def t_quantile(level: float, freedom: int) -> float:
    """Half width of a two-sided Student t interval, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


def utilisation(record: StudyRecord) -> Utilisation:
    """Give each trial's stay to a slot and add up what the slots did.

    A record does not say which slot a trial held, and slots are alike: each trial, by the time at
    which it was made, goes to the slot that has been free for the shortest while. The span ends
    with the last trial's end, or now (``record.updated``) while trials are in flight.
    """
    origin = study_start(record)
    lanes: list[list[Interval]] = []
    if origin is None:
        return Utilisation(slots=(), parallel=record.parallel, span=0.0, running=0.0, waiting=0.0, empty=0.0)
    stays = [stay for trial in record.trials if (stay := _stay(trial, origin, record.updated)) is not None]
    for stay in sorted(stays, key=lambda stay: (stay.begin, stay.number)):
        free = [lane for lane in lanes if lane[-1].end <= stay.begin]
        if free:
            max(free, key=lambda lane: lane[-1].end).append(stay)
        else:
            lanes.append([stay])
    span = max((stay.end for stay in stays), default=0.0)
    slots = max(1, record.parallel)
    running = sum(stay.end - stay.start for stay in stays)
    waiting = sum(stay.start - stay.begin for stay in stays)
    # Clocks of nodes differ a little from the driver's, so sums can go past what there was.
    whole = max(slots * span, running + waiting)
    shares = (running / whole, waiting / whole) if whole > 0 else (0.0, 0.0)
    return Utilisation(
        slots=tuple(tuple(lane) for lane in lanes),
        parallel=record.parallel,
        span=span,
        running=shares[0],
        waiting=shares[1],
        empty=max(0.0, 1.0 - sum(shares)) if whole > 0 else 0.0,
    )


def durations(record: StudyRecord) -> Durations:
    """How long each ended trial was asked for, waited and ran."""
    ended = record.finished
    return Durations(
        number=np.array([trial.number for trial in ended], dtype=np.int64),
        ask=np.array([np.nan if trial.ask_seconds is None else trial.ask_seconds for trial in ended], dtype=float),
        wait=np.array([_between(trial.submitted, trial.started) for trial in ended], dtype=float),
        run=np.array([_between(trial.started, trial.ended) for trial in ended], dtype=float),
    )


def job_hours(trials: Sequence[TrialRecord]) -> float:
    """Hours that the programs of the last attempts ran, all trials together."""
    return float(np.nansum([_between(trial.started, trial.ended) for trial in trials])) / 3600


def gpu_hours(trials: Sequence[TrialRecord]) -> float:
    """Hours that GPUs were held by the last attempts, all trials together."""
    hours = [len(trial.gpus) * _between(trial.started, trial.ended) for trial in trials if trial.gpus]
    return float(np.nansum(hours)) / 3600


def _between(first: float | None, second: float | None) -> float:
    return float("nan") if first is None or second is None else max(0.0, second - first)


def _times(trial: TrialRecord) -> tuple[float | None, ...]:
    return (trial.created, trial.submitted, trial.started, trial.ended)


def _stay(trial: TrialRecord, origin: float, now: float) -> Interval | None:
    if trial.state == "waiting":
        return None
    known = [time for time in (trial.created, trial.submitted, trial.started) if time is not None]
    end = trial.ended if trial.ended is not None else (now if trial.state == "running" else None)
    if not known or end is None:
        return None
    # Of one that was paused, the last stay: it held no slot in between.
    begin = max(min(known), trial.promoted or 0.0)
    end = max(begin, end)
    start = end if trial.started is None else min(max(begin, trial.started), end)
    return Interval(
        number=trial.number, state=trial.state, begin=begin - origin, start=start - origin, end=end - origin
    )
