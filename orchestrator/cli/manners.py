"""How a driver behaves on a login node that it shares with everybody: quiet, patient, discreet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.site import Site

__all__ = ["be_nice", "be_private", "hold_threads"]

_PRIVATE = 0o077
_NICE = "SURVEY_NICE"
_DEFAULT_NICE = 5
_NICEST = 19
# In a job of its own the driver disturbs nobody.
_INSIDE_A_JOB = ("SLURM_JOB_ID", "PBS_JOBID", "PJM_JOBID", "JOB_ID")
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


def be_nice(sites: Iterable[Site]) -> int:
    """Let this process stand back behind others on a login node; its niceness from then on.

    ``SURVEY_NICE`` says by how much, 0 for not at all. Jobs of the scheduler ``local`` are children of
    this process and would inherit it: where one of ``sites`` has that, nothing changes. Nor does it in a batch job.

    Raises
    ------
    UsageError
        If ``SURVEY_NICE`` is no number from 0 to 19.
    """
    asked = os.environ.get(_NICE, "").strip() or str(_DEFAULT_NICE)
    if not (asked.isascii() and asked.isdecimal()) or int(asked) > _NICEST:
        raise UsageError(
            f"{_NICE} is {asked!r}, which is no niceness",
            hint=f"a number from 0 (as other programs) to {_NICEST}; {_DEFAULT_NICE} if it is not set",
        )
    now = os.getpriority(os.PRIO_PROCESS, 0)
    is_local = any(site.scheduler == "local" for site in sites)
    if is_local or any(os.environ.get(name) for name in _INSIDE_A_JOB):
        return now
    return os.nice(max(0, int(asked) - now))


def be_private() -> None:
    """Let nobody else read what this process and its children write, unless a file's maker says so."""
    os.umask(_PRIVATE)
