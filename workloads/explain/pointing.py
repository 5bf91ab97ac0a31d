"""The pointing game (Zhang et al. 2018): whether a map has its maximum in the thing that it is to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["PointingGame", "pointing_game"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointingGame:
    """What came of it.

    Attributes
    ----------
    hits : tuple of bool
        Of each map that has a thing to point at; None of the others.
    chances : tuple of float
        The chance that a point thrown blindly hits: the share of the image that counts as the thing.
    """

    hits: tuple[bool | None, ...]
    chances: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Share of hits among the maps that have a thing to point at; NaN without any."""
        counted = [hit for hit in self.hits if hit is not None]
        return sum(counted) / len(counted) if counted else float("nan")

    @property
    def chance(self) -> float:
        """The rate of blind throws; NaN where nothing can be pointed at."""
        counted = [chance for hit, chance in zip(self.hits, self.chances, strict=True) if hit is not None]
        return sum(counted) / len(counted) if counted else float("nan")


def pointing_game(
    maps: Sequence[NDArray[np.floating]], masks: Sequence[NDArray[np.bool_]], *, tolerance: float = 0.0
) -> PointingGame:
    """Play it over images.

    Parameters
    ----------
    maps, masks : sequence of ndarray
        Of an image, both of its shape. A map that is the same everywhere points nowhere, which is a miss.
    tolerance : float
        Pixels from the thing within which a point still hits (Zhang et al. allow 15, on photographs).

    Raises
    ------
    ValueError
        If a mask has not the shape of its map.
    """
    hits: list[bool | None] = []
    chances: list[float] = []
    for values, mask in zip(maps, masks, strict=True):
        if values.shape != mask.shape:
            raise ValueError(f"a mask of {mask.shape} for a map of {values.shape}")
        counts = mask.astype(bool)
        if counts.any() and tolerance > 0:
            counts = ndimage.distance_transform_edt(~counts) <= tolerance
        chances.append(float(counts.mean()))
        if not counts.any():
            hits.append(None)
        elif values.max() == values.min():
            hits.append(False)
        else:
            hits.append(bool(counts.flat[int(np.argmax(values))]))
    return PointingGame(hits=tuple(hits), chances=tuple(chances))
