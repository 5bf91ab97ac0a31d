"""Samplers for anyone's Optuna study: `BOSampler` first, and the others by name.

Importing this package is light; Optuna comes in with the first name that is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.samplers.bo import BOSampler
    from orchestrator.samplers.grid import GridSampler
    from orchestrator.samplers.per_trial import PerTrial
    from orchestrator.samplers.registry import MODEL_BASED, NAMES, make_sampler
    from orchestrator.samplers.seeding import trial_seed
    from orchestrator.samplers.skopt import SkoptSampler
    from orchestrator.samplers.sobol import SobolSampler

__all__ = [
    "MODEL_BASED",
    "NAMES",
    "BOSampler",
    "GridSampler",
    "PerTrial",
    "SkoptSampler",
    "SobolSampler",
    "make_sampler",
    "trial_seed",
]

_HOME = {
    "MODEL_BASED": "registry",
    "NAMES": "registry",
    "BOSampler": "bo",
    "GridSampler": "grid",
    "PerTrial": "per_trial",
    "SkoptSampler": "skopt",
    "SobolSampler": "sobol",
    "make_sampler": "registry",
    "trial_seed": "seeding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
