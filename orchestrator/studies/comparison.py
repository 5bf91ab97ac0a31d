"""A comparison: one study driven by several samplers, at several parallelisms, several times.

Every arm is an ordinary study in a folder of its own, so an interrupted comparison resumes like one,
and each arm can be looked at with the same commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import TooManyFailures
from orchestrator.search.driver import StudyDriver

if TYPE_CHECKING:
    from orchestrator.config.comparison import Arm, Comparison
    from orchestrator.config.site import Site
    from orchestrator.config.study import Study
    from orchestrator.jobs.session import Event
    from orchestrator.store.record import StudyRecord

__all__ = ["ComparisonDriver", "arm_study", "recorded"]


def arm_study(study: Study, arm: Arm) -> Study:
    """The study of one arm: the common one with the arm's sampler, seed, parallelism and name."""
    sampler = study.sampler.model_copy(
        update={"name": arm.sampler.name, "options": arm.sampler.options, "seed": arm.seed}
    )
    return study.model_copy(
        update={
            "name": arm.label,
            "sampler": sampler,
            "trials": arm.trials,
            "parallel": arm.parallel,
            "storage": None,
        }
    )


class ComparisonDriver:
    """Drives the arms of a comparison, ``concurrent`` of them at once.

    Parameters
    ----------
    comparison : Comparison
        What comparison.yaml says.
    study : Study
        The study that all arms share.
    root : Path
        Folder that holds this comparison's folder, ``root/<name>``.
    origin : Path
        The folder of study.yaml, where commands run.
    """

    def __init__(
        self,
        comparison: Comparison,
        study: Study,
        site: Site,
        root: Path,
        *,
        origin: Path,
        on_event: Callable[[str, Event], None] = lambda _arm, _event: None,
    ) -> None:
        self.comparison = comparison
        self.folder = (root / comparison.name).resolve()
        self._study = study
        self._site = site
        self._origin = origin
        self._on_event = on_event
        self._running: dict[str, StudyDriver] = {}
        self._draining = False
        self._stopped = False

    def drain(self) -> None:
        """Ask for no new trials in any arm, and begin no further arm."""
        self._draining = True
        for driver in self._running.values():
            driver.drain()

    def leave(self) -> None:
        """Leave jobs to run and end the drivers."""
        self._draining = True
        for driver in self._running.values():
            driver.leave()

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked for the end of an arm, by a request in its folder."""
        return self._stopped

    async def run(self) -> list[tuple[Arm, StudyRecord]]:
        """Run all arms, or what is left of them; arms not begun because of `drain` are missing."""
        room = asyncio.Semaphore(self.comparison.concurrent)
        arms = self.comparison.arms()

        async def drive(arm: Arm) -> StudyRecord | None:
            async with room:
                return None if self._draining else await self._drive(arm)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(drive(arm)) for arm in arms]
        results = [task.result() for task in tasks]
        return [(arm, record) for arm, record in zip(arms, results, strict=True) if record is not None]

    async def _drive(self, arm: Arm) -> StudyRecord:
        driver = StudyDriver(
            arm_study(self._study, arm),
            self._site,
            self.folder,
            origin=self._origin,
            on_event=lambda event: self._on_event(arm.label, event),
        )
        self._running[arm.label] = driver
        try:
            return await driver.run()
        except TooManyFailures:
            # A comparison shows what each sampler came to, failures included.
            return driver.record
        finally:
            self._stopped |= driver.stopped
            del self._running[arm.label]


def recorded(comparison: Comparison, folder: Path) -> list[tuple[Arm, StudyRecord]]:
    """The arms that have results in ``folder``, without running anything."""
    from orchestrator.studies.reader import read_study

    return [
        (arm, read_study(folder / arm.label))
        for arm in comparison.arms()
        if (folder / arm.label / "study.yaml").is_file()
    ]
