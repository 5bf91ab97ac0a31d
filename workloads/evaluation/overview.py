"""A picture of what a training came to: ``overview.png`` among a trial's artifacts, which the study's report shows.

A row is a case or a sample, a column what is to be compared: the image, the truth, the prediction, an error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAME", "Panel", "middle_slice", "write_overview"]

NAME = "overview.png"
# Eight that are told apart easily, and ten more for what has many labels.
COLOURS = (
    *("#2f9fe0", "#e8833a", "#58b368", "#c65bcf", "#d9c441", "#7d7de8", "#5fc7c3", "#e0607e"),
    *("#1f5f8a", "#8a4a1a", "#2e6b3a", "#7a2f80", "#857618", "#3f3fa3", "#2f7d7a", "#8f2f48", "#b0b0b0", "#f2c9a0"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One picture of an overview.

    Attributes
    ----------
    title : str
    image : ndarray, shape (rows, columns) or (rows, columns, 3)
        What is shown; of colours, 0 to 1 or uint8.
    labels : ndarray of int, shape (rows, columns), optional
        Laid over it in colours; 0 is nothing.
    names : mapping, optional
        Label number to its name, for the legend.
    heat : bool
        It is a map (a probability, an error), shown in colours with a scale, not a picture in grey.
    limits : tuple of float, optional
        Values at black and white, or at both ends of the colours; the image's own unless given.
    """

    title: str
    image: NDArray[Any]
    labels: NDArray[Any] | None = None
    names: Mapping[int, str] | None = None
    heat: bool = False
    limits: tuple[float, float] | None = None


def middle_slice(volume: NDArray[Any], where: NDArray[Any] | None = None) -> NDArray[Any]:
    """The axial slice of a RAS volume (x, y, z) in which ``where`` has most voxels, else the middle one, front at the top.

    Parameters
    ----------
    where : ndarray, same shape, optional
        A mask; what is not 0 counts.
    """
    z = volume.shape[2] // 2
    if where is not None and np.any(where):
        z = int(np.argmax(np.count_nonzero(where, axis=(0, 1))))
    return np.asarray(np.flipud(np.swapaxes(volume[:, :, z], 0, 1)))


def write_overview(path: Path, rows: Sequence[Sequence[Panel]], *, title: str = "") -> None:
    """Draw ``rows`` of panels into the PNG file ``path``, whole by rename.

    Without matplotlib a line says so and nothing is drawn: no trial is lost for a picture.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        print(f"{path.name} is not drawn: matplotlib is not installed", file=sys.stderr)  # noqa: T201 - into the job's log
        return
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.6 * columns, 2.75 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    shown: dict[int, str] = {}
    for axes_of_row, row in zip(grid, rows, strict=True):
        for axes in axes_of_row:
            axes.set_axis_off()
        for axes, panel in zip(axes_of_row, row, strict=False):
            low, high = panel.limits or (None, None)
            picture = axes.imshow(panel.image, cmap="magma" if panel.heat else "gray", vmin=low, vmax=high)
            axes.set_title(panel.title, fontsize=9)
            if panel.heat:
                figure.colorbar(picture, ax=axes, shrink=0.75)
            if panel.labels is not None:
                _lay_over(axes, panel.labels)
                shown.update(panel.names or {})
    if shown:
        handles = [Patch(color=_colour(number), label=name) for number, name in sorted(shown.items()) if number]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=9, frameon=False
        )
    if title:
        figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, dpi=100, format="png", metadata={"Software": None})
    partial.replace(path)


def _colour(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]


def _lay_over(axes: Any, labels: NDArray[Any]) -> None:
    from matplotlib.colors import to_rgba

    layer = np.zeros((*labels.shape, 4))
    for number in np.unique(labels[labels > 0]).tolist():
        layer[labels == number] = to_rgba(_colour(int(number)), alpha=0.5)
    axes.imshow(layer)
