"""What a driver's slots do: each takes a run from the agenda, runs it, tells what came of it, and asks for the next.

A slot that frees up asks at once, with the other slots' trials pending in view.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Paused
from orchestrator.model import Job, Json, Outcome, Verdict
from orchestrator.search.agenda import Agenda, Item
from orchestrator.search.assignment import study_job
from orchestrator.search.ending import decisive, ending, run_facts
from orchestrator.search.layout import run_key, trial_key
from orchestrator.store.ledger import Ledger
from orchestrator.store.trials import USED, run_name

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.jobs.fleet import Fleet
    from orchestrator.search.asking import Asker
    from orchestrator.search.chores import Chores
    from orchestrator.search.chronicle import Chronicle
    from orchestrator.search.keep import Keeper
    from orchestrator.search.pruning import Pruning
    from orchestrator.search.usage import Usage
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["Slots"]


class Slots:
    """The slots of one driver, ``study.parallel`` of them.

    Parameters
    ----------
    root : Path
        The study's folder.
    draining : callable
        Whether nothing new is to begin.
    guard : callable
        Raises if the study is not ours to write any more.
    blocking, tell :
        The driver's: its turn with the database, its events.

    Attributes
    ----------
    idle : int
        Slots that wait to see whether a trial that is set aside goes on.
    """

    def __init__(
        self,
        study: Study,
        root: Path,
        *,
        asker: Asker,
        database: StudyDatabase,
        fleet: Fleet,
        usage: Usage,
        pruning: Pruning,
        keeper: Keeper,
        chronicle: Chronicle,
        chores: Chores,
        draining: Callable[[], bool],
        guard: Callable[[], None],
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        tell: Callable[..., None],
    ) -> None:
        self._study = study
        self._root = root
        self._asker = asker
        self._database = database
        self._fleet = fleet
        self._usage = usage
        self._pruning = pruning
        self._keeper = keeper
        self._chronicle = chronicle
        self._chores = chores
        self._draining = draining
        self._guard = guard
        self._blocking = blocking
        self._tell = tell
        self._agenda = Agenda(study.repeats)
        self._asking = asyncio.Lock()
        self._busy = 0
        self._in_a_row = 0
        self.idle = 0

    async def fill(self) -> None:
        """Ask for all slots at once, before any of them waits for a submit."""
        while len(self._agenda.ready) < self._study.parallel and await self._begin():
            pass
        if self._study.sampler.name in {"random", "grid"}:
            # Nothing that a result could change: these may go to the scheduler as one array.
            self._fleet.expect_array(*(self._job(item) for item in self._agenda.ready))

    async def work(self) -> None:
        """One slot, until nothing is left to begin."""
        while (item := await self._next()) is not None:
            try:
                outcome = await self._fleet.run(self._job(item))
                await self._run_ended(item, outcome)
            finally:
                self._busy -= 1
                await self._pruning.notify()

    async def _next(self) -> Item | None:
        """What a free slot is to run, busy from now on; None where nothing is left to begin."""
        while (item := self._agenda.take()) is None:
            seen = self._pruning.changes
            async with self._asking:
                # Another slot may have asked meanwhile, for a trial with a run for this one too.
                if self._agenda.ready or await self._begin():
                    continue
                if not self._busy and not self._draining():
                    await self._give_up_paused()
                if not self._pruning.paused or self._draining():
                    return None
            # A trial that is set aside goes on if those that run turn out to be worse.
            self.idle += 1
            try:
                await self._pruning.wait(seen)
            finally:
                self.idle -= 1
        self._busy += 1
        return item

    async def _begin(self) -> bool:
        """Put a paused trial that is to go on, else a new one, on the agenda; False if there is neither."""
        if not self._draining() and not self._asker.ended_by and (aside := await self._pruning.promote()):
            self._agenda.go_on(aside.number, aside.params, aside.attempt)
            return True
        if self._draining() or (asked := await self._asker.ask()) is None:
            return False
        self._agenda.add(*asked)
        return True

    async def _give_up_paused(self) -> None:
        """End the trials that are set aside: nothing runs that could turn out to be worse than they are."""
        for number in sorted(self._pruning.paused):
            outcome = Ledger(self._root).attempts(trial_key(number))[-1].outcome
            assert outcome is not None
            why = self._asker.ended_by or "no trial is left that could make it one of the best"
            reason = f"{outcome.reason}; it did not go on: {why}"
            await self._record(number, {1: dataclasses.replace(outcome, reason=reason)})
            del self._pruning.paused[number]
        await self._pruning.notify()

    async def take_up(self, number: int, params: Mapping[str, Json]) -> None:
        """Put a trial that an earlier driver left unfinished on the agenda; those of its runs that have ended stay so."""
        if (beyond := self._pruning.take_up(number, params)) or number in self._pruning.paused:
            if beyond:
                self._agenda.go_on(number, params, beyond)
            return
        runs = range(1, self._study.repeats + 1)
        jobs = {run: study_job(self._study, number, params, run) for run in runs}
        settled = {run: self._fleet.settled(job) for run, job in jobs.items()}
        # One that was paused is set aside by the slot that finds it so.
        known = {run: each for run, each in settled.items() if each and each.verdict is not Verdict.PAUSED}
        self._agenda.add(number, params, known)
        for run in known:
            told = self._database.attributes(number).get(run_name(run), {})
            self._chores.take_up(number, run, told.get("steps", {}))
        if self._agenda.lost(number):
            flying = [run for run in runs if run not in known and self._fleet.in_flight(jobs[run].key)]
            self._agenda.strike(number, but=flying)
            for run in flying:
                await self._fleet.call_off(jobs[run].key)
        if (outcomes := self._agenda.close(number)) is not None:
            await self._record(number, outcomes)

    async def _run_ended(self, item: Item, outcome: Outcome) -> None:
        """A slot has run a job to its end: that of its trial, or of one of its runs."""
        number = item.number
        if outcome.verdict is Verdict.PAUSED:
            await self._pruning.pause(number, item.params, outcome)
            await self._blocking(functools.partial(self._usage.count, number))
            self._agenda.set_aside(item)
            return
        self._agenda.ended(item, outcome)
        if (outcomes := self._agenda.close(number)) is not None:
            await self._record(number, outcomes)
            return
        facts = run_facts(outcome, self._site(number, item.run)) | {"steps": self._chores.steps(number, item.run)}

        def note() -> None:
            self._database.note(number, run_name(item.run), facts)
            self._usage.count(number)

        self._chores.later(number, note)
        if not outcome.succeeded:
            for other in self._agenda.in_flight(number):
                self._tell("called-off", number=number, run=other.run, message=f"run {item.run} has no result")
                await self._fleet.call_off(run_key(number, other.run, self._study.repeats))

    def _site(self, number: int, run: int) -> str:
        """The site that had a trial's run last."""
        return self._fleet.site_of(run_key(number, run, self._study.repeats))

    async def _record(self, number: int, outcomes: Mapping[int, Outcome]) -> None:
        await self._pruning.settle(number)
        end = ending(self._study, outcomes, {run: self._site(number, run) for run in outcomes})
        state, values, outcome = end.state, end.values, outcomes[decisive(outcomes)]
        self._guard()

        def tell() -> None:
            used = dataclasses.asdict(self._usage.count(number))
            self._database.tell(number, state, values, {**end.attributes, USED: used})

        await self._blocking(tell)
        broken = {"broken": end.broken} if end.broken else {}
        self._tell("told", number=number, state=state, values=values, verdict=str(outcome.verdict), **broken)
        self._in_a_row = 0 if state != "failed" else self._in_a_row + 1
        # The slot asks for its next trial first; these come after it.
        if values is not None:
            directories = [each.directory for each in outcomes.values()]
            self._chores.add(self._keeper.add(directories, None if broken else values, self._fleet))
        self._chores.add(self._chronicle.publish("running"))
        if state == "complete":
            self._pruning.complain(number)
        limit = self._study.failures.stop_after
        if limit is not None and self._in_a_row >= limit:
            raise Paused(
                f"{self._in_a_row} trials in a row failed, the last one: {outcome.reason}",
                hint=f"see `survey logs {number}`; mend it, then run the study again",
            )

    def _job(self, item: Item) -> Job:
        return dataclasses.replace(study_job(self._study, item.number, item.params, item.run), beyond=item.beyond)
