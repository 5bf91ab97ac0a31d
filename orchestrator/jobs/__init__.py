"""Jobs on a site: the session, and the plain survey over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.jobs.parameters import product as product
    from orchestrator.jobs.parameters import together as together
    from orchestrator.jobs.plain import Survey as Survey
    from orchestrator.jobs.plain import survey as survey
    from orchestrator.jobs.session import Session as Session

_HOMES = {
    "Session": "session",
    "Survey": "plain",
    "product": "parameters",
    "survey": "plain",
    "together": "parameters",
}

__all__ = ["Session", "Survey", "product", "survey", "together"]


def __getattr__(name: str) -> Any:
    # Imported late: a session needs pydantic and jinja2, a script that only names parameters does not.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"orchestrator.jobs.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
