"""How well a study has done so far, by its driver's events: the best trial, or of several objectives the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.store.front import front

__all__ = ["Standing"]


class Standing:
    """The best of the trials that keep to all constraints.

    Parameters
    ----------
    goals : sequence of tuple
        Metric and direction (``maximize`` or ``minimize``) of each objective.
    before : mapping of str to sequence of float, optional
        Values of the best trials of earlier runs, by the name of the trial.
    """

    def __init__(self, goals: Sequence[tuple[str, str]], before: Mapping[str, Sequence[float]] | None = None) -> None:
        self._metrics = tuple(metric for metric, _ in goals)
        self._directions = tuple(direction for _, direction in goals)
        self._best = {name: tuple(values) for name, values in (before or {}).items()}
        self._broken = 0

    def take(self, name: str, values: Sequence[float], broken: Sequence[str]) -> bool:
        """Count a complete trial; whether it is the best so far, or on the front."""
        if broken:
            self._broken += 1
            return False
        names = [*self._best, name]
        points = [*self._best.values(), tuple(values)]
        on = front(points, self._directions)
        if len(names) - 1 not in on:
            return False
        if len(self._directions) == 1 and len(on) > 1:  # as good as the best is not better
            return False
        self._best = {names[place]: points[place] for place in on}
        return True

    def words(self, values: Sequence[float], broken: Sequence[str], *, best: bool) -> str:
        """A trial's values in words: ``loss 0.25 (best)``."""
        said = ", ".join(f"{name} {value:.6g}" for name, value in zip(self._metrics, values, strict=False))
        if broken:
            return f"{said} (breaks {', '.join(broken)})"
        return said + (f" ({'best' if len(self._metrics) == 1 else 'on the front'})" if best else "")

    def summary(self) -> str:
        """``best loss 0.25 (trial 7)``, or ``front of 5``; empty where there is none."""
        broken = f"{self._broken} infeasible" if self._broken else ""
        found = ""
        if self._best and len(self._metrics) > 1:
            found = f"front of {len(self._best)}"
        elif self._best:
            ((name, values),) = self._best.items()
            found = f"best {self._metrics[0]} {values[0]:.6g} (trial {name})"
        return ", ".join(filter(None, (broken, found)))
