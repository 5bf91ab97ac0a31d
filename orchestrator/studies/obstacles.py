"""What stands in a study's way on this machine, and what looks odd; nothing is written and nothing submitted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.jobs.script import scheduler_options
from orchestrator.schedulers.base import SubmitRequest
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.studies.reporting import why_mute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.site import BatchOptions, Site
    from orchestrator.config.study import Study
    from orchestrator.search.layout import StudyFolder

__all__ = ["obstacles", "oddities"]


def obstacles(
    site: Site, batch: BatchOptions, folder: StudyFolder, work_root: str
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """What `run` would refuse, why this is not the site's machine, and what cannot be known here."""
    refusals = []
    if words := _unwritable(folder.root):
        refusals.append(f"cannot write {folder.root}: {words}; choose a root folder that you may write to")
    place_of_work = "" if site.work_root is None else f"its work root {work_root}"
    if site.transport.kind != "local":
        parts = ", ".join(filter(None, ("its commands", place_of_work, "the program of the trials")))
        return tuple(refusals), "", (f"{site.name} is reached over ssh ({site.transport.host}): {parts}",)
    programs = _programs(site, batch)
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and len(missing) == len(programs):
        # A study may be written and checked on a laptop: that this is not the site is no mistake in it.
        elsewhere = f"{_listed(missing)} not on PATH here: is this a login node of {site.name}?"
        return tuple(refusals), elsewhere, (place_of_work,) if place_of_work else ()
    if missing:
        refusals.append(f"{_listed(missing)} not on PATH here: see `commands` in the site file of {site.name}")
    if place_of_work and (words := _unwritable(Path(work_root))):
        refusals.append(
            f"the work root {work_root} of site {site.name} cannot be written: {words};"
            " see `work_root` in the site file" + (f" ({site.work_root_hint})" if site.work_root_hint else "")
        )
    return tuple(refusals), "", ()


def _programs(site: Site, batch: BatchOptions) -> list[str]:
    """The programs without which nothing goes: those that submit, query and cancel."""
    if site.scheduler == "local":
        return []
    scheduler = make_scheduler(site.scheduler, scheduler_options(site, batch))
    request = SubmitRequest(script="/job.sh", tag="t", directory="/")
    commands = (scheduler.submit(request), scheduler.query(["1"]), scheduler.cancel(["1"]))
    return list(dict.fromkeys(_program(command.argv) for command in commands))


def _program(argv: Sequence[str]) -> str:
    """The program of a command line, behind an ``env NAME=VALUE``."""
    if argv[0] != "env":
        return argv[0]
    return next((word for word in argv[1:] if "=" not in word), "env")


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _unwritable(path: Path) -> str:
    """Why ``path`` cannot be written, or made; empty if it can."""
    near = path
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    if not near.is_dir():
        return f"{near} is not a folder"
    return "" if os.access(near, os.W_OK | os.X_OK) else f"you may not write to {near}"


def oddities(study: Study, site: Site, origin: Path) -> tuple[str, ...]:
    """What its user may not have meant."""
    found = _oddities_here(study, origin) if site.transport.kind == "local" else _far_oddities(study, site, origin)
    return (*found, *_side_by_side(study))


def _side_by_side(study: Study) -> tuple[str, ...]:
    wanted = study.resources
    if wanted.gpus < 2 or wanted.nodes > 1:
        return ()
    # One training on 1, 2, 3, 4 GPUs: 1, 1.61, 1.96, 2.43 times the speed, measured in the field.
    better = f"a trial takes {wanted.gpus} GPUs: as many trials side by side, one GPU each, use a node better"
    why = "one training on 4 GPUs was measured at 2.43 times the speed of one on 1"
    return (f"{better} ({why}), unless a GPU is too small for the network",)


def _far_oddities(study: Study, site: Site, origin: Path) -> tuple[str, ...]:
    if os.path.isabs(study.workdir or ""):
        return ()
    words = f"the command runs in {origin / (study.workdir or '')} on {site.name}, as on this machine"
    return (f"{words}: set `workdir` to the folder of the code there, unless there is such a one",)


def _oddities_here(study: Study, origin: Path) -> tuple[str, ...]:
    found = []
    workdir = origin if study.workdir is None else origin / study.workdir
    if not workdir.is_dir():
        found.append(f"workdir {str(workdir)!r} is not a folder here")
    if words := why_mute(study, workdir):
        found.append(words)
    container = study.batch.container
    if container is not None:
        # The program is the image's; only a plain path names an image that can be looked for.
        if (
            container.image.endswith(".sif")
            and "://" not in container.image
            and not (workdir / container.image).is_file()
        ):
            found.append(f"container image {container.image!r} is not there (from {workdir})")
    elif not isinstance(study.command, str) and study.command:
        program = study.command[0]
        if "/" in program and not os.access(workdir / program, os.X_OK):
            found.append(f"command {program!r} is not an executable file (from {workdir})")
        elif "/" not in program and shutil.which(program) is None:
            found.append(f"command {program!r} is not on PATH here; it must be in the jobs' environment")
    return tuple(found)
