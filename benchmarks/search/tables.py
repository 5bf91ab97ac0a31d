"""The comparison for people: Markdown tables, and a figure of the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paired import COARSE, Key, relative
from problems import Problem

__all__ = ["figure", "report"]


def report(
    done: Mapping[Key, Mapping[str, Any]],
    engines: Sequence[str],
    problems: Mapping[str, Problem],
    workers: Sequence[int],
    baseline: str,
) -> str:
    """Tables of regrets relative to the baseline, by problem, and of ``bo`` relative to each other engine."""
    families = list(dict.fromkeys(problem.family for problem in problems.values()))
    lines = [
        f"Regret relative to `{baseline}` on the same seeds, geometric mean, 90 % interval; below 1 is better.",
        f"Coarse: regrets below {COARSE:g} count as {COARSE:g}: a problem that one engine solves exactly does not rule the mean.",
        "",
        _row("engine", "N", "all", "interval", "coarse", *families, "runs", "ms/ask"),
        _rule(7 + len(families)),
    ]
    for name in engines:
        for count in workers:
            if name == baseline or (found := relative(done, name, baseline, list(problems), count)) is None:
                continue
            by_family = [
                found.of(problem for problem, of in problems.items() if of.family == family) for family in families
            ]
            coarse = relative(done, name, baseline, list(problems), count, floor=COARSE)
            lines.append(
                _row(
                    f"`{name}`",
                    str(count),
                    f"{found.value:.2f}",
                    f"{found.low:.2f} - {found.high:.2f}",
                    f"{coarse.value:.2f}" if coarse else "",
                    *[f"{value:.2f}" for value in by_family],
                    str(found.runs),
                    f"{_milliseconds(done, name, problems, count):.0f}",
                )
            )
    lines += ["", "By problem:", "", _row("engine", "N", *problems), _rule(2 + len(problems))]
    for name in engines:
        for count in workers:
            if name == baseline or (found := relative(done, name, baseline, list(problems), count)) is None:
                continue
            lines.append(_row(f"`{name}`", str(count), *[_cell(found.problems.get(problem)) for problem in problems]))
    if "bo" in engines:
        lines += ["", "`bo` relative to each of the others, on the seeds that both have run:", ""]
        lines += [_row("other", "N", "`bo` / other", "interval", "runs"), _rule(5)]
        for name in engines:
            for count in workers:
                if name == "bo" or (found := relative(done, "bo", name, list(problems), count)) is None:
                    continue
                interval = f"{found.low:.2f} - {found.high:.2f}"
                lines.append(_row(f"`{name}`", str(count), f"{found.value:.2f}", interval, str(found.runs)))
        lines += ["", *(_losses(done, problems, count, baseline) for count in workers)]
    return "\n".join(lines)


def _losses(done: Mapping[Key, Mapping[str, Any]], problems: Mapping[str, Problem], count: int, baseline: str) -> str:
    """Name the problems on which `bo` does not beat the baseline, the worst first."""
    found = relative(done, "bo", baseline, list(problems), count)
    ratios = {} if found is None else {name: value for name, value in found.problems.items() if value >= 1.0}
    listed = ", ".join(f"{name} ({ratios[name]:.2f})" for name in sorted(ratios, key=lambda name: -ratios[name]))
    return f"At N = {count} `bo` loses to `{baseline}` on {listed or 'none of these problems'}."


def figure(
    done: Mapping[Key, Mapping[str, Any]],
    engines: Sequence[str],
    problems: Mapping[str, Problem],
    workers: Sequence[int],
    baseline: str,
    path: Path,
) -> None:
    """Draw the relative regrets with their intervals, a panel for each N."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # No dates and no random names: the same numbers make the same file.
    mpl.rcParams["svg.hashsalt"] = "search"
    drawn, axes = plt.subplots(1, len(workers), sharey=True, figsize=(4.0 * len(workers), 3.2), squeeze=False)
    shown = [name for name in engines if name != baseline]
    for axis, count in zip(axes[0], workers, strict=True):
        for height, name in enumerate(reversed(shown)):
            found = relative(done, name, baseline, list(problems), count)
            if found is None:
                continue
            color = "tab:red" if name == "bo" else "black"
            axis.plot([found.low, found.high], [height, height], color=color, linewidth=1.5)
            axis.plot([found.value], [height], "o", color=color)
        axis.axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        ticks = [0.1, 0.2, 0.5, 1.0, 2.0]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_yticks(range(len(shown)), list(reversed(shown)))
        axis.set_ylim(-0.5, len(shown) - 0.5)
        axis.set_title(f"N = {count}")
        axis.set_xlabel(f"regret / regret of {baseline}")
    drawn.tight_layout()
    drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(drawn)


def _milliseconds(
    done: Mapping[Key, Mapping[str, Any]], name: str, problems: Mapping[str, Problem], count: int
) -> float:
    """CPU of an ask, its program's own time left out, mean over the searches."""
    return 1e3 * float(
        np.mean([row["cpu"] for key, row in done.items() if (key[0], key[2]) == (name, count) and key[1] in problems])
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return f"|{' --- |' * count}"
