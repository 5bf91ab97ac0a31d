"""Artefacts (models, predictions) and checkpoints are kept for the best trials only."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.store.front import fronts

if TYPE_CHECKING:
    from orchestrator.jobs.fleet import Fleet

__all__ = ["Keeper"]


class Keeper:
    """Knows the best trials so far and removes what those that fall out have kept.

    Parameters
    ----------
    best : int
        How many trials keep their artefacts and checkpoints. Of several objectives the whole front does, and no less
        than so many; 0 is none.
    directions : sequence of str
        ``maximize`` or ``minimize`` for each objective.
    """

    def __init__(self, best: int, directions: Sequence[str]) -> None:
        self._best = best
        self._directions = tuple(directions)
        self._kept: dict[tuple[str, ...], tuple[float, ...]] = {}

    async def resume(self, ended: Mapping[tuple[str, ...], Sequence[float] | None], fleet: Fleet) -> None:
        """Take up the complete trials of earlier drivers: folders of each one's attempts to its values."""
        await fleet.remove(*self._fallen(ended))

    async def add(self, directories: Sequence[str], values: Sequence[float] | None, fleet: Fleet) -> None:
        """A trial is complete, whose runs' last attempts have left their files in ``directories``.

        Without values it breaks a constraint, and keeps nothing.
        """
        await fleet.remove(*self._fallen({tuple(directories): values}))

    def _fallen(self, new: Mapping[tuple[str, ...], Sequence[float] | None]) -> list[str]:
        fallen = [directories for directories, values in new.items() if values is None]
        self._kept.update({directories: tuple(values) for directories, values in new.items() if values is not None})
        for directories in self._ranked()[self._most() :]:
            del self._kept[directories]
            fallen.append(directories)
        # A run's attempts share one checkpoint, beside them.
        return [
            path
            for directories in fallen
            for directory in directories
            if directory
            for path in (f"{directory}/artifacts", f"{posixpath.dirname(directory)}/checkpoint")
        ]

    def _ranked(self) -> list[tuple[str, ...]]:
        """Folders of the trials, best first."""
        names = sorted(self._kept)
        return [names[place] for on in self._fronts(names) for place in on]

    def _most(self) -> int:
        if not self._best or len(self._directions) == 1:
            return self._best
        return max(self._best, len(next(iter(self._fronts(sorted(self._kept))), [])))

    def _fronts(self, names: Sequence[tuple[str, ...]]) -> list[list[int]]:
        return list(fronts([self._kept[name] for name in names], self._directions))
