"""Matplotlib without global state: one style, figures as objects, SVG that takes its colours from a page."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "BAD", "COLOURS", "GRID", "INK", "MUTED", "WARN", "new_figure", "save", "style", "tidy", "to_svg"]

INK = "#14181f"
MUTED = "#6a7380"
GRID = "#d7dce3"

# Okabe and Ito, Color Universal Design (2008): told apart with any colour vision. Lines differ in dash
# and marker as well, so that they can be told apart in greyscale.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ACCENT, BAD, WARN = COLOURS[0], COLOURS[1], COLOURS[4]

# In a page each colour is the page's own variable, so that a figure follows light and dark.
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    **{colour: f"--c{index}" for index, colour in enumerate(COLOURS)},
}

_STYLE = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "axes.titlecolor": INK,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.3,
    "path.simplify": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
}


@contextlib.contextmanager
def style(name: str) -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says; ``name`` makes the ids of an SVG.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.style
    except ImportError as error:
        raise UsageError(
            "figures need matplotlib, which is not installed", hint="pip install 'survey-orchestrator[report]'"
        ) from error
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": name}]), warnings.catch_warnings():
        # A name in a script that the font lacks: an SVG keeps the text, and the reader's font shows it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, that belongs to no window and no global list."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Axes, *, grid: str = "y") -> None:
    """Put the grid below the data, on one axis only (``x``, ``y`` or ``none``)."""
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    if grid != "none":
        axes.grid(visible=True, axis="x" if grid == "x" else "y")


def save(figure: Figure, stem: str | Path, formats: Sequence[str]) -> list[Path]:
    """Write ``stem.<format>`` for each format, folders made, and return the paths."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in formats:
        path = stem.with_name(f"{stem.name}.{kind}")
        if kind == "svg":
            path.write_text(_svg(figure), encoding="utf-8")
        else:
            # Without a date the same study gives the same bytes.
            metadata = {"CreationDate": None} if kind == "pdf" else None
            figure.savefig(path, format=kind, dpi=300, metadata=metadata)
        paths.append(path)
    return paths


def to_svg(figure: Figure, name: str, *, title: str) -> str:
    """Draw the figure as an ``<svg>`` element for a page.

    Ids begin with ``name``, so that several figures live in one page; colours are the page's
    variables; ``title`` is what a screen reader says.
    """
    from markupsafe import escape

    text = _svg(figure)
    text = text[text.index("<svg") :]
    # Only what stands in a tag is ours to rewrite: text between tags can be a study's own words.
    text = re.sub(r"<[^<>]+>", lambda tag: _for_page(tag[0], name), text)
    text = re.sub(r"<g( [^<>]*)?>\s*((?:<use [^<>]*/>\s*)+)</g>", _shared_style, text)
    opening = text.index(">")
    width = re.search(r'viewBox="0 0 ([\d.]+)', text)
    attributes = f' role="img" aria-label="{escape(title)}" style="--w: {width[1] if width else 0}pt"'
    return text[:opening] + attributes + text[opening:]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return buffer.getvalue()


def _for_page(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", tag)
    tag = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), tag)
    tag = re.sub(r'(?<= d=")[^"]+', lambda path: re.sub(r"\s*([A-Za-z])\s*", r"\1", path[0]), tag)
    # Two decimals of a point are finer than a screen; a thousand trials take half the space.
    return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag)


def _shared_style(group: re.Match[str]) -> str:
    """Say a marker's style once for its group instead of once for each of a thousand trials."""
    styles = set(re.findall(r' style="[^"]*"', group[2]))
    if len(styles) != 1 or "style=" in (group[1] or ""):
        return group[0]
    (shared,) = styles
    marks = re.sub(r"\s*\n\s*", "", group[2].replace(shared, ""))
    return f"<g{group[1] or ''}{shared}>{marks}</g>"


def _variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour
