"""Schedulers by name: ours, and those that other packages bring.

A package brings one by an entry point of the group ``survey_orchestrator.schedulers`` whose object is a
subclass of `Scheduler`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping

from orchestrator.errors import UsageError
from orchestrator.schedulers.base import Scheduler, SchedulerOptions

__all__ = ["GROUP", "make_scheduler", "scheduler_names"]

GROUP = "survey_orchestrator.schedulers"

# Module and class, imported when asked for: a study needs one.
_OURS: Mapping[str, tuple[str, str]] = {
    "gridengine": ("orchestrator.schedulers.gridengine", "GridEngine"),
    "local": ("orchestrator.schedulers.local", "Local"),
    "pbs": ("orchestrator.schedulers.pbs", "PBS"),
    "pjm": ("orchestrator.schedulers.pjm", "PJM"),
    "slurm": ("orchestrator.schedulers.slurm", "Slurm"),
}


def scheduler_names() -> tuple[str, ...]:
    """Names that `make_scheduler` knows, sorted."""
    return tuple(sorted({*_OURS, *(point.name for point in importlib.metadata.entry_points(group=GROUP))}))


def make_scheduler(name: str, options: SchedulerOptions | None = None) -> Scheduler:
    """Make the adaptor ``name``.

    Raises
    ------
    UsageError
        If there is none of that name, if the package that brings it is broken, or if ``options.extra`` has
        something that the adaptor does not understand.
    """
    options = options or SchedulerOptions()
    adaptor = _adaptor(name)
    understood: frozenset[str] | None = getattr(adaptor, "extras", None)
    for key in options.extra:
        if understood is not None and key not in understood:
            raise UsageError(f"scheduler {name!r} does not understand the option {key!r}", hint=_hint(key, understood))
    return adaptor(options)


def _adaptor(name: str) -> type[Scheduler]:
    if name in _OURS:
        module, attribute = _OURS[name]
        ours: type[Scheduler] = getattr(importlib.import_module(module), attribute)
        return ours
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        package = point.dist.name if point.dist is not None else point.value
        try:
            brought = point.load()
        except Exception as error:  # whatever a foreign package raises while it is imported
            raise UsageError(
                f"scheduler {name!r} of the package {package!r} cannot be loaded: {error}",
                hint=f"Install the package again, or ask its authors; its entry point is {point.value!r}.",
            ) from error
        if not (isinstance(brought, type) and issubclass(brought, Scheduler)):
            raise UsageError(
                f"scheduler {name!r} of the package {package!r} is no Scheduler: {point.value!r}",
                hint="The entry point must name a subclass of orchestrator.schedulers.base.Scheduler.",
            )
        return brought
    raise UsageError(f"unknown scheduler {name!r}", hint=_hint(name, scheduler_names()))


def _hint(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    listed = f"Known: {', '.join(known) or 'none'}."
    return f"Did you mean {close[0]!r}? {listed}" if close else listed
