"""What a study would do on a site, without doing any of it: its script, its cost, what looks odd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.jobs.placement import Placement, place
from orchestrator.jobs.script import ScriptRequest, render
from orchestrator.jobs.staging import Library, attempt_directory
from orchestrator.model import Resources
from orchestrator.search import space as space_tools
from orchestrator.search.freeze import refuse_another, refuse_elsewhere
from orchestrator.search.layout import StudyFolder

if TYPE_CHECKING:
    from orchestrator.config.site import Site
    from orchestrator.config.study import Study

__all__ = ["Rehearsal", "examine", "rehearse"]

_COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "pbs": ("qsub", "qstat", "qdel"),
    "pjm": ("pjsub", "pjstat", "pjdel"),
    "gridengine": ("qsub", "qstat", "qdel"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What `rehearse` found.

    Attributes
    ----------
    script : str
        The job script of the first trial.
    cost : dict
        ``trials``, and with a walltime the most it can come to: ``gpu_hours``, ``node_hours``.
    summary, warnings : tuple of str
        Lines for people.
    """

    script: str
    cost: dict[str, float]
    summary: tuple[str, ...]
    warnings: tuple[str, ...]


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
        An unknown sampler or option, a missing extra, a grid without end, no queue that fits.
    ResumeMismatch
        The folder holds another study, or this one has jobs in flight elsewhere.
    """
    from orchestrator.samplers import make_sampler

    if folder.begun:
        refuse_another(study, folder)
        refuse_elsewhere(among or [site], folder)
    grid = space_tools.grid(study.space) if study.sampler.name == "grid" else None
    make_sampler(
        study.sampler.name,
        seed=study.sampler.seed,
        startup_trials=study.sampler.startup_trials,
        options=study.sampler.options,
        space=space_tools.distributions(study.space),
        grid=grid,
    )
    placement = place(site, _resources(study), study.batch)
    return placement, study.trials if grid is None else min(study.trials, len(grid))


def _resources(study: Study) -> Resources:
    wish = study.resources
    return Resources(gpus=wish.gpus, cpus=wish.cpus, memory=wish.memory, walltime=wish.walltime, nodes=wish.nodes)


def rehearse(study: Study, site: Site, *, root: Path, origin: Path, which: Callable[[str], str | None]) -> Rehearsal:
    """Choose the queue, make the sampler, render the first script.

    Raises
    ------
    UsageError, ResumeMismatch
        For anything that would stop the study before its first trial.
    """
    placement, trials = examine(study, site, StudyFolder((root / study.name).resolve()))
    work_root = site.resolved_work_root(root, study.name, group=site.group_of(study.batch))
    directory = attempt_directory(work_root, "00000", 1)
    script = render(
        site,
        placement,
        study.batch,
        ScriptRequest(
            tag="t00000-rehearse",
            directories=(directory,),
            agent=Library(root=f"{work_root}/lib/version").agent,
            python=site.interpreter,
            study=study.name,
            output_dir=directory,
            array=None,
        ),
    )
    cost = _cost(trials, placement, _resources(study))
    return Rehearsal(
        script=script,
        cost=cost,
        summary=_summary(study, site, placement, trials, cost),
        warnings=_warnings(study, site, origin, which),
    )


def _cost(trials: int, placement: Placement, resources: Resources) -> dict[str, float]:
    cost: dict[str, float] = {"trials": float(trials)}
    walltime = placement.walltime
    if walltime is not None:
        hours = walltime / 3600.0
        # A packed job's node is shared by its attempts.
        cost["gpu_hours"] = trials * hours * resources.gpus * resources.nodes
        cost["node_hours"] = trials * hours * placement.nodes / max(1, placement.pack)
    return cost


def _summary(study: Study, site: Site, placement: Placement, trials: int, cost: dict[str, float]) -> tuple[str, ...]:
    where = f"queue {placement.queue}" if placement.queue else "no queue"
    lines = [f"{study.name} on {site.name}: {where}, {trials} trials, {study.parallel} at once"]
    if "gpu_hours" in cost:
        lines.append(
            f"at most {cost['gpu_hours']:.1f} GPU-hours, {cost['node_hours']:.1f} node-hours"
            " (every trial to its full walltime)"
        )
    else:
        lines.append("no walltime is set: the cost has no upper bound")
    return tuple(lines)


def _warnings(study: Study, site: Site, origin: Path, which: Callable[[str], str | None]) -> tuple[str, ...]:
    found = []
    for name in _COMMANDS.get(site.scheduler, ()):
        program = site.commands.get(name, name)
        if which(program) is None:
            found.append(f"{program} is not on PATH here: is this a login node of {site.name}?")
    if not isinstance(study.command, str) and study.command:
        program = study.command[0]
        if "/" in program and which(str(origin / program)) is None:
            found.append(f"command {program!r} is not an executable file (from {origin})")
        elif "/" not in program and which(program) is None:
            found.append(f"command {program!r} is not on PATH here; it must be in the jobs' environment")
    return tuple(found)
