"""Earlier trials as points of a study's space: what fits, what does not, and what there is to say about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.config.parameters import CategoricalParameter, FixedParameter, FloatParameter, IntParameter, same
from orchestrator.errors import UsageError
from orchestrator.search.space import is_active
from orchestrator.store.rows import typed

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.model import Json
    from orchestrator.search.sources import Earlier, EarlierTrial

    Searched: TypeAlias = FloatParameter | IntParameter | CategoricalParameter
    EarlierPoint: TypeAlias = tuple[Mapping[str, Json], float | None]

__all__ = ["matched"]

_FEWEST = 2


def matched(study: Study, earlier: Earlier, *, direction: str | None = None) -> tuple[list[EarlierPoint], list[str]]:
    """Match earlier trials to a study's space by the names of the parameters.

    A trial with a value that the study cannot have (outside a range, no choice) is left out whole; one between two steps is
    moved to the nearest. What the source does not know of stays open, what the study does not know of is dropped.

    Parameters
    ----------
    direction : str, optional
        Which of the source's values are good, where study.yaml says so.

    Returns
    -------
    trials, lines
        Points of the study's space with values as the study would have been told them (None: failed), and in words what was
        taken and what does not match.

    Raises
    ------
    UsageError
        No parameter in common, hardly a trial that fits, or another direction under the same name.
    """
    lines = [f"{count} trials of the source are left out: {what}" for what, count in earlier.left_out.items()]
    sign = _sign(study, earlier, direction, lines)
    searched = {name: each for name, each in study.space.items() if not isinstance(each, FixedParameter)}
    present = {name for trial in earlier.trials for name in trial.params}
    if not present & set(searched):
        raise UsageError(
            f"warm_start: {earlier.place} has no parameter in common with study {study.name!r}",
            hint=f"it has {', '.join(sorted(present)) or 'none'}, and the study {', '.join(searched)}",
        )
    found: dict[str, list[tuple[Json | None, str]]] = {
        name: [_fitted(parameter, trial.params.get(name)) for trial in earlier.trials]
        for name, parameter in searched.items()
        if name in present
    }
    for name, parameter in study.space.items():
        if name in found:
            lines.extend(_said(name, parameter, earlier, found[name]))
        elif name in searched:
            lines.append(f"{name}: not in the source; nothing is known of it")
        elif others := _other_constants(study.space[name], name, earlier):
            lines.append(f"{name}: fixed here, and the source has {others} too")
    if further := sorted(present - set(study.space)):
        lines.append(f"not in this study, and left out of account: {', '.join(further)}")
    trials, strange = [], 0
    for index, trial in enumerate(earlier.trials):
        point = {name: values[index] for name, values in found.items()}
        params: dict[str, Json] = {name: value for name, (value, _) in point.items() if value is not None}
        if any(problem for _, problem in point.values()):
            continue
        if params:
            trials.append((_active(study, params), trial))
        else:
            strange += 1
    if strange:
        lines.append(f"{strange} trials have none of this study's parameters, and are left out")
    if sum(trial.value is not None for _, trial in trials) < _FEWEST:
        shown = "".join(f"\n    {line}" for line in lines)
        raise UsageError(
            f"warm_start: {len(trials)} of {len(earlier.trials)} trials of {earlier.place} fit study {study.name!r},"
            f" and {_FEWEST} with a value are needed{shown}",
            hint="widen the study's ranges, name another source, or leave warm_start out",
        )
    failed = sum(trial.value is None for _, trial in trials)
    lines.insert(
        0,
        f"{len(trials)} trials of {earlier.place}, by their {earlier.metric}"
        + (f"; {failed} of them failed" if failed else ""),
    )
    values = _values([trial for _, trial in trials], sign, minimize=study.targets[0].direction == "minimize")
    return [(params, value) for (params, _), value in zip(trials, values, strict=True)], lines


def _sign(study: Study, earlier: Earlier, direction: str | None, lines: list[str]) -> float:
    """What the source's values are multiplied by to have the objective's direction."""
    goal = study.targets[0]
    theirs = direction or earlier.direction or goal.direction
    if theirs == goal.direction:
        return 1.0
    if direction is None and earlier.metric == goal.metric:
        raise UsageError(
            f"warm_start: {earlier.place} has another goal: {theirs} {earlier.metric}, and study {study.name!r} is to"
            f" {goal.direction} it",
            hint=f"if that is meant, say so: warm_start: {{..., metric: {goal.metric}, direction: {theirs}}}",
        )
    lines.append(f"{earlier.metric} counts with the other sign: {theirs} there, {goal.direction} {goal.metric} here")
    return -1.0


def _fitted(parameter: Searched, found: Any) -> tuple[Json | None, str]:
    """The value in this study's space, and what is wrong with it; None and nothing where the trial has none."""
    if found is None:
        return None, ""
    value = typed(parameter, found)
    if isinstance(parameter, CategoricalParameter):
        return (value, "") if value is not None else (None, f"no choice here: {found}")
    if value is None:
        return None, "no whole number" if isinstance(parameter, IntParameter) else "no number"
    assert isinstance(value, int | float)
    if not parameter.low <= value <= parameter.high:
        return None, f"outside {parameter.low:g} .. {parameter.high:g}"
    step = parameter.step
    if step is None:
        return value, ""
    last = math.floor((parameter.high - parameter.low) / step + 1e-9)
    snapped = parameter.low + min(last, round((value - parameter.low) / step)) * step
    return (round(snapped) if isinstance(parameter, IntParameter) else float(f"{snapped:.12g}")), ""


def _said(name: str, parameter: Any, earlier: Earlier, found: Sequence[tuple[Json | None, str]]) -> list[str]:
    """How a parameter differs there, and what that costs."""
    problems = Counter(problem for _, problem in found if problem)
    total = len(found)
    lines = [f"{name}: {problem}: {count} of {total} trials are left out" for problem, count in problems.items()]
    moved = sum(
        value is not None and not same(typed(parameter, trial.params[name]), value)
        for trial, (value, _) in zip(earlier.trials, found, strict=True)
    )
    if moved:
        lines.append(f"{name}: {moved} of {total} trials lie between the steps, and are moved to the nearest one")
    there = earlier.space.get(name, {})
    if there and (words := _difference(there, parameter)):
        lines.insert(0, f"{name}: {words}")
    return lines


def _difference(there: Mapping[str, Any], parameter: Searched) -> str:
    kind = there.get("type")
    if kind == "fixed":
        return f"fixed at {there.get('value')} there"
    if kind != parameter.type:
        return f"{kind} there, {parameter.type} here"
    if isinstance(parameter, CategoricalParameter):
        choices = there.get("choices") or ()
        missing = [each for each in parameter.choices if not any(same(each, other) for other in choices)]
        return (
            f"{', '.join(map(str, missing))} {'is' if len(missing) == 1 else 'are'} no choice there" if missing else ""
        )
    if (there.get("low"), there.get("high")) == (parameter.low, parameter.high):
        return ""
    low, high = (
        f"{each:g}" if isinstance(each, int | float) else "?" for each in (there.get("low"), there.get("high"))
    )
    return f"{low} .. {high} there, {parameter.low:g} .. {parameter.high:g} here"


def _other_constants(parameter: Any, name: str, earlier: Earlier) -> str:
    values = dict.fromkeys(
        str(trial.params[name])
        for trial in earlier.trials
        if name in trial.params and typed(parameter, trial.params[name]) is None
    )
    return ", ".join([*list(values)[:4], *(["..."] if len(values) > 4 else [])])


def _active(study: Study, params: dict[str, Json]) -> dict[str, Json]:
    """Without what does not exist here, where the source says so: a parameter whose parents have other values."""
    constants = {name: each.value for name, each in study.space.items() if isinstance(each, FixedParameter)}
    known = constants | params
    return {
        name: value
        for name, value in params.items()
        if not set(study.space[name].when) <= set(known) or is_active(study.space[name], known)
    }


def _values(trials: Sequence[EarlierTrial], sign: float, *, minimize: bool) -> list[float | None]:
    """Values in the study's direction; a pruned trial counts as no better than the median of the complete ones."""
    values = [None if trial.value is None else sign * trial.value for trial in trials]
    complete = [value for value, trial in zip(values, trials, strict=True) if value is not None and not trial.pruned]
    if not complete:
        return values
    middle, worse = median(complete), max if minimize else min
    return [
        worse(value, middle) if value is not None and trial.pruned else value
        for value, trial in zip(values, trials, strict=True)
    ]
