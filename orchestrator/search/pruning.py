"""Trials that are judged on the way: their reports, and those that are set aside and taken up again.

To Optuna a paused trial is running; that it has no job is its phase, one attribute in the study
database. Each step is on disk before the next one depends on it: the wish that a program end early, what
its attempt came to, that the trial is set aside, that it goes on.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Paused
from orchestrator.search.judges import AshaJudge, make_judge
from orchestrator.search.layout import trial_key
from orchestrator.store.trials import PHASE

if TYPE_CHECKING:
    from orchestrator.clock import Clock
    from orchestrator.config.study import Study
    from orchestrator.jobs.fleet import Fleet
    from orchestrator.model import Json, Outcome
    from orchestrator.search.chores import Chores
    from orchestrator.search.judges import Judge
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["Aside", "Pruning"]

_REPORT_PAUSE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A trial that is set aside, and the number of its attempt that was paused."""

    number: int
    params: Mapping[str, Json]
    attempt: int


class Pruning:
    """What a driver does with the reports of its trials.

    Parameters
    ----------
    closing : callable
        Whether no new trials are to come.
    chores, blocking, tell :
        The driver's: what nobody waits for, its turn with the database, its events.

    Attributes
    ----------
    paused : dict
        Trials that are set aside, by number.
    changes : int
        Grows when a trial has reported at a rung, ended, or was set aside: one that is paused may go on now.
    """

    def __init__(
        self,
        study: Study,
        *,
        database: StudyDatabase,
        fleet: Fleet,
        clock: Clock,
        chores: Chores,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        tell: Callable[..., None],
        closing: Callable[[], bool],
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._clock = clock
        self._chores = chores
        self._blocking = blocking
        self._tell = tell
        self._name = None if study.pruner is None else study.pruner.name
        self._judge: Judge | None = None
        if study.pruner is not None:
            maximize = study.targets[0].direction == "maximize"
            self._judge = make_judge(study.pruner, database, maximize=maximize, closing=closing)
        self._turn = asyncio.Lock()
        self._latest: dict[int, int] = {}
        self._written: dict[int, float] = {}
        self._held: dict[int, tuple[int, float]] = {}
        self._told: set[int] = set()  # asked to end early, and still running
        self._changed = asyncio.Condition()
        self.paused: dict[int, Aside] = {}
        self.changes = 0

    def take_up(self, number: int, params: Mapping[str, Json]) -> int:
        """Take up a trial that earlier drivers left unfinished.

        Returns
        -------
        int
            0; of a trial that was told to go on, the number of the attempt that was paused.
        """
        if steps := self._database.trials()[number].intermediate_values:
            self._latest[number] = max(steps)
        phase: Mapping[str, Any] = self._database.attributes(number).get(PHASE, {})
        if phase.get("name") == "paused":
            self.paused[number] = Aside(number=number, params=params, attempt=int(phase["attempt"]))
        return int(phase["attempt"]) if phase.get("name") == "promoted" else 0

    # Reports

    def report(self, number: int, step: int, value: float) -> None:
        """Take the report of a running trial: judge it where that is due; of ten thousand others not all are written."""
        after = self._latest.get(number, -1)
        self._latest[number] = max(after, step)
        if self._judge is not None and step > after and self._judge.is_due(after, step):
            self._held.pop(number, None)
            self._chores.add(self._judged(self._judge, number, step, value), name=str(number))
        elif self._clock.now() - self._written.get(number, -1e9) < _REPORT_PAUSE:
            self._held[number] = step, value
            return
        else:
            self._held.pop(number, None)
            self._chores.later(number, lambda: self._database.report(number, step, value))
        self._written[number] = self._clock.now()

    async def _judged(self, judge: Judge, number: int, step: int, value: float) -> None:
        async with self._turn:
            wish = None
            if number not in self._told:
                wish = await self._blocking(lambda: judge.judge(number, step, value))
            if wish is not None:
                if not await self._fleet.ask_to_stop(trial_key(number), wish):
                    # It has ended, and this is written with its end; or the driver leaves, and the next one judges it.
                    self._held[number] = step, value
                    return
                self._told.add(number)
                self._tell("early", number=number, how=str(wish.how), message=str(wish))
            # Last: a report that is in the database was judged, whoever finds it there.
            await self._blocking(lambda: self._database.report(number, step, value))
        await self.notify()

    async def settle(self, number: int) -> None:
        """Bring all that is known of a trial into the database, before its end is."""
        await self._chores.of(number)
        if (held := self._held.pop(number, None)) is not None:
            await self._blocking(lambda: self._database.report(number, *held))
        self._written.pop(number, None)
        self._told.discard(number)

    def complain(self, number: int) -> None:
        """Say so when the first trial to be complete has reported nothing that could be judged.

        Raises
        ------
        Paused
            Once in the life of a study.
        """
        if self._judge is None:
            return
        trials = self._database.trials()
        complete = [trial.number for trial in trials if trial.state.name == "COMPLETE"]
        if complete == [number] and not any(trial.intermediate_values for trial in trials):
            raise Paused(
                f"trial {number} has ended without a single report: pruner {self._name} has nothing to judge trials by",
                hint="let the program report (step, value) on its way, see docs/pruning.md, or take `pruner` out of the"
                " study; `survey resume` goes on with it either way",
            )

    # Trials that are set aside

    async def pause(self, number: int, params: Mapping[str, Json], outcome: Outcome) -> None:
        """Set a trial aside whose attempt has ended as paused."""
        await self.settle(number)
        phase: dict[str, Json] = {
            "name": "paused",
            "attempt": outcome.attempts,
            "reason": outcome.reason,
            "since": self._clock.now(),
        }
        async with self._turn:
            await self._blocking(functools.partial(self._database.note, number, PHASE, phase))
            self.paused[number] = Aside(number=number, params=params, attempt=outcome.attempts)
        self._tell("set-aside", number=number, message=outcome.reason)

    async def promote(self) -> Aside | None:
        """Choose a paused trial that goes on now; None if none is to."""
        async with self._turn:
            if not self.paused:
                return None
            number = await self._blocking(self._choose)
            if number is None:
                return None
            aside = self.paused[number]
            # Written ahead: an attempt that follows a paused one was wanted.
            phase: dict[str, Json] = {"name": "promoted", "attempt": aside.attempt, "since": self._clock.now()}
            await self._blocking(functools.partial(self._database.note, number, PHASE, phase))
            del self.paused[number]
        self._tell("promoted", number=number, attempt=aside.attempt)
        return aside

    def _choose(self) -> int | None:
        if isinstance(self._judge, AshaJudge):
            return self._judge.promotable()
        return min(self.paused)  # the study has another pruner now, or none: nothing holds them back

    async def notify(self) -> None:
        """Have slots that wait for a trial to go on look again."""
        async with self._changed:
            self.changes += 1
            self._changed.notify_all()

    async def wait(self, seen: int) -> None:
        """Wait until there are more `changes` than a slot has seen."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.changes > seen)
