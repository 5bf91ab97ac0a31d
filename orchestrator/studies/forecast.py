"""What a study will take of a site, and what stands in its way here; nothing is written and nothing submitted."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import SurveyError, UsageError
from orchestrator.jobs.placement import place
from orchestrator.jobs.script import ScriptRequest, render
from orchestrator.jobs.staging import Library, attempt_directory
from orchestrator.search.assignment import study_resources
from orchestrator.search.freeze import refuse_another, refuse_elsewhere
from orchestrator.search.layout import StudyFolder, run_key, trial_key
from orchestrator.search.sampling import left_out, refuse_impossible, study_grid, study_sampler
from orchestrator.search.usage import share_of_node
from orchestrator.search.warm_start import resolve
from orchestrator.store.lease import read_holder
from orchestrator.studies.obstacles import obstacles, oddities
from orchestrator.studies.reader import read_study

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config.site import BatchOptions, Site
    from orchestrator.config.study import Study
    from orchestrator.jobs.placement import Placement
    from orchestrator.model import Resources

__all__ = ["Cost", "Forecast", "cost_on", "dearest", "examine", "forecast", "total"]

# Changes of a begun study that can make it dearer than what its user has agreed to.
_DEARER = ("trials:", "resources.", "batch.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The most that the trials to come can take: each of their runs goes once, to its full walltime.

    Attributes
    ----------
    trials : int
        Those to come.
    gpu_hours, node_hours : float or None
        None where no walltime bounds them. A part of a node counts as the part where the site says how
        large the node is, else as a whole one.
    node_hours_packed : float or None
        In place of ``node_hours`` if each job carries as many trials as fit.
    """

    trials: int
    gpu_hours: float | None
    node_hours: float | None
    node_hours_packed: float | None

    def __str__(self) -> str:
        if self.gpu_hours is None or self.node_hours is None:
            return "no walltime is set: the cost has no upper bound"
        words = [f"{_amount(self.gpu_hours)} GPU-hours"] if self.gpu_hours else []
        words.append(f"{_amount(self.node_hours)} node-hours")
        packed = self.node_hours_packed
        if packed is not None and packed < self.node_hours:
            words.append(f"{_amount(packed)} if every job is full")
        return f"at most {', '.join(words)} (each trial to its full walltime; a retry costs as much again)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What `forecast` found.

    Attributes
    ----------
    script : str
        The first job's.
    headline : str
        Study, site, queue, trials.
    new : bool
        Whether it can cost more than what was agreed to when it was last begun.
    refusals : tuple of str
        What `survey run` would refuse, whatever the machine.
    elsewhere : str
        Why this machine cannot be one that the site's jobs are submitted from; empty if it can.
    notes : tuple of str
        What the study begins with, where it begins with earlier trials.
    unchecked, warnings : tuple of str
        What cannot be known here, and what looks odd.
    """

    script: str
    headline: str
    cost: Cost
    new: bool
    refusals: tuple[str, ...]
    elsewhere: str
    notes: tuple[str, ...]
    unchecked: tuple[str, ...]
    warnings: tuple[str, ...]

    def refuse(self, *, here: bool = True) -> None:
        """Raise what stands in the way.

        Parameters
        ----------
        here : bool
            Whether the study is to run from this machine.

        Raises
        ------
        UsageError
            One line for each thing.
        """
        found = [*self.refusals, *([self.elsewhere] if here and self.elsewhere else [])]
        if found:
            raise UsageError(
                "\n  ".join(found), hint="nothing was submitted; mend the site file or go to the right machine"
            )


def examine(study: Study, site: Site, folder: StudyFolder, *, among: Sequence[Site] = ()) -> tuple[Placement, int]:
    """Find what would stop the study before its first trial, before anything of it is written.

    Parameters
    ----------
    among : sequence of Site
        All sites of the study, where there are several.

    Returns
    -------
    placement, trials
        Where a trial would run, and how many there will be.

    Raises
    ------
    UsageError
        An unknown sampler or option, a missing extra, a sampler of one objective for several, a grid without end,
        conditions that nothing meets, no queue that fits.
    ResumeMismatch
        The folder holds another study, or this one has jobs in flight elsewhere.
    """
    if folder.begun:
        refuse_another(study, folder)
        refuse_elsewhere(among or [site], folder)
    grid = study_grid(study)
    study_sampler(study, grid)
    refuse_impossible(study)
    placement = place(site, study_resources(study), study.batch, attempts=study.parallel)
    return placement, study.trials if grid is None else min(study.trials, len(grid))


def forecast(
    study: Study, site: Site, *, root: Path, origin: Path, among: Sequence[Site] = (), share: int | None = None
) -> Forecast:
    """Choose the queue, render the first job's script, add up the cost, look at what this machine has.

    Parameters
    ----------
    study : Study
        As it runs on this site.
    among : sequence of Site
        All sites of the study, where there are several.
    share : int, optional
        Most trials in flight there, where that is less than the study's.

    Raises
    ------
    UsageError, ResumeMismatch
        For what `examine` finds, and for a template that is wrong.
    """
    folder = StudyFolder((root / study.name).resolve())
    _, planned = examine(study, site, folder, among=among)
    batch = _anchored(study.batch, origin)
    resources = study_resources(study)
    placement = place(site, resources, batch, attempts=study.parallel)
    work_root = site.resolved_work_root(root, study.name, group=site.group_of(batch))
    left = max(0, planned - _finished(folder))
    of = f"{left} of {planned} trials to come" if folder.begun else f"{planned} trials"
    of += f" of {study.repeats} runs each" if study.repeats > 1 else ""
    of += f" ({points} points of the grid break a condition and are left out)" if (points := left_out(study)) else ""
    packed = f", {placement.pack} in one job" if placement.pack > 1 else ""
    where = f"queue {placement.queue}" if placement.queue else "no queue"
    refusals, elsewhere, unchecked = obstacles(site, batch, folder, work_root)
    return Forecast(
        script=_script(study, site, batch, placement, work_root),
        headline=f"{study.name} on {site.name}: {where}, {of}, {min(share or study.parallel, study.parallel)} at once{packed}",
        cost=_cost(left, study.repeats, site, placement, resources),
        new=left > 0 and _is_new(study, site, folder),
        refusals=refusals,
        elsewhere=elsewhere,
        unchecked=unchecked,
        notes=_warm_start(study, folder, origin),
        warnings=oddities(study, site, origin),
    )


def cost_on(study: Study, site: Site, trials: int) -> Cost:
    """The most that so many trials of a study can take on a site."""
    resources = study_resources(study)
    return _cost(trials, study.repeats, site, place(site, resources, study.batch, attempts=study.parallel), resources)


def dearest(costs: Sequence[Cost]) -> Cost:
    """The most that a study on several sites can take: all its trials on the site where each takes most."""

    def most(values: Iterable[float | None]) -> float | None:
        known = list(values)
        return None if None in known else max(value for value in known if value is not None)

    return Cost(
        trials=costs[0].trials,
        gpu_hours=most(cost.gpu_hours for cost in costs),
        node_hours=most(cost.node_hours for cost in costs),
        node_hours_packed=most(cost.node_hours_packed for cost in costs),
    )


def total(costs: Sequence[Cost]) -> Cost:
    """Add up the costs of several studies."""

    def added(values: Iterable[float | None]) -> float | None:
        known = list(values)
        return None if None in known else sum(value for value in known if value is not None)

    return Cost(
        trials=sum(cost.trials for cost in costs),
        gpu_hours=added(cost.gpu_hours for cost in costs),
        node_hours=added(cost.node_hours for cost in costs),
        node_hours_packed=added(cost.node_hours_packed for cost in costs),
    )


def _amount(hours: float) -> str:
    if hours >= 100:
        return f"{hours:,.0f}"
    return f"{hours:.1f}" if hours >= 1 or not hours else f"{hours:.2g}"


def _anchored(batch: BatchOptions, origin: Path) -> BatchOptions:
    """``batch`` with the path of its template made absolute, as the session does it."""
    if batch.template is None or "/" not in batch.template:
        return batch
    return batch.model_copy(update={"template": str(origin / Path(batch.template).expanduser())})


def _finished(folder: StudyFolder) -> int:
    with contextlib.suppress(SurveyError):  # a record that cannot be read is the driver's to judge
        return len(read_study(folder.root).finished) if folder.begun else 0
    return 0


def _is_new(study: Study, site: Site, folder: StudyFolder) -> bool:
    if not folder.begun:
        return True
    if read_holder(folder.root, now=time.time())[1]:
        return False  # it is running: the driver will refuse a second one
    from orchestrator.config.site import load_site

    with contextlib.suppress(SurveyError):
        if site.name in {load_site(path).name for path in folder.sites}:
            return any(line.startswith(_DEARER) for line in refuse_another(study, folder))
    return True


def _cost(trials: int, repeats: int, site: Site, placement: Placement, resources: Resources) -> Cost:
    if placement.walltime is None:
        return Cost(trials=trials, gpu_hours=None, node_hours=None, node_hours_packed=None)
    hours, runs = placement.walltime / 3600.0, trials * repeats
    nodes = placement.nodes * share_of_node(site, placement)
    return Cost(
        trials=trials,
        gpu_hours=runs * hours * resources.gpus * resources.nodes,
        node_hours=runs * hours * nodes,
        node_hours_packed=math.ceil(runs / placement.pack) * hours * nodes,
    )


def _script(study: Study, site: Site, batch: BatchOptions, placement: Placement, work_root: str) -> str:
    directories = tuple(
        attempt_directory(work_root, run_key(number, 1, study.repeats), 1) for number in range(placement.pack)
    )
    request = ScriptRequest(
        tag=f"t{trial_key(0)}-rehearse",
        directories=directories,
        agent=Library(root=f"{work_root}/lib/version").agent,
        python=site.interpreter,
        study=study.name,
        output_dir=directories[0],
    )
    return render(site, placement, batch, request)


def _warm_start(study: Study, folder: StudyFolder, origin: Path) -> tuple[str, ...]:
    """What the study begins with, and what of it does not match."""
    warm = resolve(study, folder, origin)
    return () if warm is None else tuple(f"warm start: {line}" for line in warm.lines)
