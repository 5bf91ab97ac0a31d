"""Pictures of maps: the image, the map, and the one laid over the other, a row an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.evaluation.overview import Panel, write_overview
from workloads.explain.images import Image

__all__ = ["Explained", "lay_over", "write_overlays"]

MOST_SHOWN = 6
COLOUR = np.array([1.0, 0.25, 0.1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """A map of an image.

    Attributes
    ----------
    values : ndarray
        0 and above, of the image's sides.
    title : str
        What is explained.
    where : ndarray of bool, optional
        What is laid over the image: the thing in truth, say, as ``called``.
    """

    image: Image
    values: NDArray[np.floating]
    title: str
    where: NDArray[np.bool_] | None = None
    called: str = "truth"


def lay_over(picture: NDArray[Any], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """``heat``, from 0 to its highest value, in red over a picture in grey or colours of any range."""
    low, high = float(picture.min()), float(picture.max())
    grey = (picture - low) / ((high - low) or 1.0)
    base = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=-1)
    strength = np.clip(heat / (float(heat.max()) or 1.0), 0.0, 1.0)[..., None]
    mixed = base * (1.0 - 0.85 * strength) + COLOUR * 0.85 * strength
    return np.asarray(np.clip(mixed, 0.0, 1.0), dtype=np.float64)


def write_overlays(path: Path, maps: Sequence[Explained], *, title: str) -> None:
    """Draw the first of ``maps``: of volumes the slice in which the truth, or else the map, has most."""
    rows = []
    for each in maps[:MOST_SHOWN]:
        top = float(np.percentile(each.values, 99.8)) or float(each.values.max())
        # A few voxels of a map of gradients are far above all others.
        values = np.minimum(each.values, top)
        where = each.where if each.where is not None and each.where.any() else values > 0.5 * top
        image = each.image.shown(None, where)
        heat = each.image.shown(values, where)
        truth = None if each.where is None else each.image.shown(each.where.astype(np.uint8), where)
        first = Panel(title=each.image.name[:28], image=image, labels=truth, names={1: each.called})
        rows.append(
            [first, Panel(title=each.title, image=heat, heat=True), Panel(title="overlay", image=lay_over(image, heat))]
        )
    write_overview(path, rows, title=title)
