"""How a driver behaves on a login node that it shares with everybody."""

from __future__ import annotations

import os
import sys

__all__ = ["hold_threads"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def hold_threads() -> None:
    """Hold this process's linear algebra to one thread, without handing that on to the jobs.

    The libraries read the variables when they are loaded, so they are set for that moment only.
    """
    if "numpy" in sys.modules:
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        import numpy  # noqa: F401, ICN001  loaded for its effect
        import scipy.linalg  # noqa: F401  loaded for its effect
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
