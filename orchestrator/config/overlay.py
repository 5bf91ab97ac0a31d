"""One site file laid over another, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.config.loading import KeyPath, LineMap

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["merge"]


def merge(base: Mapping[str, Any], data: Mapping[str, Any], lines: LineMap) -> tuple[dict[str, Any], LineMap]:
    """Lay ``data`` over ``base``: mappings key by key, queues by their name, other values as a whole.

    Returns
    -------
    merged : dict
        What the two say together.
    lines : LineMap
        Where the keys of ``merged`` stand in the file of ``data``.
    """
    merged = _over(base, data)
    positions = dict(lines.positions)
    own, below = data.get("queues"), base.get("queues")
    if isinstance(own, list) and isinstance(below, list):
        queues, moved = _queues(below, own)
        merged["queues"] = queues
        positions = {_moved(keys, moved): position for keys, position in positions.items()}
    return merged, LineMap(lines.path, positions)


def _over(base: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in data.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _queues(base: list[Any], own: list[Any]) -> tuple[list[Any], dict[int, int]]:
    """Give the queues of both, and where each of ``own`` went.

    A row changes the row of ``base`` with its name (and its unit, where it says one) if there is
    just one such row; it is a new row if there is none; else it stands for all of them.
    """
    merged: list[Any] = list(base)
    moved: dict[int, int] = {}
    replaced: set[str] = set()
    for index, row in enumerate(own):
        name = row.get("name") if isinstance(row, dict) else None
        same = [
            place
            for place, other in enumerate(base)
            if isinstance(row, dict) and other["name"] == name and row.get("unit", other["unit"]) == other["unit"]
        ]
        if len(same) == 1:
            merged[same[0]] = {**merged[same[0]], **row}
            moved[index] = same[0]
        else:
            if same and isinstance(name, str):
                replaced.add(name)
            moved[index] = len(merged)
            merged.append(row)
    kept = [place for place in range(len(merged)) if place >= len(base) or base[place]["name"] not in replaced]
    places = {old: new for new, old in enumerate(kept)}
    return [merged[place] for place in kept], {
        index: places[place] for index, place in moved.items() if place in places
    }


def _moved(keys: KeyPath, moved: Mapping[int, int]) -> KeyPath:
    if len(keys) > 1 and keys[0] == "queues" and isinstance(keys[1], int):
        return (keys[0], moved.get(keys[1], keys[1]), *keys[2:])
    return keys
