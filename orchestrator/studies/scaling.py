"""A scaling study: the same trials on 1, 2, 4... nodes, GPUs or threads, each count a study of its own.

The studies run one after the other, so that trainings whose time is measured do not slow each other down, and an
interrupted one goes on like any study.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.loading import did_you_mean
from orchestrator.config.parameters import FixedParameter, same
from orchestrator.config.sampling import Sampler
from orchestrator.config.stopping import Stopping
from orchestrator.errors import TooManyFailures, UsageError
from orchestrator.search.driver import StudyDriver
from orchestrator.studies.reader import read_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.parameters import Space
    from orchestrator.config.site import Site
    from orchestrator.config.study import Study
    from orchestrator.jobs.session import Event
    from orchestrator.store.record import StudyRecord

__all__ = ["THREADS", "ScalingDriver", "arm_name", "arm_study", "check_axis", "folder_of", "recorded"]

NODES, GPUS, THREADS = "nodes", "gpus", "threads"
# They draw the parameters of trial n whatever other trials came to: so a trial is the same on every count.
_BLIND = frozenset({"random", "qmc", "grid"})


def check_axis(over: str, counts: Sequence[int]) -> None:
    """Make sure that a study can be scaled so.

    Raises
    ------
    UsageError
        If ``over`` is neither nodes, gpus, threads nor a name for an environment variable, or the counts are not
        two or more different numbers of at least 1.
    """
    if over not in {NODES, GPUS, THREADS} and not re.fullmatch(r"[A-Z][A-Z0-9_]*", over):
        near = did_you_mean(over, [NODES, GPUS, THREADS])
        raise UsageError(
            f"--over {over}: expected {NODES}, {GPUS}, {THREADS} or an environment variable in capitals", hint=near
        )
    if over.startswith("SURVEY_"):
        raise UsageError(f"--over {over}: names that begin with SURVEY_ are the orchestrator's own")
    if len(set(counts)) < 2 or len(set(counts)) < len(counts) or min(counts) < 1:
        raise UsageError(
            f"cannot scale over {', '.join(map(str, counts)) or 'nothing'}",
            hint="give two or more different numbers, such as 1 2 4",
        )


def folder_of(study: Study, over: str, root: Path) -> Path:
    """Where the studies of a scaling study lie."""
    return (root / f"{study.name}-scaling-{over.lower()}").resolve()


def arm_name(over: str, count: int) -> str:
    """Name of the study of one count."""
    return f"{over.lower()}-{count}"


def arm_study(
    study: Study, over: str, count: int, *, trials: int, settings: Mapping[str, Any], alone: bool = True
) -> Study:
    """The study of one count.

    Parameters
    ----------
    settings : mapping
        Parameters that are fixed, with their values.
    alone : bool
        Trials run one at a time; else as many as the study says, each on nodes of its own.

    Raises
    ------
    UsageError
        If a setting is no parameter of the study, or not one of its values.
    """
    changes: dict[str, Any] = {
        "name": arm_name(over, count),
        "space": _fixed(study.space, settings),
        "sampler": study.sampler if study.sampler.name in _BLIND else Sampler(name="random", seed=study.sampler.seed),
        "trials": trials,
        "parallel": 1 if alone else study.parallel,
        "batch": study.batch.model_copy(update={"pack": 1}),
        "pruner": None,
        "stop": Stopping(),
        "warm_start": None,
        "storage": None,
    }
    environment = dict(study.environment)
    if over in {NODES, GPUS}:
        changes["resources"] = study.resources.model_copy(update={over: count})
    elif over == THREADS:
        changes["resources"] = study.resources.model_copy(update={"cpus": count})
        environment["OMP_NUM_THREADS"] = str(count)
    else:
        environment[over] = str(count)
    return study.model_copy(update={**changes, "environment": environment})


def _fixed(space: Space, settings: Mapping[str, Any]) -> Space:
    """The space with some parameters fixed, and without those that then never exist."""
    for name, value in settings.items():
        if name not in space:
            raise UsageError(f"the study has no parameter {name!r}", hint=did_you_mean(name, space))
        if not space[name].admits(value):
            raise UsageError(f"--set {name}={value}: parameter {name} never has this value")
    gone: set[str] = set()

    def impossible(parent: str, allowed: Sequence[Any]) -> bool:
        return parent in gone or (parent in settings and not any(same(settings[parent], each) for each in allowed))

    # Parents may stand behind their children: until nothing more goes.
    while found := {
        name
        for name, parameter in space.items()
        if name not in gone and any(impossible(*condition) for condition in parameter.when.items())
    }:
        gone |= found
    return {
        name: FixedParameter(value=settings[name], when=parameter.when) if name in settings else parameter
        for name, parameter in space.items()
        if name not in gone
    }


class ScalingDriver:
    """Drives the studies of a scaling study, one after the other.

    Parameters
    ----------
    arms : mapping
        Count to its study.
    folder : Path
        Folder that holds their folders.
    origin : Path
        The folder of study.yaml, where commands run.
    """

    def __init__(
        self,
        arms: Mapping[int, Study],
        site: Site,
        folder: Path,
        *,
        origin: Path,
        on_event: Callable[[str, Event], None] = lambda _arm, _event: None,
    ) -> None:
        self._arms = arms
        self._site = site
        self._folder = folder
        self._origin = origin
        self._on_event = on_event
        self._running: StudyDriver | None = None
        self._draining = False
        self._stopped = False

    def drain(self) -> None:
        """Ask for no new trials, and begin no further study."""
        self._draining = True
        if self._running is not None:
            self._running.drain()

    def leave(self) -> None:
        """Leave jobs to run and end."""
        self._draining = True
        if self._running is not None:
            self._running.leave()

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked for the end of one of the studies, by a request in its folder."""
        return self._stopped

    async def run(self) -> dict[int, StudyRecord]:
        """Run all studies, or what is left of them; those not begun because of `drain` or a stop are missing."""
        records: dict[int, StudyRecord] = {}
        for count, study in self._arms.items():
            if self._draining or self._stopped:
                break
            records[count] = await self._drive(study)
        return records

    async def _drive(self, study: Study) -> StudyRecord:
        driver = StudyDriver(
            study,
            self._site,
            self._folder,
            origin=self._origin,
            on_event=lambda event: self._on_event(study.name, event),
        )
        self._running = driver
        try:
            return await driver.run()
        except TooManyFailures:
            # What ran on other counts is shown all the same.
            return driver.record
        finally:
            self._stopped |= driver.stopped
            self._running = None


def recorded(over: str, counts: Sequence[int], folder: Path) -> dict[int, StudyRecord]:
    """What there is of a scaling study in ``folder``, by count, without running anything."""
    folders = {count: folder / arm_name(over, count) for count in counts}
    return {count: read_study(each) for count, each in folders.items() if (each / "study.yaml").is_file()}
