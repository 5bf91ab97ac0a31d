"""A study's space in Optuna's terms: distributions, define-by-run suggestions, conditions, the exact grid."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from orchestrator.config.parameters import (
    CategoricalParameter,
    FixedParameter,
    FloatParameter,
    IntParameter,
    in_order,
    same,
)
from orchestrator.config.where import condition
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    from orchestrator.model import Json
    from orchestrator.samplers.within import Asked

    AnyParameter = FloatParameter | IntParameter | CategoricalParameter | FixedParameter

__all__ = ["LARGEST_GRID", "admitter", "distributions", "grid", "is_active", "suggest", "validate"]

LARGEST_GRID = 1_000_000


def _distribution(
    parameter: AnyParameter,
) -> FloatDistribution | IntDistribution | CategoricalDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, FloatParameter):
        high = _reached(parameter) if parameter.step else parameter.high
        return FloatDistribution(parameter.low, high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, IntParameter):
        step = parameter.step or 1
        high = parameter.high - (parameter.high - parameter.low) % step
        return IntDistribution(parameter.low, high, log=parameter.log, step=step)
    assert isinstance(parameter, CategoricalParameter)
    return CategoricalDistribution(parameter.choices)


def _steps(parameter: FloatParameter) -> int:
    """Count the steps between low and the last value that is not above high, but for rounding."""
    assert parameter.step is not None
    return int((parameter.high - parameter.low) / parameter.step + 1e-8)


def _reached(parameter: FloatParameter) -> float:
    """Find the last value on the step, which Optuna wants as high; high itself where rounding alone parts them."""
    last = _at(parameter, _steps(parameter))
    return parameter.high if abs(last - parameter.high) <= 1e-8 * (parameter.step or 1.0) else last


def _at(parameter: FloatParameter, index: int) -> float:
    assert parameter.step is not None
    # 12 digits: 0.1 + 2 * 0.1 is 0.3, not 0.30000000000000004, in file names, tables and reports.
    return float(f"{parameter.low + index * parameter.step:.12g}")


def is_active(parameter: AnyParameter, params: Mapping[str, Any]) -> bool:
    """Whether ``parameter`` exists where its parents have the values in ``params``."""
    return all(
        parent in params and any(same(params[parent], value) for value in allowed)
        for parent, allowed in parameter.when.items()
    )


def distributions(space: Mapping[str, AnyParameter]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each parameter that is searched; fixed ones have none."""
    return {name: _distribution(space[name]) for name in in_order(space) if not isinstance(space[name], FixedParameter)}


def admitter(space: Mapping[str, AnyParameter], where: Sequence[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Make a function that says whether a point meets the conditions ``where``.

    Parameters with one value need not be in the point, and what it has of parameters that are not active does not matter:
    a condition that speaks of such a one holds.
    """
    conditions = [condition(text) for text in where]
    order = in_order(space)

    def admits(params: Mapping[str, Any]) -> bool:
        point: dict[str, Any] = {}
        for name in order:
            parameter = space[name]
            if is_active(parameter, point):
                if (only := _only_value(parameter)) is not None:
                    point[name] = only
                elif name in params:
                    point[name] = params[name]
        return all(each.holds(point) for each in conditions)

    return admits


def _only_value(parameter: AnyParameter) -> Json:
    """The value of a parameter that has but one; None of others."""
    if isinstance(parameter, FixedParameter):
        value: Json = parameter.value
        return value
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[0] if len(parameter.choices) == 1 else None
    return parameter.low if parameter.low == parameter.high else None


def suggest(space: Mapping[str, AnyParameter], trial: optuna.Trial | Asked) -> dict[str, Json]:
    """Ask ``trial`` for its parameters, parents before those that depend on them.

    Returns
    -------
    params : dict
        All active parameters in the order of the space, fixed ones included; inactive ones are absent.
    """
    found: dict[str, Json] = {}
    for name in in_order(space):
        parameter = space[name]
        if is_active(parameter, found):
            found[name] = (
                parameter.value if isinstance(parameter, FixedParameter) else _suggested(trial, name, parameter)
            )
    return {name: found[name] for name in space if name in found}


def _suggested(trial: optuna.Trial | Asked, name: str, parameter: AnyParameter) -> Json:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    distribution = _distribution(parameter)
    if isinstance(distribution, CategoricalDistribution):
        chosen: Json = trial.suggest_categorical(name, distribution.choices)
        return chosen
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def grid(space: Mapping[str, AnyParameter], where: Sequence[str] = ()) -> list[dict[str, Json]]:
    """Every point of the space once that meets the conditions ``where``, the last parameter changing fastest.

    Raises
    ------
    UsageError
        If a real parameter has no step, the grid has more than a million points, or none meets the conditions.
    """
    order = in_order(space)
    values = {name: _values(name, space[name]) for name in order}
    points: list[dict[str, Json]] = [{}]
    for name in order:
        parameter = space[name]
        points = list(
            itertools.islice(
                (
                    {**point, name: value} if value is not _ABSENT else point
                    for point in points
                    for value in (values[name] if is_active(parameter, point) else [_ABSENT])
                ),
                LARGEST_GRID + 1,
            )
        )
        if len(points) > LARGEST_GRID:
            raise UsageError(
                f"the grid has more than {LARGEST_GRID} points, counted up to parameter {name}",
                hint="Give larger steps or fewer choices, or use another sampler.",
            )
    admits = admitter(space, where)
    kept = [{name: point[name] for name in space if name in point} for point in points if admits(point)]
    if not kept:
        raise UsageError(f"none of the {len(points)} points of the grid meets {_listed(where)}", hint=_SEE_WHERE)
    return kept


_SEE_WHERE = "see `where` in study.yaml"


def _listed(where: Sequence[str]) -> str:
    return "the condition " + repr(where[0]) if len(where) == 1 else f"all of the {len(where)} conditions of `where`"


_ABSENT: Any = object()


def _values(name: str, parameter: AnyParameter) -> list[Any]:
    if isinstance(parameter, FixedParameter):
        return [parameter.value]
    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if isinstance(parameter, IntParameter):
        count = (parameter.high - parameter.low) // (parameter.step or 1) + 1
        _bounded(name, count)
        return list(range(parameter.low, parameter.high + 1, parameter.step or 1))
    if parameter.low == parameter.high:
        return [parameter.low]
    if parameter.step is None:
        raise UsageError(
            f"parameter {name} is a real number without a step: a grid over it has no end",
            hint="Give it a step, make it categorical with choices, or use another sampler.",
        )
    count = _steps(parameter) + 1
    _bounded(name, count)
    return [_at(parameter, index) for index in range(count)]


def _bounded(name: str, count: int) -> None:
    if count > LARGEST_GRID:
        raise UsageError(f"parameter {name} alone has {count} values, above the grid's {LARGEST_GRID} points")


def validate(space: Mapping[str, AnyParameter], params: Mapping[str, Any], where: Sequence[str] = ()) -> None:
    """Check that ``params`` is a point of the space: all that is active, and nothing else; it meets ``where``.

    Raises
    ------
    UsageError
        Naming the parameter and what is wrong with it.
    """
    from orchestrator.config.loading import did_you_mean

    for name in params:
        if name not in space:
            near = did_you_mean(name, space)
            raise UsageError(f"there is no parameter {name}", hint=near or f"The parameters are {', '.join(space)}.")
    for name in in_order(space):
        parameter = space[name]
        active = is_active(parameter, params)
        if active and name not in params:
            raise UsageError(f"parameter {name} is missing")
        if name in params and not active:
            raise UsageError(f"parameter {name} does not exist here: {_condition(parameter)}")
        if active and not parameter.admits(params[name]):
            raise UsageError(f"parameter {name} cannot be {params[name]!r}")
    for text in where:
        if not admitter(space, [text])(params):
            raise UsageError(f"the point does not meet the condition {text!r}", hint=_SEE_WHERE)


def _condition(parameter: AnyParameter) -> str:
    return "it needs " + " and ".join(
        f"{parent} = {' or '.join(str(value) for value in allowed)}" for parent, allowed in parameter.when.items()
    )
