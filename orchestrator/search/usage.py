"""What a study has used of its sites, in GPU-hours and node-hours: every attempt counts, the failed ones too.

The times are the agent's own, from the command's start to its end, as the ledger has them. Sites charge
by their own rules on top of that (whole minutes, the job's prologue, a project's factor).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from orchestrator.jobs.placement import Placement, place
from orchestrator.search.assignment import study_resources
from orchestrator.search.layout import trial_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config.site import Site
    from orchestrator.model import Attempt
    from orchestrator.search.places import Place
    from orchestrator.store.ledger import Ledger
    from orchestrator.store.record import TrialRecord

__all__ = ["Hours", "Usage", "share_of_node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """An amount of a site's machines."""

    gpu_hours: float = 0.0
    node_hours: float = 0.0

    def __add__(self, other: Hours) -> Hours:
        return Hours(gpu_hours=self.gpu_hours + other.gpu_hours, node_hours=self.node_hours + other.node_hours)


class Usage:
    """Adds up the attempts of a study.

    Parameters
    ----------
    places : sequence of Place
        The study's sites.
    """

    def __init__(self, ledger: Ledger, places: Sequence[Place]) -> None:
        self._ledger = ledger
        self._runs = places[0].study.repeats
        self._of_trials: dict[int, Hours] = {}
        self._per_hour: dict[str, Hours] = {}
        for each in places:
            resources = study_resources(each.study)
            placement = place(each.site, resources, each.study.batch, attempts=each.study.parallel)
            nodes = placement.nodes * share_of_node(each.site, placement)
            self._per_hour[each.site.name] = Hours(gpu_hours=resources.gpus * resources.nodes, node_hours=nodes)
        self._first = next(iter(self._per_hour))

    def load(self, trials: Iterable[TrialRecord]) -> None:
        """Count trials: those that have ended as they were told, the others by the ledger."""
        for trial in trials:
            if trial.used:
                self._of_trials[trial.number] = Hours(**trial.used)
            elif trial.state != "waiting":
                self.count(trial.number)

    def count(self, number: int) -> Hours:
        """Count the attempts of one trial that have ended; may be called again as more of them end."""
        attempts = [each for key in trial_keys(number, self._runs) for each in self._ledger.attempts(key)]
        self._of_trials[number] = sum(map(self._hours, attempts), Hours())
        return self._of_trials[number]

    @property
    def total(self) -> Hours:
        """What has been used."""
        return sum(self._of_trials.values(), Hours())

    @property
    def trials(self) -> int:
        """How many trials have used it."""
        return sum(hours.node_hours > 0 for hours in self._of_trials.values())

    def ahead(self, flying: Iterable[int]) -> Hours:
        """What trials in flight are likely to use yet: each comes to as much as the mean of those that have ended."""
        flying = set(flying)
        over = [each for number, each in self._of_trials.items() if number not in flying and each.node_hours > 0]
        if not over:
            return Hours()
        gpus, nodes = (fmean(each.gpu_hours for each in over), fmean(each.node_hours for each in over))
        used = [self._of_trials.get(number, Hours()) for number in flying]
        return Hours(
            gpu_hours=sum(max(0.0, gpus - each.gpu_hours) for each in used),
            node_hours=sum(max(0.0, nodes - each.node_hours) for each in used),
        )

    def _hours(self, attempt: Attempt) -> Hours:
        outcome = attempt.outcome
        if outcome is None or outcome.started is None or outcome.ended is None:
            return Hours()
        hours = max(0.0, outcome.ended - outcome.started) / 3600.0
        # A site that the study no longer names took part all the same.
        rate = self._per_hour.get(attempt.site or self._first, self._per_hour[self._first])
        return Hours(gpu_hours=hours * rate.gpu_hours, node_hours=hours * rate.node_hours / attempt.packed)


def share_of_node(site: Site, placement: Placement) -> float:
    """Which part of a node a job of a queue that cuts nodes takes: that of what it takes most of."""
    rows = [row for row in site.queues if row.name == placement.queue and row.unit == placement.unit == "share"]
    if len(rows) != 1:
        return 1.0
    takes = ((placement.gpus, rows[0].gpus_per_unit), (placement.cpus, rows[0].cores_per_unit))
    shares = [took / has for took, has in (*takes, (placement.memory or 0, rows[0].memory_per_unit)) if has]
    return min(1.0, max(shares, default=1.0))
