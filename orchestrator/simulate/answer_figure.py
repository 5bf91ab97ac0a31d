"""The figure of a simulated study: the search by the clock, and what each number of slots takes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.reports import canvas
from orchestrator.reports.canvas import COLOURS, MUTED
from orchestrator.reports.curves import best_so_far
from orchestrator.reports.figures import DASHES, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.simulate.answers import Answer, Line
    from orchestrator.simulate.study_model import Arm

__all__ = ["answer_figure"]

_WIDTH = 7.2
_HEIGHT = 2.8
_POINTS = 400
_HOUR = 3600.0


def answer_figure(
    found: Answer, arms: Sequence[Arm], path_stem: Path, *, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw and write it; returns the files, in the order of ``formats``.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    with canvas.style("simulate"):
        figure = canvas.new_figure(_WIDTH, _HEIGHT)
        by_clock, time, hours = figure.subplots(1, 3)
        _by_clock(by_clock, found, arms)
        _by_slots(time, found, [None if each.to_target is None else each.to_target / _HOUR for each in found.lines])
        time.set_ylabel(f"hours to {found.metric} {found.target:.3g}")
        _by_slots(hours, found, [each.hours_to_target for each in found.lines])
        hours.set_ylabel(f"{found.unit} to {found.metric} {found.target:.3g}")
        for axes in (by_clock, time):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")
        return canvas.save(figure, path_stem, formats)


def _by_clock(axes: Axes, found: Answer, arms: Sequence[Arm]) -> None:
    """Best value so far, the median of the repeats, one line for each N, all in the first way that was asked for."""
    canvas.tidy(axes)
    chosen = [arm for arm in arms if arm.way == arms[0].way]
    axes.set_title(arms[0].way)
    for index, parallel in enumerate(dict.fromkeys(arm.parallel for arm in chosen)):
        curves = [best_so_far(arm.record, "time") for arm in chosen if arm.parallel == parallel]
        ends = [float(times[-1]) for times, _ in curves if len(times)]
        if not ends:
            continue
        grid = np.linspace(0.0, max(ends), _POINTS)
        heights = np.array([_at(grid, times, best) for times, best in curves])
        known = np.isfinite(heights).all(axis=0)
        if not known.any():
            continue
        moments, median = grid[known] / _HOUR, np.median(heights[:, known], axis=0)
        steps = np.concatenate([[True], np.diff(median) != 0.0])
        steps[-1] = True
        axes.step(
            moments[steps],
            median[steps],
            where="post",
            color=COLOURS[index % len(COLOURS)],
            ls=DASHES[index % len(DASHES)],
            label=f"N = {parallel}",
        )
    axes.axhline(found.target, color=MUTED, lw=0.7)
    axes.set_xlabel("hours")
    axes.set_ylabel(f"best {found.metric} so far (median)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda hours, _place: f"{hours:g}")


def _at(grid: np.ndarray, times: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Height of the step curve at each moment of ``grid``; NaN before its first one."""
    index = np.searchsorted(times, grid, side="right") - 1
    return np.where(index >= 0, best[np.maximum(index, 0)], np.nan)


def _by_slots(axes: Axes, found: Answer, values: Sequence[float | None]) -> None:
    canvas.tidy(axes)
    ways: dict[str, list[tuple[Line, float | None]]] = {}
    for line, value in zip(found.lines, values, strict=True):
        ways.setdefault(line.way, []).append((line, value))
    for index, (way, points) in enumerate(ways.items()):
        known = [(line.parallel, value) for line, value in points if value is not None]
        axes.plot(
            [parallel for parallel, _ in known],
            [value for _, value in known],
            color=COLOURS[index],
            ls=DASHES[index],
            marker=MARKERS[index],
            ms=3.5,
            label=way,
        )
    axes.set_xscale("log", base=2)
    slots = sorted({line.parallel for line in found.lines})
    axes.set_xticks(slots, [str(each) for each in slots])
    axes.minorticks_off()
    axes.set_xlabel("N")
    if any(value is not None and value > 0 for value in values):
        axes.set_ylim(bottom=0)
