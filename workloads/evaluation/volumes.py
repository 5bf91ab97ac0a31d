"""Volumes of lesions in ml, compared between groups of cases: tables, tests, a box plot."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError

__all__ = [
    "Measured",
    "compared_groups",
    "millilitres",
    "read_groups",
    "table_of_groups",
    "write_box_plot",
    "write_tables",
]

COLUMNS = ("typicality", "pcr")
EITHER = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A case: its groups by column, the volume that was measured and that of the reference, both in ml."""

    case: str
    groups: Mapping[str, str]
    volume: float
    reference: float


def millilitres(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Volume of a mask: voxels times the determinant of the affine, which is right for sheared grids too."""
    return float(np.count_nonzero(mask)) * abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0


def read_groups(path: Path, allowed: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The groups of each case: a CSV file with ``case`` and a column for each of ``allowed``, which lists its groups.

    Raises
    ------
    WorkloadError
        If the file cannot be read, lacks a column, names a case twice or a group that is not listed, or a listed group
        has no case.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file", hint="a CSV file with case,typicality,pcr is needed") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read ({error})") from None
    rows = csv.DictReader(lines)
    missing = [name for name in ("case", *allowed) if name not in (rows.fieldnames or ())]
    if missing:
        raise WorkloadError(f'{path}: has no column "{missing[0]}"', hint="its first line is case,typicality,pcr")
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        case, where = (row["case"] or "").strip(), f"{path}:{rows.line_num}"
        if case in found:
            raise WorkloadError(f"{where}: names case {case!r} twice")
        found[case] = {name: (row[name] or "").strip() for name in allowed}
        for name, value in found[case].items():
            if value not in allowed[name]:
                raise WorkloadError(
                    f"{where}: {name} of case {case!r} is {value!r}",
                    hint=f"it is one of {', '.join(allowed[name])}; others are named with --{name}",
                )
    for name, groups in allowed.items():
        for group in groups:
            if all(each[name] != group for each in found.values()):
                others = " ".join(each for each in groups if each != group)
                raise WorkloadError(
                    f"{path}: no case has {name} {group!r}",
                    hint=f"add one, or leave the group out with --{name} {others}",
                )
    return found


def table_of_groups(measured: Sequence[Measured], allowed: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A row for every group of each column and for every pair: ``n`` and, where there is a case, median, quartiles, mean, in ml.

    Quartiles lie between two cases in proportion (Hyndman and Fan 1996, type 7).
    """
    rows = []
    for groups in itertools.product(*((EITHER, *allowed[name]) for name in COLUMNS)):
        values = _volumes(measured, dict(zip(COLUMNS, groups, strict=True)))
        row: dict[str, Any] = {**dict(zip(COLUMNS, groups, strict=True)), "n": len(values)}
        if values:
            low, middle, high = np.percentile(values, [25.0, 50.0, 75.0])
            row |= {"median": middle, "q1": low, "q3": high, "mean": float(np.mean(values))}
        rows.append(row)
    return rows


def _volumes(measured: Sequence[Measured], wanted: Mapping[str, str]) -> list[float]:
    return [
        each.volume for each in measured if all(group in {EITHER, each.groups[name]} for name, group in wanted.items())
    ]


def compared_groups(measured: Sequence[Measured], allowed: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Whether volumes differ between the groups of a column: Kruskal and Wallis 1952 over all, Mann and Whitney 1947 for pairs.

    ``p`` of pairs is two-sided and corrected for their number after Holm 1979. Nothing is said of a column in which
    all volumes are equal, nor of pairs with a group of fewer than two cases.
    """
    from scipy import stats

    rows: list[dict[str, Any]] = []
    for name, groups in allowed.items():
        values = {group: _volumes(measured, {name: group}) for group in groups}
        if len(groups) < 2 or len({value for each in values.values() for value in each}) < 2:
            continue
        rows.append({"column": name, "groups": EITHER, "p": float(stats.kruskal(*values.values()).pvalue)})
        pairs = [pair for pair in itertools.combinations(groups, 2) if min(len(values[each]) for each in pair) > 1]
        raw = [float(stats.mannwhitneyu(*(values[each] for each in pair)).pvalue) for pair in pairs]
        corrected, floor = {}, 0.0
        for rank, index in enumerate(np.argsort(raw, kind="stable")):
            floor = max(floor, min(1.0, (len(raw) - rank) * raw[index]))
            corrected[int(index)] = floor
        rows += [
            {"column": name, "groups": " - ".join(pair), "p": corrected[index]} for index, pair in enumerate(pairs)
        ]
    return rows


def write_tables(folder: Path, measured: Sequence[Measured], allowed: Mapping[str, Sequence[str]]) -> None:
    """Write ``volumes.csv`` (cases), ``groups.csv``, ``tests.csv``, and ``groups.md``, which has both of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = [{"case": m.case, **m.groups, "volume_ml": m.volume, "reference_ml": m.reference} for m in measured]
    groups = table_of_groups(measured, allowed)
    compared = compared_groups(measured, allowed)
    heads = {
        "volumes": ["case", *COLUMNS, "volume_ml", "reference_ml"],
        "groups": [*COLUMNS, "n", "median", "q1", "q3", "mean"],
        "tests": ["column", "groups", "p"],
    }
    for name, rows in {"volumes": cases, "groups": groups, "tests": compared}.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(heads[name])
            writer.writerows([_cell(row.get(column, "")) for column in heads[name]] for row in rows)
    text = "\n".join(
        ["Volumes in ml.", "", *_markdown(heads["groups"], groups), "", *_markdown(heads["tests"], compared), ""]
    )
    (folder / "groups.md").write_text(text, encoding="utf-8")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(head: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(_cell(row.get(column, "")) for column in head) + " |" for row in rows]


def write_box_plot(path: Path, measured: Sequence[Measured], allowed: Mapping[str, Sequence[str]]) -> None:
    """Draw the volumes by the groups of each column: boxes from quartile to quartile, whiskers after Tukey 1977, each case a dot."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{path.name} is not drawn: matplotlib is not installed", file=sys.stderr)  # noqa: T201 - into the job's log
        return
    figure = Figure(figsize=(4.2 * len(COLUMNS), 3.6), layout="constrained")
    grid = figure.subplots(1, len(COLUMNS), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, COLUMNS, strict=True):
        values = [_volumes(measured, {name: group}) for group in allowed[name]]
        axes.boxplot(values, showfliers=False, medianprops={"color": "#d55e00"})
        for place, each in enumerate(values, start=1):
            # Dots of one box side by side, in the order of the cases.
            spread = place + 0.24 * (np.arange(len(each)) / max(1, len(each) - 1) - 0.5)
            axes.plot(spread, each, ".", color="#0072b2", alpha=0.6, markersize=5)
        words = [f"{group}\nn = {len(each)}" for group, each in zip(allowed[name], values, strict=True)]
        axes.set_xticks(range(1, len(words) + 1), words)
        axes.set_xlabel(name)
    grid[0].set_ylabel("volume (ml)")
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=120, format="png", metadata={"Software": None})
    partial.replace(path)
