"""Figures of a comparison for a paper, and of a study for its report.

`comparison_figure` writes files; the others return an ``<svg>`` element for a page, or None where
the study has nothing to show yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.reports import canvas
from orchestrator.reports.axes import NOT_SET, ParameterAxis, parameter_axes, value_range
from orchestrator.reports.canvas import ACCENT, BAD, COLOURS, INK, MUTED, WARN
from orchestrator.reports.curves import best_so_far, counted, sign, utilisation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.reports.compare import ComparisonResult
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = [
    "COLUMN",
    "comparison_figure",
    "comparison_svg",
    "history_figure",
    "importances_figure",
    "parallel_figure",
    "parameters_figure",
    "slots_figure",
]

COLUMN = 3.5  # inches: one column of a two-column LaTeX page
PAGE = 9.0  # inches: the report's width
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (3, 1, 1, 1)),
    (0, (8, 2, 2, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (2, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P")


def comparison_figure(
    result: ComparisonResult,
    path_stem: str | Path,
    *,
    formats: Sequence[str] = ("png", "svg"),
    width: float = COLUMN,
) -> list[Path]:
    """Draw the mean best-so-far by trial, one line per sampler and N, and write it.

    Parameters
    ----------
    path_stem : str or Path
        ``fig/aneurysm`` gives ``fig/aneurysm.png`` (300 dpi) and ``fig/aneurysm.svg`` (text as text).
    formats : sequence of str
        What matplotlib can write; ``pdf`` suits LaTeX.
    width : float
        Inches.

    Returns
    -------
    list of Path
        In the order of ``formats``.
    """
    with canvas.style("comparison"):
        return canvas.save(_comparison(result, width, width * 0.74), path_stem, formats)


def comparison_svg(result: ComparisonResult) -> str:
    """Draw `comparison_figure`'s lines for a page."""
    with canvas.style("comparison"):
        return canvas.to_svg(_comparison(result, PAGE * 0.75, 3.4), "comparison", title="Mean best value by trial")


def history_figure(record: StudyRecord) -> str | None:
    """Draw each ended trial's value and the best so far, in the order of the trials' ends.

    Values far off on the worse side are drawn as triangles at the edge, so that one diverged
    training does not flatten the rest.
    """
    x, best = best_so_far(record)
    ended = counted(record)
    if not ended:
        return None
    with canvas.style("history"):
        figure = canvas.new_figure(PAGE, 3.0)
        axes = figure.subplots()
        canvas.tidy(axes)
        values = np.array([_value(trial) for trial in ended])
        limits = value_range(values, record.directions[0])
        low, high = limits or (0.0, 0.0)
        shown = np.isfinite(values) & (values >= low) & (values <= high)
        far = np.isfinite(values) & ~shown
        lost = np.array([trial.state == "failed" for trial in ended])
        pruned = np.array([trial.state == "pruned" for trial in ended])
        beyond = np.array([trial.state == "complete" and not trial.feasible for trial in ended])
        plain = shown & ~pruned & ~beyond
        axes.plot(x[plain], values[plain], "o", color=ACCENT, ms=3.2, alpha=0.75, label="complete")
        for chosen, marker, colour, name in (
            (shown & pruned, "D", WARN, "pruned"),
            (shown & beyond, "x", MUTED, "breaks a constraint"),
            (far, "v" if record.directions[0] == "maximize" else "^", MUTED, "off the scale"),
        ):
            if chosen.any():
                axes.plot(x[chosen], np.clip(values[chosen], low, high), marker, color=colour, ms=3.5, label=name)
        if lost.any():
            edge = np.zeros(lost.sum()) + 0.02
            axes.plot(
                x[lost], edge, "x", color=BAD, ms=4, transform=axes.get_xaxis_transform(), label="failed", clip_on=False
            )
        axes.step(x, best, where="post", color=INK, lw=1.4, label="best so far")
        if high > low:
            pad = 0.06 * (high - low)
            axes.set_ylim(low - pad, high + pad)
        axes.set_xlim(0.0, len(ended) + 1.0)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("trials ended")
        axes.set_ylabel(record.objectives[0])
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=6)
        return canvas.to_svg(figure, "history", title=f"{record.objectives[0]} by trial")


def parameters_figure(record: StudyRecord) -> str | None:
    """Draw one panel per parameter: the value of each complete trial over the parameter's value."""
    trials, axes_of = _plottable(record), parameter_axes(record)
    if not trials or not axes_of:
        return None
    columns = min(4, len(axes_of))
    rows = -(-len(axes_of) // columns)
    values = np.array([_value(trial) for trial in trials])
    limits = value_range(values, record.directions[0])
    best = next((trial.number for trial in record.best()), -1)
    with canvas.style("parameters"):
        figure = canvas.new_figure(PAGE, 0.3 + 1.75 * rows)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for index, panel in enumerate(grid.flat):
            if index >= len(axes_of):
                panel.set_axis_off()
                continue
            _slice(panel, axes_of[index], trials, np.clip(values, *limits) if limits else values, best)
            if index % columns == 0:
                panel.set_ylabel(record.objectives[0])
        return canvas.to_svg(figure, "parameters", title="Value over each parameter")


def parallel_figure(record: StudyRecord) -> str | None:
    """Draw one line per complete trial through an axis per parameter and objective.

    The best tenth stands out, or of several objectives the front.
    """
    trials, axes_of = _plottable(record), parameter_axes(record)
    if len(trials) < 2 or not axes_of:
        return None
    from matplotlib.collections import LineCollection

    several = len(record.objectives) > 1
    front = {trial.number for trial in record.front()} if several else set()

    def rank(trial: TrialRecord) -> tuple[bool, bool, float]:
        return trial.feasible, trial.number in front, sign(record.directions[0]) * _value(trial)

    ranked = sorted(trials, key=rank)
    top = max(1, len(front) if several else len(ranked) // 10)
    places = np.array([[_place(axis, trial) for axis in axes_of] for trial in ranked])
    values = np.array([trial.values for trial in ranked], dtype=float)
    scores = np.argsort(np.argsort(values, axis=0), axis=0) / (len(ranked) - 1)
    y = np.c_[places, scores]
    lines = np.stack([np.broadcast_to(np.arange(y.shape[1]), y.shape), y], axis=-1)
    with canvas.style("parallel"):
        figure = canvas.new_figure(PAGE, 3.4)
        axes = figure.subplots()
        axes.set_axis_off()
        axes.add_collection(LineCollection(list(lines[:-top]), colors=[MUTED], linewidths=0.6, alpha=0.35))
        axes.add_collection(LineCollection(list(lines[-top:]), colors=[ACCENT], linewidths=1.0, alpha=0.9))
        if not several:
            axes.add_collection(LineCollection([lines[-1]], colors=[BAD], linewidths=2.0))
        ends = [((0.0, f"{column.min():.4g}"), (1.0, f"{column.max():.4g}")) for column in values.T]
        marks = [axis.ticks for axis in axes_of] + ends
        names = [axis.name for axis in axes_of] + [f"{name} (rank)" for name in record.objectives]
        missing = [*(places == NOT_SET).any(axis=0), *(False for _ in ends)]
        for index, (name, ticks, gap) in enumerate(zip(names, marks, missing, strict=True)):
            axes.plot([index, index], [NOT_SET if gap else 0, 1], color=MUTED, lw=0.8)
            for place, word in (*ticks, *([(NOT_SET, "not set")] if gap else [])):
                axes.text(index + 0.03, place, word, fontsize=6, va="center")
            axes.text(index, 1.06, _cut(name, 22), fontsize=7, rotation=20, ha="left", va="bottom")
        axes.set_xlim(-0.1, len(names) - 0.4)
        axes.set_ylim(-0.22, 1.05)
        return canvas.to_svg(figure, "parallel", title="Parallel coordinates of the complete trials")


def importances_figure(importances: Mapping[str, float]) -> str | None:
    """Draw a bar per parameter, the most important on top."""
    if not importances:
        return None
    names = sorted(importances, key=lambda name: importances[name])
    with canvas.style("importances"):
        figure = canvas.new_figure(PAGE * 0.6, 0.5 + 0.22 * len(names))
        axes = figure.subplots()
        canvas.tidy(axes, grid="x")
        bars = axes.barh([_cut(name, 32) for name in names], [importances[name] for name in names], color=ACCENT)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=6.5, color=INK)
        axes.set_xlabel("importance (sums to 1)")
        axes.margins(x=0.1, y=0.02)
        return canvas.to_svg(figure, "importances", title="Importance of each parameter")


def slots_figure(record: StudyRecord) -> str | None:
    """Draw when each slot waited and ran: a Gantt chart of `utilisation`'s stays."""
    use = utilisation(record)
    if not use.slots or use.span <= 0:
        return None
    unit, seconds = next(
        (name, size) for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
        if use.span >= 2 * size or size == 1
    )  # fmt: skip
    with canvas.style("slots"):
        figure = canvas.new_figure(PAGE, 0.75 + min(0.24, 6 / len(use.slots)) * len(use.slots))
        axes = figure.subplots()
        canvas.tidy(axes, grid="x")
        kinds = (
            ("complete", ACCENT, "complete"),
            ("pruned", WARN, "pruned"),
            ("failed", BAD, "failed"),
            ("running", COLOURS[2], "running now"),
        )
        handles = []
        for lane, stays in enumerate(use.slots):
            waits = [(stay.begin / seconds, (stay.start - stay.begin) / seconds) for stay in stays]
            drawn = axes.broken_barh(waits, (lane - 0.3, 0.6), color=MUTED, alpha=0.35, lw=0)
            if lane == 0:
                handles.append((drawn, "waits"))
        for state, colour, name in kinds:
            for lane, stays in enumerate(use.slots):
                runs = [
                    (stay.start / seconds, (stay.end - stay.start) / seconds) for stay in stays if stay.state == state
                ]
                if runs:
                    # A thin edge in the page's own colour keeps neighbours apart.
                    drawn = axes.broken_barh(runs, (lane - 0.4, 0.8), facecolor=colour, edgecolor=INK, lw=0.2)
                    if name not in [word for _, word in handles]:
                        handles.append((drawn, name))
        axes.set_ylim(len(use.slots) - 0.4, -0.6)
        axes.set_xlim(0, use.span / seconds)
        axes.set_yticks(np.arange(len(use.slots)) if len(use.slots) <= 24 else [0, len(use.slots) - 1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value + 1:.0f}")
        axes.set_xlabel(f"{unit} since the study's start")
        axes.set_ylabel("slot")
        figure.legend([h for h, _ in handles], [name for _, name in handles], loc="outside upper right", ncols=5)
        return canvas.to_svg(figure, "slots", title="What each slot did over time")


def _comparison(result: ComparisonResult, width: float, height: float) -> Figure:
    figure = canvas.new_figure(width, height)
    axes = figure.subplots()
    canvas.tidy(axes)
    x = np.arange(1, result.trials + 1)
    searched = [row for row in result.rows if row.sampler != result.baseline]
    names = _names(result)
    words = []
    for row in result.rows:
        if row.band is None or not len(x):
            continue
        index = searched.index(row) if row in searched else None
        colour = INK if index is None else COLOURS[index % len(COLOURS)]
        axes.fill_between(x, row.band.low, row.band.high, step=None, color=colour, alpha=0.11, lw=0)
        axes.plot(
            x,
            row.band.mean,
            color=colour,
            linestyle=(0, (1, 1.2)) if index is None else DASHES[index % len(DASHES)],
            marker="x" if index is None else MARKERS[index % len(MARKERS)],
            markevery=(2 * (index or 0) % 8, max(1, result.trials // 6)),
            ms=3.4,
            label=names[row.sampler, row.parallel],
        )
        words.append(row.band.words)
    axes.set_xlabel("trials ended")
    axes.set_ylabel(f"best {result.objective} so far (mean)")
    axes.set_xlim(0, result.trials + 0.5)
    axes.locator_params(axis="x", integer=True)
    if words:
        band = "; ".join(dict.fromkeys(words))
        # Above the axes: curves that rise early and stay flat leave no corner free for certain.
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper right",
            ncols=3,
            title=f"band: {band}",
            title_fontsize=6,
        )
    return figure


def _names(result: ComparisonResult) -> dict[tuple[str, int], str]:
    # A leading underscore would hide a line from matplotlib's legend.
    samplers = [row.sampler for row in result.rows]
    names = {}
    for row in result.rows:
        plain = row.sampler.lstrip("_") or "arm"
        alone = samplers.count(row.sampler) == 1 and row.sampler == result.baseline
        names[row.sampler, row.parallel] = plain if alone else f"{plain}, N = {row.parallel}"
    return names


def _slice(panel: Axes, axis: ParameterAxis, trials: Sequence[TrialRecord], values: Any, best: int) -> None:
    canvas.tidy(panel)
    places = np.array([_place(axis, trial) for trial in trials])
    if axis.choices:
        # Trials of one choice side by side, in the order of their numbers, instead of on top of each other.
        places = places + (np.linspace(-0.3, 0.3, len(trials)) / len(axis.choices)) * (places >= 0)
    numbers = np.array([trial.number for trial in trials])
    panel.plot(places, values, "o", color=ACCENT, ms=2.4, alpha=0.6)
    panel.plot(places[numbers == best], values[numbers == best], "D", color=BAD, ms=4.5)
    ticks = list(axis.ticks if axis.choices else axis.ticks[:: 2 if len(axis.ticks) > 3 else 1])
    if (places == NOT_SET).any():
        ticks.append((NOT_SET, "not set"))
    panel.set_xticks([place for place, _ in ticks], [_cut(word, 12) for _, word in ticks])
    if axis.choices and (len(axis.choices) > 3 or max(len(word) for _, word in ticks) > 6):
        panel.tick_params(axis="x", labelrotation=30)
    panel.set_xlim(-0.22 if (places == NOT_SET).any() else -0.04, 1.04)
    panel.set_title(_cut(axis.name, 30) + (" (log)" if axis.log else ""))


def _plottable(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.complete if trial.values]


def _value(trial: TrialRecord) -> float:
    return trial.values[0] if trial.values and trial.state != "failed" else float("nan")


def _place(axis: ParameterAxis, trial: TrialRecord) -> float:
    place = axis.place(trial.params[axis.name]) if axis.name in trial.params else None
    return NOT_SET if place is None else place


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
