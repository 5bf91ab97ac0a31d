"""What a driver asks its sampler: new trials, as long as the budget and the study's own rules allow."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.config.stopping import Stopping
from orchestrator.search import space as space_tools
from orchestrator.search.sampling import refuse_impossible, study_grid, study_sampler
from orchestrator.search.stopping import why_stop
from orchestrator.search.warm_start import begin_warm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from orchestrator.clock import Clock
    from orchestrator.config.study import Study
    from orchestrator.model import Json
    from orchestrator.search.layout import StudyFolder
    from orchestrator.search.usage import Usage
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["Asker"]

_SLOW_ASK = 1.0


class Asker:
    """Asks for one trial at a time; the driver sees to it that nobody asks meanwhile.

    Parameters
    ----------
    guard : callable
        Raises if the study is not ours to write any more.
    blocking, tell :
        The driver's: its turn with the database, its events.

    Attributes
    ----------
    planned : int
        Trials that were asked for, by earlier drivers too.
    budget : int
        How many there are to be, once `prepare` has been called.
    ended_by : str
        The study's own rule that ended it before its budget was spent, in words.
    """

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        *,
        database: StudyDatabase,
        usage: Usage,
        clock: Clock,
        guard: Callable[[], None],
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        tell: Callable[..., None],
    ) -> None:
        self._study = study
        self._folder = folder
        self._database = database
        self._usage = usage
        self._clock = clock
        self._guard = guard
        self._blocking = blocking
        self._tell = tell
        counts = database.counts
        self.planned = counts.total() - counts["waiting"]
        self.budget = 0
        self.ended_by = ""

    async def prepare(self) -> None:
        """Find out how many trials there are to be.

        Raises
        ------
        UsageError
            An unknown sampler or option, a missing extra, conditions that nothing meets, a warm start that cannot be
            used: told before anything is submitted.
        """
        self.budget = await self._blocking(self._total)

    @property
    def last(self) -> int:
        """How many trials there will have been at the end."""
        return self.planned if self.ended_by else self.budget

    @property
    def closed(self) -> bool:
        """Whether no new trials are to come."""
        return self.planned >= self.last

    async def ask(self) -> tuple[int, Mapping[str, Json]] | None:
        """A new trial, created whole in the database; None where the budget is spent."""
        if self.closed or await self._ends_early():
            return None
        self.planned += 1
        begun = time.perf_counter()
        number, params = await self._blocking(self._ask_now)
        seconds = time.perf_counter() - begun
        self._tell("asked", number=number, params=params, seconds=round(seconds, 4), slow=seconds > _SLOW_ASK)
        return number, params

    async def _ends_early(self) -> bool:
        """Whether a rule of the study's holds: from then on this driver begins no new trial."""
        if self._study.stop == Stopping():
            return False
        trials = await self._blocking(self._database.record)
        direction = self._study.targets[0].direction
        self.ended_by = why_stop(self._study.stop, trials, self._usage, direction=direction, now=self._clock.now())
        if self.ended_by:
            self._tell("enough", message=self.ended_by)
        return bool(self.ended_by)

    def _ask_now(self) -> tuple[int, Mapping[str, Json]]:
        self._guard()
        return self._database.ask(self._sampler(), lambda trial: space_tools.suggest(self._study.space, trial), {})

    def _sampler(self) -> BaseSampler:
        """A fresh one for each ask: what it draws depends on seed, trial number and history alone."""
        return study_sampler(self._study, self._grid, source=self._source)

    def _total(self) -> int:
        self._grid = study_grid(self._study)
        refuse_impossible(self._study)
        self._source = begin_warm(self._study, self._folder, self._database)
        self._sampler()
        return self._study.trials if self._grid is None else min(self._study.trials, len(self._grid))
