"""The tasks, by name: each module of this package is one trial program, `head_ct_anomaly` the task ``head-ct-anomaly``.

A task's module has ``SUMMARY`` (one line), ``PARAMETERS``, ``add_arguments(parser)`` and
``run(options, params)``; one with phantoms has ``add_phantom_arguments(parser)`` and
``make_phantoms(options)`` too, and one that trains on patches ``step(params)``, what ``--fit`` tries. Importing it loads nothing heavy.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from workloads.errors import WorkloadError, did_you_mean

__all__ = ["NAMES", "load"]

NAMES = tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


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
