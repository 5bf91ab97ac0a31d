"""Figures that answer to the mouse: plotly.js and its data, for a page that must not load anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from orchestrator.reports.axes import NOT_SET, label, parameter_axes, value_range
from orchestrator.reports.curves import best_so_far, counted

if TYPE_CHECKING:
    from orchestrator.model import Json
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["figures", "plotly_js"]


def plotly_js() -> str | None:
    """Source of plotly.js as the installed plotly ships it; None if plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    source: str = get_plotlyjs()
    return source


def figures(record: StudyRecord) -> dict[str, Any]:
    """Make plotly's data for ``history`` and ``parallel``, where the study has something to show.

    Colours are names of the page's variables, which the page's script puts in.
    """
    found = {"history": _history(record), "parallel": _parallel(record)}
    return {name: figure for name, figure in found.items() if figure is not None}


def _history(record: StudyRecord) -> dict[str, Any] | None:
    ended = counted(record)
    _, best = best_so_far(record)
    if not ended:
        return None
    lost = [(place, trial) for place, trial in enumerate(ended, start=1) if trial.state == "failed"]
    points = [(place, trial) for place, trial in enumerate(ended, start=1) if trial.values and trial.state != "failed"]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trials",
                "x": [place for place, _ in points],
                "y": [trial.values[0] for _, trial in points if trial.values],
                "text": [_hover(trial) for _, trial in points],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": "--c0",
                    "size": 6,
                    "opacity": 0.75,
                    "symbol": [_symbol(trial) for _, trial in points],
                },
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": list(range(1, len(ended) + 1)),
                "y": [float(value) if math.isfinite(value) else None for value in best],
                "line": {"color": "--ink", "shape": "hv", "width": 2},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "failed",
                "x": [place for place, _ in lost],
                "y": [0.02 for _ in lost],
                "yaxis": "y2",
                "text": [_plain(f"trial {trial.number}: {trial.verdict or 'failed'}") for _, trial in lost],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": "--c1", "symbol": "x-thin-open", "size": 7},
                "showlegend": bool(lost),
            },
        ],
        "layout": {
            "height": 360,
            "xaxis": {"title": {"text": "trials ended"}},
            "yaxis": {"title": {"text": _plain(record.objectives[0])}, **_window([t for _, t in points], record)},
            # Failed trials have no value: they stand at the lower edge, whatever the zoom.
            "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        },
    }


def _parallel(record: StudyRecord) -> dict[str, Any] | None:
    trials = [trial for trial in record.complete if trial.values]
    axes = parameter_axes(record)
    if len(trials) < 2 or not axes:
        return None
    dimensions = []
    for axis in axes:
        placed = [axis.place(trial.params.get(axis.name)) if axis.name in trial.params else None for trial in trials]
        ticks = list(axis.ticks) + ([(NOT_SET, "not set")] if None in placed else [])
        dimensions.append(
            {
                "label": _plain(axis.name),
                "values": [NOT_SET if place is None else round(place, 4) for place in placed],
                "range": [NOT_SET if None in placed else 0, 1],
                "tickvals": [place for place, _ in ticks],
                "ticktext": [_plain(word) for _, word in ticks],
            }
        )
    values = [trial.values[0] for trial in trials if trial.values]
    shown = value_range(values, record.directions[0]) or (0.0, 1.0)
    dimensions.append({"label": _plain(record.objectives[0]), "values": values})
    return {
        "data": [
            {
                "type": "parcoords",
                "dimensions": dimensions,
                "line": {
                    "color": values,
                    "cmin": shown[0],
                    "cmax": shown[1],
                    "colorscale": [[0, "--grid"], [0.6, "--c5"], [1, "--c1"]],
                    "reversescale": record.directions[0] == "minimize",
                    "showscale": True,
                },
                "labelangle": -20,
            }
        ],
        "layout": {"height": 420, "margin": {"t": 90, "l": 60, "r": 60, "b": 20}},
    }


def _window(trials: list[TrialRecord], record: StudyRecord) -> dict[str, Any]:
    shown = value_range([trial.values[0] for trial in trials if trial.values], record.directions[0])
    if shown is None or shown[0] == shown[1]:
        return {}
    pad = 0.06 * (shown[1] - shown[0])
    return {"range": [shown[0] - pad, shown[1] + pad]}


def _symbol(trial: TrialRecord) -> str:
    if trial.state == "pruned":
        return "diamond-open"
    return "circle" if trial.feasible else "x-thin-open"


def _hover(trial: TrialRecord) -> str:
    pruned = " (pruned)" if trial.state == "pruned" else "" if trial.feasible else " (breaks a constraint)"
    value = f"trial {trial.number}{pruned}: {trial.values[0]:.6g}" if trial.values else f"trial {trial.number}"
    shown = [f"{name} = {label(setting)}" for name, setting in trial.params.items()]
    return "<br>".join(_plain(line) for line in (value, *shown))


def _plain(text: Json) -> str:
    # plotly reads a few HTML tags in texts, links among them; a name is never one.
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
