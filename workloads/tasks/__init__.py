"""The tasks, by name: each module is one trial program.

A task's module has ``SUMMARY`` (one line), ``PARAMETERS``, ``add_arguments(parser)`` and
``run(options, params)``; one with phantoms has ``add_phantom_arguments(parser)`` and
``make_phantoms(options)`` too, and one that trains on patches ``step(params)``, what ``--fit`` tries. Importing it loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import Any

from workloads.errors import WorkloadError, did_you_mean

__all__ = ["NAMES", "load"]

NAMES = ("aneurysm", "covid-2d", "covid-3d", "digits", "metastasis")


def load(name: str) -> Any:
    """The module of the task ``name``.

    Raises
    ------
    WorkloadError
        If there is no such task.
    """
    if name not in NAMES:
        raise WorkloadError(f"no task is called {name!r}", hint=did_you_mean(name, NAMES))
    return importlib.import_module(f"workloads.tasks.{name.replace('-', '_')}")
