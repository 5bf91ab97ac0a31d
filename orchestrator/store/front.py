"""The Pareto front: points that no other one is as good as in all objectives and better than in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["front", "fronts"]


def front(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Places of the points on the front, in the order of ``points``; equal points are on it together.

    Parameters
    ----------
    directions : sequence of str
        ``maximize`` or ``minimize`` for each coordinate.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    losses = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    found: list[tuple[float, ...]] = []
    # In this order no point can dominate an earlier one, so each is compared with the front so far alone.
    for loss in sorted(set(losses)):
        if not any(all(one <= other for one, other in zip(better, loss, strict=True)) for better in found):
            found.append(loss)
    on = set(found)
    return [place for place, loss in enumerate(losses) if loss in on]


def fronts(points: Sequence[Sequence[float]], directions: Sequence[str]) -> Iterator[list[int]]:
    """Places of the points front by front: the front, then that of those left without it, and so on."""
    left = list(range(len(points)))
    while left:
        on = [left[place] for place in front([points[place] for place in left], directions)]
        yield on
        taken = set(on)
        left = [place for place in left if place not in taken]
