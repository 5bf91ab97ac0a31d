"""Speed-up and efficiency of the same trials on more and more nodes, GPUs or threads, with Amdahl's fit and their quality.

Trial k has the same parameters and the same seed on every count, so counts are compared trial by trial.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from orchestrator.errors import UsageError
from orchestrator.reports import canvas
from orchestrator.reports.canvas import ACCENT, BAD, MUTED
from orchestrator.reports.curves import t_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["Amdahl", "Point", "ScalingResult", "scaling", "scaling_figure"]

LEVEL = 0.95
Interval: TypeAlias = tuple[float, float]
Pair: TypeAlias = "tuple[TrialRecord, TrialRecord]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One count.

    Attributes
    ----------
    trials : int
        Those that are complete here and on the smallest count.
    seconds : float
        Mean time of these trials.
    speedup : float
        Geometric mean over trials of how many times faster they are than on the smallest count.
    efficiency : float
        Speed-up over how many times larger the count is.
    quality, change : float
        Mean objective, and its mean paired difference to the smallest count.
    speedup_interval, change_interval : (float, float) or None
        95 % intervals (Student's t, of the logarithms for the speed-up); None below two trials.
    devices : int or None
        Those that the program says it trained on (``devices`` of its ``info``).
    busy : float
        How many of the count can have had something to do, by ``busy_devices`` of the program's ``info``.
    """

    count: int
    trials: int
    seconds: float
    speedup: float
    speedup_interval: Interval | None
    efficiency: float
    quality: float
    change: float
    change_interval: Interval | None
    devices: int | None
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Amdahl:
    """Amdahl's law (1967), fitted: of the time on one, the share ``serial`` does not get shorter by more.

    Attributes
    ----------
    serial : float
        0 to 1.
    interval : (float, float) or None
        Its 95 % interval; None with a single time to fit.
    beyond : str
        What the law cannot say: ``faster`` than ideal, or ``slower`` with more. Empty where it holds.
    """

    serial: float
    interval: Interval | None
    beyond: str

    @property
    def limit(self) -> float:
        """The speed-up that no count exceeds."""
        return 1.0 / self.serial if self.serial > 1e-9 else math.inf

    def speedup(self, busy: float) -> float:
        """Speed-up of ``busy`` over one."""
        return 1.0 / (self.serial + (1.0 - self.serial) / busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingResult:
    """What `scaling` found, the smallest count first."""

    over: str
    time: str
    objective: str
    points: tuple[Point, ...]
    amdahl: Amdahl | None
    left_out: tuple[int, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dump``."""
        return {**asdict(self), "limit": None if self.amdahl is None else self.amdahl.limit}

    def to_markdown(self) -> str:
        """Write a table, with a sentence on the law and what else is to be known."""
        head = (self.over, "trials", "seconds", "speed-up", "efficiency", self.objective, "change", "devices")
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        lines += [
            " | ".join(
                (
                    str(point.count),
                    str(point.trials),
                    f"{point.seconds:.4g}",
                    f"{point.speedup:.3g}{_range(point.speedup_interval, '.3g')}",
                    f"{point.efficiency:.0%}",
                    f"{point.quality:.4g}",
                    "-" if point is self.points[0] else f"{point.change:+.3g}{_range(point.change_interval, '+.3g')}",
                    "-" if point.devices is None else str(point.devices),
                )
            )
            for point in self.points
        ]
        words = [f"Seconds: {self.time}. Change: mean paired difference, with its {LEVEL:.0%} t interval."]
        words += [self.law] if self.law else []
        words += list(self.notes)
        return "\n".join(f"| {line} |" for line in lines) + "\n\n" + " ".join(words) + "\n"

    @property
    def law(self) -> str:
        """Amdahl's fit in words; empty where there is none."""
        if self.amdahl is None:
            return ""
        if self.amdahl.beyond:
            than = "faster than the ideal" if self.amdahl.beyond == "faster" else "slower than the smallest count"
            return f"Amdahl's law does not describe these times: on the whole more are {than}."
        limit = "no limit" if math.isinf(self.amdahl.limit) else f"at most {self.amdahl.limit:.3g} times faster"
        interval = _range(self.amdahl.interval, ".1%")
        return f"Amdahl's law: {self.amdahl.serial:.1%}{interval} of the time on one is serial, {limit}."


def scaling(records: Mapping[int, StudyRecord], *, over: str, time: str) -> ScalingResult:
    """Compare the studies of several counts with that of the smallest, trial by trial.

    Parameters
    ----------
    records : mapping
        Count to its study.
    over : str
        What is counted.
    time : str
        The metric that holds a trial's time, in seconds.

    Raises
    ------
    UsageError
        If no trial is complete on the smallest count, or none reports the time.
    """
    counts = sorted(records)
    base = counts[0]
    first = records[base]
    known = {trial.number: trial for trial in first.complete}
    if not known:
        raise UsageError(f"no trial is complete on {over} = {base}, which the others are compared with")
    if all(trial.metrics.get(time, 0.0) <= 0.0 for trial in known.values()):
        metrics = sorted({name for trial in known.values() for name in trial.metrics})
        raise UsageError(f"trials report no time {time!r}", hint=f"--time names one of: {', '.join(metrics)}")
    points, fits, left_out = [], [], []
    for count in counts:
        pairs = [
            (known[trial.number], trial)
            for trial in records[count].complete
            if trial.number in known
            and trial.params == known[trial.number].params
            and min(trial.metrics.get(time, 0.0), known[trial.number].metrics.get(time, 0.0)) > 0.0
        ]
        if not pairs:
            left_out.append(count)
            continue
        points.append(_point(count, base, pairs, time))
        fits += [(trial.metrics[time] / one.metrics[time], base / _busy(trial, count)) for one, trial in pairs]
    return ScalingResult(
        over=over,
        time=time,
        objective=first.objectives[0],
        points=tuple(points),
        amdahl=_amdahl(fits, base),
        left_out=tuple(left_out),
        notes=tuple(_notes(over, points, left_out)),
    )


def _point(count: int, base: int, pairs: Sequence[Pair], time: str) -> Point:
    gains = np.log([one.metrics[time] / trial.metrics[time] for one, trial in pairs])
    changes = np.array([(trial.values or (0.0,))[0] - (one.values or (0.0,))[0] for one, trial in pairs])
    devices = {trial.info.get("devices") for _, trial in pairs}
    told = devices.pop() if len(devices) == 1 else None
    interval = _interval(gains) if count != base else None
    speedup = float(np.exp(gains.mean()))
    return Point(
        count=count,
        trials=len(pairs),
        seconds=float(np.mean([trial.metrics[time] for _, trial in pairs])),
        speedup=speedup,
        speedup_interval=None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1]))),
        efficiency=speedup * base / count,
        quality=float(np.mean([(trial.values or (0.0,))[0] for _, trial in pairs])),
        change=float(changes.mean()),
        change_interval=_interval(changes) if count != base else None,
        devices=told if isinstance(told, int) else None,
        busy=float(np.mean([_busy(trial, count) for _, trial in pairs])),
    )


def _busy(trial: TrialRecord, count: int) -> float:
    """How many of ``count`` can have had something to do: with a batch of 8 no more than 8 devices have."""
    devices, busy = trial.info.get("devices"), trial.info.get("busy_devices")
    if isinstance(devices, int) and isinstance(busy, int) and 0 < busy < devices:
        return count * busy / devices
    return float(count)


def _interval(values: Any) -> Interval | None:
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(LEVEL, n - 1) * float(np.std(values, ddof=1)) / float(np.sqrt(n))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def _amdahl(fits: Sequence[tuple[float, float]], base: int) -> Amdahl | None:
    """Least squares over trials: the time, in units of the smallest count's, is a + (1 - a) * base / busy."""
    relative, inverse = np.array(fits).T
    x, y = 1.0 - inverse, relative - inverse
    chosen = np.abs(x) > 1e-9
    x, y = x[chosen], y[chosen]
    if not len(x):
        return None
    weight = float(x @ x)
    constant = float(x @ y) / weight
    half = None
    if len(x) > 1:
        residual = float(np.sum((y - constant * x) ** 2)) / (len(x) - 1)
        half = t_quantile(LEVEL, len(x) - 1) * float(np.sqrt(residual / weight))

    def serial(part: float) -> float:
        """Share of the time on one, from that of the time on the smallest count."""
        part = min(1.0, max(0.0, part))
        return part / (part + (1.0 - part) * base)

    beyond = "faster" if constant < -(half or 0.0) else "slower" if constant > 1.0 else ""
    return Amdahl(
        serial=serial(constant),
        interval=None if half is None else (serial(constant - half), serial(constant + half)),
        beyond=beyond,
    )


def _notes(over: str, points: Sequence[Point], left_out: Sequence[int]) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"Without a complete trial to compare, left out: {', '.join(map(str, left_out))}.")
    first = points[0]
    for point in points[1:]:
        grown = point.devices is None or first.devices is None or over not in {"nodes", "gpus"}
        if not grown and point.devices * first.count != first.devices * point.count:  # type: ignore[operator]
            notes.append(f"On {over} = {point.count} the program says that it trained on {point.devices} devices.")
        if point.busy < point.count - 1e-9:
            notes.append(f"Of {point.count} no more than {point.busy:.3g} had something to do: the batch is small.")
    return notes


def _range(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"


def scaling_figure(result: ScalingResult, stem: Path, *, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Draw speed-up, efficiency and quality over the count, and write ``stem.<format>`` for each format."""
    with canvas.style("scaling"):
        figure = canvas.new_figure(7.2, 2.5)
        panels = figure.subplots(1, 3)
        x = np.array([point.count for point in result.points], dtype=float)
        for axes in panels:
            canvas.tidy(axes)
            axes.set_xscale("log", base=2)
            axes.set_xlabel(result.over)
            axes.set_xticks(x, [str(point.count) for point in result.points])
            axes.minorticks_off()
        _speedup(panels[0], result, x)
        panels[1].plot(x, [100.0 * point.efficiency for point in result.points], "o-", color=ACCENT, ms=4)
        panels[1].axhline(100.0, color=MUTED, lw=0.8, ls=":")
        panels[1].set_ylabel("efficiency, %")
        panels[1].set_ylim(0.0, max(108.0, 105.0 * max(point.efficiency for point in result.points)))
        _quality(panels[2], result, x)
        return canvas.save(figure, stem, formats)


def _speedup(axes: Axes, result: ScalingResult, x: Any) -> None:
    axes.plot(x, x / x[0], color=MUTED, lw=0.8, ls=":", label="ideal")
    if result.amdahl is not None and not result.amdahl.beyond:
        cap = max(point.busy for point in result.points)
        fine = np.geomspace(x[0], x[-1], 60)
        law = np.array([result.amdahl.speedup(min(each, cap)) for each in fine])
        label = f"Amdahl, {result.amdahl.serial:.1%} serial"
        axes.plot(fine, law / result.amdahl.speedup(x[0]), color=BAD, ls="--", label=label)
    speedups = np.array([point.speedup for point in result.points])
    ends = np.array([point.speedup_interval or (point.speedup, point.speedup) for point in result.points])
    errors = np.abs(ends.T - speedups)
    axes.errorbar(x, speedups, yerr=errors, fmt="o", color=ACCENT, ms=4, capsize=2, lw=1, label="measured")
    axes.set_yscale("log", base=2)
    ticks = [tick for tick in 2.0 ** np.arange(-3, 12) if speedups.min() / 2 < tick < 2 * x[-1] / x[0]]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("speed-up")
    axes.legend(loc="upper left")


def _quality(axes: Axes, result: ScalingResult, x: Any) -> None:
    quality = np.array([point.quality for point in result.points])
    # The bars are of the paired difference, which is what the counts are compared by.
    halves = [
        0.0 if point.change_interval is None else (point.change_interval[1] - point.change_interval[0]) / 2
        for point in result.points
    ]
    axes.errorbar(x, quality, yerr=halves, fmt="o-", color=ACCENT, ms=4, capsize=2, lw=1)
    axes.set_ylabel(result.objective)
    low, high = float(np.min(quality - halves)), float(np.max(quality + halves))
    room = max(high - low, 0.1 * max(abs(low), abs(high), 1e-9))
    axes.set_ylim(low - 0.3 * room, high + 0.3 * room)
