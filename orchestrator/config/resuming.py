"""What may change between two runs of a study, and what would make it another study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences", "frozen"]

_ABSENT = object()

# What a trial computes, and what the trials' numbers mean. All else may be mended on the way: how many
# trials, how many at a time, where and with how much memory and time they run, how failures are met.
_FROZEN = (
    "name",
    "objective",
    "objectives",
    "constraints",
    "space",
    "where",
    "sampler",
    "warm_start",
    "command",
    "workdir",
    "environment",
    "read",
    "repeats",
    "storage",
)
_FROZEN_RESOURCES = ("gpus", "nodes")


def frozen(study: Mapping[str, Any]) -> dict[str, Any]:
    """Take the part of a study's plain data that may not change."""
    kept = {key: study[key] for key in _FROZEN if key in study}
    return {**kept, "resources": {key: study["resources"][key] for key in _FROZEN_RESOURCES}}


def _leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, (*keys, str(key)))
    else:
        yield ".".join(keys), value


def _said(value: Any) -> str:
    return "(none)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _equal(one: Any, other: Any) -> bool:
    # 1 and 1.0 are the same bound; 1 and true are not the same choice.
    return one is not _ABSENT and other is not _ABSENT and json.dumps(_level(one)) == json.dumps(_level(other))


def _level(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_level(item) for item in value] if isinstance(value, list) else value


def _lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    lines = []
    for key in dict.fromkeys((*before, *after)):
        one, other = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if not _equal(one, other):
            lines.append(f"{key}: {_said(one)} -> {_said(other)}")
    return lines


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Lines of what may not change and has, and of what has changed and may.

    Parameters
    ----------
    old, new : mapping
        `Study.to_data` of the study as it was begun, and as it is now asked for.
    """
    forbidden = _lines(frozen(old), frozen(new))
    every = _lines(old, new)
    allowed = [line for line in every if line not in forbidden]
    if new["trials"] < old["trials"]:
        line = f"trials: {old['trials']} -> {new['trials']}"
        allowed.remove(line)
        forbidden.append(f"{line} (trials may only grow)")
    return forbidden, allowed
