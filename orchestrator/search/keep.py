"""Artefacts (models, predictions) and checkpoints are kept for the best trials only."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.jobs.fleet import Fleet

__all__ = ["Keeper"]


class Keeper:
    """Knows the best trials so far and removes what those that fall out have kept.

    Parameters
    ----------
    best : int
        How many trials keep their artefacts and checkpoints.
    maximize : bool
        Whether a larger value is better.
    """

    def __init__(self, best: int, *, maximize: bool) -> None:
        self._best = best
        self._sign = -1.0 if maximize else 1.0
        self._kept: dict[str, float] = {}

    async def resume(self, ended: Mapping[str, float], fleet: Fleet) -> None:
        """Take up the complete trials of earlier runs: folder of the attempt to objective value."""
        await fleet.remove(*self._fallen(ended))

    async def add(self, directory: str, value: float, fleet: Fleet) -> None:
        """A trial is complete."""
        await fleet.remove(*self._fallen({directory: value}))

    def _fallen(self, new: Mapping[str, float]) -> list[str]:
        self._kept.update(new)
        ranked = sorted(self._kept, key=lambda directory: (self._sign * self._kept[directory], directory))
        fallen = ranked[self._best :]
        for directory in fallen:
            del self._kept[directory]
        # A trial's attempts share one checkpoint, beside them.
        return [
            path
            for directory in fallen
            if directory
            for path in (f"{directory}/artifacts", f"{posixpath.dirname(directory)}/checkpoint")
        ]
