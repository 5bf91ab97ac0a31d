"""Ready-made emulated clusters: a dialect, the rules that go with it, and the site profile that meets it."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.simulate.batchjob import Rules
from orchestrator.simulate.dialects.base import Dialect
from orchestrator.simulate.dialects.gridengine import GridEngineDialect
from orchestrator.simulate.dialects.pbs import PBSDialect
from orchestrator.simulate.dialects.pjm import PJMDialect
from orchestrator.simulate.dialects.slurm import SlurmDialect

if TYPE_CHECKING:
    from orchestrator.config.site import Site

__all__ = ["FLAVOURS", "Flavour", "flavour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """One kind of cluster.

    Attributes
    ----------
    dialect : callable
        Makes the dialect.
    profile : str
        The shipped site profile for this scheduler; ``changes`` are what this cluster needs changed in it.
    rules : mapping
        Fields of `Rules` that the scheduler has its own way with.
    """

    name: str
    dialect: Callable[[], Dialect]
    profile: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)

    def make_rules(self, **changes: Any) -> Rules:
        """Rules of this cluster, with further ``changes``."""
        return Rules(**{**self.rules, **changes})

    def site(self, **changes: Any) -> Site:
        """The site profile for this cluster, with further ``changes``.

        Raises
        ------
        UsageError
            If a change is not one that a site can have.
        """
        from orchestrator.config.site import Site, load_site

        base = load_site(self.profile)
        data = base.model_dump(exclude={"extends"}, exclude_unset=True)
        return Site.model_validate({**data, **self.changes, "name": f"simulated-{self.name}", **changes})


# Slurm's EnforcePartLimits is off unless a site sets it.
_SLURM = {
    "limit_signal": signal.SIGTERM,
    "kill_wait": 30.0,
    "elements_take_numbers": True,
    "refuse_over_limit": False,
}
# PBS takes finished jobs out of the list at once; its walltime check is every ten seconds or so.
_PBS = {
    "keep_finished": 0.0,
    "kill_wait": 10.0,
    "limit_late": 10.0,
    "requeue_signal": signal.SIGKILL,
    "refuse_impossible": False,
    "keep_elements": True,
}
_PJM = {"limit_signal": signal.SIGXCPU, "kill_wait": 10.0, "keep_finished": 60.0}
# Grid Engine kills at once unless it was asked to notify, and flushes its accounting file now and then.
_GE = {
    "limit_signal": signal.SIGKILL,
    "cancel_signal": signal.SIGKILL,
    "requeue_signal": signal.SIGKILL,
    "keep_finished": 0.0,
    "history_lag": 15.0,
    "refuse_impossible": False,
}

FLAVOURS: Mapping[str, Flavour] = {
    item.name: item
    for item in (
        Flavour(name="slurm", dialect=SlurmDialect, profile="slurm", rules=_SLURM),
        Flavour(
            name="slurm-noacct",
            dialect=SlurmDialect,
            profile="slurm",
            changes={"history": False},
            rules={**_SLURM, "history": False},
        ),
        Flavour(name="pbs", dialect=PBSDialect, profile="pbs", changes={"history": True}, rules=_PBS),
        Flavour(
            name="pbs-json",
            dialect=PBSDialect,
            profile="pbs",
            changes={"history": True, "adaptor": {"format": "json"}},
            rules=_PBS,
        ),
        Flavour(name="pbs-nohistory", dialect=PBSDialect, profile="pbs", rules={**_PBS, "history": False}),
        Flavour(
            name="pbs-wrapped",
            dialect=lambda: PBSDialect(site_list="rbstat"),
            profile="pbs",
            changes={"commands": {"qstat": "rbstat"}, "adaptor": {"dialect": "wrapped"}},
            rules={**_PBS, "history": False},
        ),
        Flavour(name="pjm", dialect=PJMDialect, profile="pjm", rules=_PJM),
        Flavour(
            name="pjm-stock",
            dialect=lambda: PJMDialect(form="stock", errors_return=0),
            profile="pjm",
            changes={"adaptor": {"dialect": "stock"}},
            rules=_PJM,
        ),
        Flavour(
            name="pjm-wrapped",
            dialect=lambda: PJMDialect(form="wrapped"),
            profile="pjm",
            changes={"adaptor": {"dialect": "wrapped"}},
            rules={**_PJM, "array_size": 0},
        ),
        Flavour(name="gridengine", dialect=GridEngineDialect, profile="gridengine", rules=_GE),
        Flavour(
            name="gridengine-altair",
            dialect=lambda: GridEngineDialect(deleted_by=True),
            profile="gridengine",
            rules=_GE,
        ),
    )
}
"""All ready-made clusters by name."""


def flavour(name: str) -> Flavour:
    """The flavour ``name``.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name not in FLAVOURS:
        close = difflib.get_close_matches(name, FLAVOURS, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise UsageError(f"there is no emulated cluster {name!r}", hint=f"{hint}Known: {', '.join(FLAVOURS)}.")
    return FLAVOURS[name]
