"""What made a result: versions of the packages that take part, and a fingerprint of our own samplers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orchestrator.samplers

__all__ = ["versions"]

# Of every engine; then what an engine has beside.
COMMON = ("survey-orchestrator", "optuna", "numpy", "scipy")
OWN = {
    "gp": ("torch",),
    "cmaes": ("cmaes",),
    "skopt": ("scikit-optimize",),
    "smac": ("smac", "ConfigSpace"),
    "botorch": ("botorch", "gpytorch", "torch"),
}


def versions(engine: str) -> Mapping[str, str]:
    """Versions behind an engine's result; ``samplers`` changes with our samplers' code, whose version may not."""
    names = (*COMMON, *OWN.get(engine, ()))
    return {**{name: _version(name) for name in names}, "samplers": _samplers()}


@functools.cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


@functools.cache
def _samplers() -> str:
    folder = Path(orchestrator.samplers.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]
