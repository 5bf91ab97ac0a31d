"""The figure of a study of several objectives: each trial by two of them, and the front."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestrator.reports import canvas
from orchestrator.reports.axes import value_range
from orchestrator.reports.canvas import ACCENT, BAD, INK, MUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["MOST_OBJECTIVES", "pareto_figure"]

MOST_OBJECTIVES = 4  # above it there are more pairs than a page has room for
NUMBERED = 15  # trials on the front that are marked with their numbers


def pareto_figure(record: StudyRecord) -> str | None:
    """Draw the complete trials, the front among them, in a panel for each two objectives.

    None for one objective, for more than four, and where no trial is complete.
    """
    count = len(record.objectives)
    trials = [trial for trial in record.complete if trial.values]
    if not 2 <= count <= MOST_OBJECTIVES or not trials:
        return None
    pairs = list(itertools.combinations(range(count), 2))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    size = (5.4, 3.6) if len(pairs) == 1 else (9.0, 2.9 * rows)
    with canvas.style("pareto"):
        figure = canvas.new_figure(*size)
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for panel, pair in zip(panels, pairs, strict=True):
            _panel(panel, record, trials, pair)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
        return canvas.to_svg(figure, "pareto", title=f"Trials by {' and '.join(record.objectives)}, and the front")


def _panel(panel: Axes, record: StudyRecord, trials: Sequence[TrialRecord], pair: tuple[int, int]) -> None:
    canvas.tidy(panel, grid="none")
    panel.grid(visible=True)
    on = record.front()
    front = {trial.number for trial in on}
    groups = (
        ([trial for trial in trials if trial.feasible and trial.number not in front], "o", ACCENT, "dominated"),
        ([trial for trial in trials if not trial.feasible], "x", MUTED, "breaks a constraint"),
        (on, "D", BAD, "on the front"),
    )
    for chosen, marker, colour, name in groups:
        if chosen:
            points = _points(chosen, pair)
            panel.plot(points[:, 0], points[:, 1], marker, color=colour, ms=4 if marker == "D" else 3.4, label=name)
    if len(record.objectives) == 2 and len(on) > 1:
        points = _points(sorted(on, key=lambda trial: _points([trial], pair)[0].tolist()), pair)
        # Between two trials of the front it is the one that is as good in the first objective that says what is reached.
        where: Literal["pre", "post"] = "pre" if record.directions[pair[0]] == "maximize" else "post"
        panel.step(points[:, 0], points[:, 1], where=where, color=INK, lw=0.9)
    if len(on) <= NUMBERED:
        for trial, (x, y) in zip(on, _points(on, pair), strict=True):
            panel.annotate(str(trial.number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=6.5)
    for place, limit, label in (
        (pair[0], panel.set_xlim, panel.set_xlabel),
        (pair[1], panel.set_ylim, panel.set_ylabel),
    ):
        label(f"{record.objectives[place]} ({record.directions[place]})")
        if (shown := _range(record, trials, on, place)) is not None:
            limit(*shown)


def _points(trials: Sequence[TrialRecord], pair: tuple[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[(trial.values or ())[place] for place in pair] for trial in trials], dtype=float).reshape(-1, 2)


def _range(
    record: StudyRecord, trials: Sequence[TrialRecord], on: Sequence[TrialRecord], place: int
) -> tuple[float, float] | None:
    """What an axis shows: all but values far off on the worse side, and the front in any case."""
    values = [(trial.values or ())[place] for trial in trials]
    shown = value_range(values, record.directions[place])
    if shown is None:
        return None
    front = [(trial.values or ())[place] for trial in on]
    low, high = min([shown[0], *front]), max([shown[1], *front])
    pad = 0.06 * (high - low) or 0.5
    return low - pad, high + pad
