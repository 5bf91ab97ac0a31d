"""Which parameter sets a plain survey runs: products, zips and lists, with values that may be computed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from orchestrator.errors import UsageError

__all__ = ["Combinations", "Parameters", "expand", "product", "together"]

Combinations: TypeAlias = list[tuple[tuple[int, ...], dict[str, Any]]]
"""Parameter sets, each with its index along every axis (the suffix of the job's id)."""

Parameters: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | Combinations | None"


def product(**axes: Iterable[Any]) -> Combinations:
    """Every combination of the values of each axis; ids end in one index an axis: ``_0_2``.

    Examples
    --------
    >>> [values for _, values in product(a=[1, 2], b=["x"])]
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    columns = [list(values) for values in axes.values()]
    return [
        (index, {name: column[i] for name, column, i in zip(axes, columns, index, strict=True)})
        for index in itertools.product(*(range(len(column)) for column in columns))
    ]


def together(**axes: Iterable[Any]) -> Combinations:
    """The first values of all axes together, then the second ones...; all axes must be of one length.

    Examples
    --------
    >>> [values for _, values in together(a=[1, 2], b=["x", "y"])]
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    columns = {name: list(values) for name, values in axes.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"together() needs axes of one length, not {lengths}")
    count = next(iter(lengths.values()), 0)
    return [((i,), {name: column[i] for name, column in columns.items()}) for i in range(count)]


def expand(params: Parameters) -> Combinations:
    """Parameter sets of a survey, from any of the forms that `Survey.prepare` takes.

    A value that is callable is called with the set as far as it is made, in the order of the keys.
    """
    if params is None:
        sets: Combinations = [((), {})]
    elif isinstance(params, Mapping):
        sets = [((), dict(params))]
    else:
        items: Sequence[Mapping[str, Any] | tuple[tuple[int, ...], dict[str, Any]]] = params
        sets = [item if isinstance(item, tuple) else ((i,), dict(item)) for i, item in enumerate(items)]
    return [(index, _computed(values)) for index, values in sets]


def _computed(values: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in values.items():
        compute: Callable[[Mapping[str, Any]], Any] | None = value if callable(value) else None
        made[name] = value if compute is None else compute(made)
    return made
