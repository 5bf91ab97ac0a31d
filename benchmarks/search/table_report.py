"""What searches on a table say: by trials as published and with all repeats, by the clock, by GPU-hours; as tables and figures.

Repeat r has the same seed in every search, so that differences are taken repeat by repeat; intervals are 95 % t
intervals of their mean. The tables by trials are those of ``survey compare``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from table_searches import SAMPLERS, Key, record

from orchestrator.reports import canvas
from orchestrator.reports.canvas import COLOURS, INK
from orchestrator.reports.compare import Arm, ComparisonResult, compare
from orchestrator.reports.curves import best_so_far, sign, t_quantile
from orchestrator.reports.figures import DASHES, comparison_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["figures", "gain", "losses", "report"]

Done: TypeAlias = Mapping[Key, Mapping[str, Any]]
By: TypeAlias = Literal["time", "gpu-hours"]

BASELINE = "random"
LEVEL = 0.95
AT: Mapping[By, float] = {"time": 12.0, "gpu-hours": 10.0}  # a night, and the hours of about fifteen trainings
UNIT: Mapping[By, float] = {"time": 3600.0, "gpu-hours": 1.0}  # what an hour is on the curve's axis
POINTS = 300


def report(done: Done, metric: str, direction: str, *, published: int) -> str:
    """All tables, in Markdown."""
    repeats = 1 + max(repeat for _, _, repeat in done)
    first = _as_published(done, metric, direction, published)
    whole = _compared(done, metric, direction, range(1, repeats))
    sure = (
        "What a search's best trial comes to on average over the table's seeds, and the paired gain of `bo` in the best "
        f"{metric} over each other sampler:"
    )
    parts = [f"As published, {published} repeats:", first.to_markdown(), "All repeats, by trials:", whole.to_markdown()]
    if together := _together(done, direction, published):
        parts.append(f"Best of the trials of {published} random searches together, mean: {together:.4g}.")
    parts += [sure, _table(_against(done, direction)), losses(done, direction)]
    if whole.target is not None:
        clock = (
            f"By the clock and by GPU-hours; medians of the time to {metric} {whole.target:.4g}, the mean final best of "
            f"random search; mean best after {AT['time']:g} hours and after {AT['gpu-hours']:g} GPU-hours, and its paired "
            "gain over random search with the same N:"
        )
        parts += [clock, _table(_by_means(done, metric, direction, whole.target))]
    return "\n\n".join(part.rstrip() for part in parts)


def figures(
    done: Done,
    metric: str,
    direction: str,
    folder: Path,
    task: str,
    *,
    published: int,
    formats: Sequence[str] = ("svg",),
) -> list[Path]:
    """Draw the mean best value by trial as published and with all repeats, and by the clock and GPU-hours."""
    repeats = 1 + max(repeat for _, _, repeat in done)
    ours = {key: row for key, row in done.items() if key[0] in {"bo", BASELINE}}
    first = _as_published(done, metric, direction, published)
    written = comparison_figure(first, folder / f"{task}-table-published", formats=formats)
    one = min(parallel for name, parallel, _ in done if name == BASELINE)
    chosen = {key: row for key, row in ours.items() if key[:2] == (BASELINE, one) or key[0] == "bo"}
    whole = _compared(chosen, metric, direction, range(1, repeats))
    written += comparison_figure(whole, folder / f"{task}-table", formats=formats)
    return [*written, *_clock_figure(ours, metric, direction, folder / f"{task}-table-clock", formats)]


def gain(better: Sequence[float], worse: Sequence[float]) -> str:
    """The mean paired difference with its interval, in words."""
    count = int(np.isfinite(np.array(better) - np.array(worse)).sum())
    if not count:
        return "-"
    mean, half = _interval(better, worse)
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}], n={count}" if count > 1 else f"{mean:+.3f} (n=1)"


def _interval(better: Sequence[float], worse: Sequence[float]) -> tuple[float, float]:
    """Mean paired difference and half of its interval; nan for the half of a single pair."""
    differences = np.array(better) - np.array(worse)
    differences = differences[np.isfinite(differences)]
    count = len(differences)
    half = t_quantile(LEVEL, count - 1) * float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return float(differences.mean()), half


def _as_published(done: Done, metric: str, direction: str, published: int) -> ComparisonResult:
    """`bo` at each N against random search, whose trials do not depend on N: one line, as in the source."""
    one = min(parallel for name, parallel, _ in done if name == BASELINE)
    chosen = {key: row for key, row in done.items() if key[0] == "bo" or key[:2] == (BASELINE, one)}
    return _compared(chosen, metric, direction, range(1, published + 1))


def _compared(done: Done, metric: str, direction: str, repeats: Sequence[int]) -> ComparisonResult:
    order = {name: place for place, name in enumerate(SAMPLERS)}
    arms = [
        Arm(
            label=f"{name}-n{parallel}-r{repeat}",
            sampler=name,
            parallel=parallel,
            repeat=repeat,
            record=record(row, objective=metric, direction=direction),
        )
        for (name, parallel, repeat), row in sorted(done.items(), key=lambda item: (order[item[0][0]], *item[0][1:]))
        if repeat in repeats
    ]
    return compare(arms, baseline=BASELINE, level=LEVEL)


def losses(done: Done, direction: str) -> str:
    """Where `bo` does not win, in sentences: mean paired differences below zero, and intervals that hold zero."""
    behind, even = [], []
    better = sign(direction)
    for name, parallel in _arms(done):
        mine, theirs = _repeats(done, "bo", parallel), _repeats(done, name, parallel)
        both = sorted(set(mine) & set(theirs))
        if name == "bo" or len(both) < 2:
            continue
        pairs = [[better * _final(done[who, parallel, each], better)[0] for each in both] for who in ("bo", name)]
        mean, half = _interval(*pairs)
        arm = f"`{name}` at N = {parallel} ({mean:+.3f})"
        if mean + half < 0.0:
            behind.append(arm)
        elif mean - half <= 0.0:
            even.append(arm)
    words = f"By its best value after all trials `bo` is behind {_listed(behind)}" if behind else "`bo` is behind none"
    return f"{words}; it is not told apart from {_listed(even)}." if even else f"{words}."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _together(done: Done, direction: str, published: int) -> float | None:
    """Mean best of several random searches taken as one, over the groups of as many repeats; None without a group."""
    better = sign(direction)
    one = min(parallel for name, parallel, _ in done if name == BASELINE)
    finals = [better * _final(done[BASELINE, one, each], better)[0] for each in _repeats(done, BASELINE, one)]
    groups = len(finals) // published
    if not groups:
        return None
    return better * float(np.max(np.reshape(finals[: groups * published], (groups, published)), axis=1).mean())


def _against(done: Done, direction: str) -> list[list[str]]:
    """By sampler and N: the incumbent's value on average over seeds, and what `bo` gains over the sampler."""
    rows = [["sampler", "N", "best", "on average", "gain of `bo`"]]
    better = sign(direction)
    for name, parallel in _arms(done):
        finals = {repeat: _final(done[name, parallel, repeat], better) for repeat in _repeats(done, name, parallel)}
        ours = {repeat: _final(done["bo", parallel, repeat], better) for repeat in _repeats(done, "bo", parallel)}
        both = sorted(set(finals) & set(ours))
        words = (
            ""
            if name == "bo"
            else gain([better * ours[each][0] for each in both], [better * finals[each][0] for each in both])
        )
        best, average = np.nanmean(np.array(list(finals.values())), axis=0)
        rows.append([f"`{name}`", str(parallel), f"{best:.3f}", f"{average:.3f}", words])
    return rows


def _by_means(done: Done, metric: str, direction: str, target: float) -> list[list[str]]:
    head = ["sampler", "N", f"hours to {target:.3g}", "GPU-hours to it"]
    rows = [[*head, f"after {AT['time']:g} h", "gain", f"after {AT['gpu-hours']:g} GPU-h", "gain"]]
    better = sign(direction)
    for name, parallel in _arms(done):
        repeats, base = _repeats(done, name, parallel), _repeats(done, BASELINE, parallel)
        both = sorted(set(repeats) & set(base))
        reached, values = [], []
        for by in AT:
            curves = {each: _curve(done[name, parallel, each], metric, direction, by) for each in repeats}
            reached.append(_reached([_first(*curve, target, better) / UNIT[by] for curve in curves.values()]))
            then = {each: better * _at(*curve, AT[by] * UNIT[by]) for each, curve in curves.items()}
            known = [value for value in then.values() if math.isfinite(value)]
            values.append(f"{better * float(np.mean(known)):.3f}" if known else "-")
            others = [
                better * _at(*_curve(done[BASELINE, parallel, each], metric, direction, by), AT[by] * UNIT[by])
                for each in both
            ]
            values.append("" if name == BASELINE else gain([then[each] for each in both], others))
        rows.append([f"`{name}`", str(parallel), *reached, *values])
    return rows


def _curve(row: Mapping[str, Any], metric: str, direction: str, by: By) -> tuple[np.ndarray, np.ndarray]:
    return best_so_far(record(row, objective=metric, direction=direction), by)


def _reached(moments: Sequence[float]) -> str:
    """The median, and in how many searches there was such a moment."""
    count, middle = sum(map(math.isfinite, moments)), float(np.median(moments))
    words = f"{middle:.1f}" if math.isfinite(middle) else "not reached"
    return words if count == len(moments) else f"{words} ({count} of {len(moments)})"


def _first(moments: np.ndarray, best: np.ndarray, target: float, better: float) -> float:
    there = np.flatnonzero(better * best >= better * target)
    return float(moments[there[0]]) if len(there) else math.inf


def _at(moments: np.ndarray, best: np.ndarray, moment: float) -> float:
    index = int(np.searchsorted(moments, moment, side="right")) - 1
    return float(best[index]) if index >= 0 else math.nan


def _final(row: Mapping[str, Any], better: float) -> tuple[float, float]:
    """The best value, and that of its configuration on average over the seeds."""
    known = [(better * value, number) for number, value in enumerate(row["values"]) if value is not None]
    if not known:
        return math.nan, math.nan
    number = max(known)[1]
    return row["values"][number], row["on_average"][number]


def _clock_figure(done: Done, metric: str, direction: str, stem: Path, formats: Sequence[str]) -> list[Path]:
    with canvas.style(stem.name):
        figure = canvas.new_figure(7.2, 2.9)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, by, words in zip(panels, AT, ("hours since the first trial", "GPU-hours"), strict=True):
            canvas.tidy(axes)
            _mean_curves(axes, done, metric, direction, by)
            axes.set_xlabel(words)
        panels[0].set_ylabel(f"best {metric} so far (mean)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=6)
        return canvas.save(figure, stem, formats)


def _mean_curves(axes: Axes, done: Done, metric: str, direction: str, by: By) -> None:
    """One line for each sampler and N, to where half of its searches have ended; random search with the ends of N alone."""
    searched = [arm for arm in _arms(done) if arm[0] != BASELINE]
    slots = sorted(parallel for name, parallel in _arms(done) if name == BASELINE)
    for name, parallel in [*searched, *((BASELINE, each) for each in dict.fromkeys((slots[0], slots[-1])))]:
        curves = [
            _curve(done[name, parallel, repeat], metric, direction, by) for repeat in _repeats(done, name, parallel)
        ]
        end = float(np.median([moments[-1] for moments, _ in curves]))
        grid = np.linspace(0.0, end, POINTS)
        heights = np.array([[_at(*curve, moment) for moment in grid] for curve in curves])
        known = np.isfinite(heights).all(axis=0)
        place = searched.index((name, parallel)) if name != BASELINE else None
        axes.step(
            grid[known] / UNIT[by],
            heights[:, known].mean(axis=0),
            where="post",
            color=INK if place is None else COLOURS[place % len(COLOURS)],
            ls=((0, (1, 1.2)) if parallel == slots[0] else (0, (1, 4)))
            if place is None
            else DASHES[place % len(DASHES)],
            label=f"{name}, N = {parallel}",
        )


def _arms(done: Done) -> list[tuple[str, int]]:
    order = {name: place for place, name in enumerate(SAMPLERS)}
    return sorted({(name, parallel) for name, parallel, _ in done}, key=lambda arm: (order[arm[0]], arm[1]))


def _repeats(done: Done, name: str, parallel: int) -> list[int]:
    return sorted(repeat for who, slots, repeat in done if (who, slots) == (name, parallel))


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
