"""The best trials of a study run again, on the cases that the search has not seen, with seeds that it has not used.

It has a folder of its own in the study's, with a ledger and a lease of its own: neither the study's database nor
its sampler learns of it. As a study it can end at any moment, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import ResumeMismatch, UsageError
from orchestrator.search.assignment import study_fleet, study_job
from orchestrator.search.layout import run_key
from orchestrator.search.places import Place
from orchestrator.store.atomic import make_directory
from orchestrator.store.evaluation import (
    EvaluatedRun,
    EvaluatedTrial,
    EvaluationRecord,
    read_evaluation,
    write_evaluation,
)
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger

if TYPE_CHECKING:
    from orchestrator.config.evaluation import Evaluation
    from orchestrator.config.study import Study
    from orchestrator.jobs.fleet import Fleet
    from orchestrator.jobs.session import Event
    from orchestrator.model import Job, Json, Outcome
    from orchestrator.search.layout import StudyFolder
    from orchestrator.store.record import TrialRecord

__all__ = ["EvaluationDriver"]

_RENEW_PAUSE = 20.0
_SEVERAL = 2  # one run of a trial has the same folder as the first of several: their number may grow


class EvaluationDriver:
    """Runs trials of a study as its ``evaluate:`` says.

    Parameters
    ----------
    study : Study
        What study.yaml says.
    places : sequence of Place
        Where its jobs run.
    folder : StudyFolder
        The study's own.
    trials : sequence of TrialRecord
        Those that are evaluated, best first.
    origin : Path
        The folder of study.yaml, where commands run.
    on_event : callable, optional
        Called with each event of the sessions, and ``evaluated`` for each run that has ended.

    Raises
    ------
    UsageError
        The study does not say how its trials are evaluated.
    """

    def __init__(
        self,
        study: Study,
        places: Sequence[Place],
        folder: StudyFolder,
        trials: Sequence[TrialRecord],
        *,
        origin: Path,
        clock: Clock | None = None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        if study.evaluate is None:
            raise UsageError(
                f"study {study.name!r} does not say how its best trials are evaluated",
                hint="write `evaluate: {command: [...], metrics: [...]}` into study.yaml, and name that file",
            )
        self._how: Evaluation = study.evaluate
        self.study = study
        self.folder = folder
        self.trials = tuple(trials)
        self.clock: Clock = clock or SystemClock()
        self.metrics = self._how.metrics or tuple(target.metric for target in study.targets)
        self._places = [dataclasses.replace(each, study=self._as_evaluated(each.study)) for each in places]
        self._origin = origin.resolve()
        self._on_event = on_event
        self._ended: dict[str, Outcome] = {}
        self._leaving = asyncio.Event()
        self.draining = False

    @property
    def stopped(self) -> bool:
        """Whether somebody else has asked for its end."""
        return False

    @property
    def root(self) -> Path:
        """Its own folder."""
        return self.folder.root / "evaluation"

    def drain(self) -> None:
        """Begin no more runs; those in flight finish."""
        self.draining = True

    def leave(self) -> None:
        """Leave jobs to run and end."""
        self._leaving.set()

    async def run(self) -> EvaluationRecord:
        """Run what has no result yet, what failed before too, and return all that is known.

        Raises
        ------
        HeldByAnother
            Another process evaluates this study.
        ResumeMismatch
            It was evaluated before in another way.
        Paused
            Something needs a person; nothing is lost.
        """
        make_directory(self.root)
        with Lease.acquire(self.root, self.clock) as lease:
            self._refuse_another()
            fleet = study_fleet(
                self._as_evaluated(self.study),
                self._places,
                self.root,
                origin=self._origin,
                lease=lease,
                clock=self.clock,
                on_event=lambda _site: self._on_event,
            )
            async with fleet:
                waiting: deque[Job] = deque()
                for job in self._jobs():
                    known = fleet.settled(job)
                    if known is not None and known.succeeded:
                        self._ended[job.key] = known
                    else:
                        fleet.forget(job.key)
                        waiting.append(job)
                await self._work_through(waiting, fleet, lease)
            return self._write()

    async def _work_through(self, waiting: deque[Job], fleet: Fleet, lease: Lease) -> None:
        async def slot() -> None:
            while waiting and not self.draining:
                job = waiting.popleft()
                self._ended[job.key] = outcome = await fleet.run(job)
                lease.check()
                self._write()
                self._on_event(
                    {
                        "time": self.clock.now(),
                        "event": "evaluated",
                        "number": job.number,
                        "run": job.run,
                        "verdict": str(outcome.verdict),
                        "message": outcome.reason,
                        "metrics": dict(outcome.metrics),
                        "left": len(waiting),
                    }
                )

        async def keep() -> None:
            while True:
                await self.clock.sleep(_RENEW_PAUSE)
                lease.renew()

        slots = [asyncio.create_task(slot()) for _ in range(min(self.study.parallel, len(waiting)))]
        others = [asyncio.create_task(keep(), name="lease"), asyncio.create_task(self._leaving.wait(), name="leave")]
        pending: set[asyncio.Task[Any]] = {*slots, *others}
        try:
            while any(each in pending for each in slots) and not self._leaving.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (*slots, *others):
                task.cancel()
            await asyncio.gather(*slots, *others, return_exceptions=True)

    # What is run

    def _as_evaluated(self, study: Study) -> Study:
        changes: dict[str, Any] = {
            "name": f"{study.name}-evaluation",
            "environment": {**study.environment, **self._how.environment},
        }
        return study.model_copy(update=changes)

    def _jobs(self) -> list[Job]:
        """All runs, those of one index first: each trial has a first result soon."""
        return [self._job(trial, run) for run in range(1, self._how.repeats + 1) for trial in self.trials]

    def _job(self, trial: TrialRecord, run: int) -> Job:
        job = study_job(self.study, trial.number, trial.params)
        left = trial.directories
        environment = {"SURVEY_SPLIT": "test"}
        if left:
            environment["SURVEY_EVALUATED"] = left[(run - 1) % len(left)]
        command = self._how.command or self.study.command
        return dataclasses.replace(
            job,
            key=_key(trial.number, run),
            command=command if isinstance(command, str) else tuple(command),
            metrics=self.metrics,
            environment=environment,
            seed=self._seed(run),
            run=run,
            runs=self._how.repeats,
        )

    def _seed(self, run: int) -> int:
        """The seed of a run: the same for all trials, and none of the search's."""
        from orchestrator.samplers import trial_seed

        return trial_seed(self.study.sampler.seed, run, "evaluate") % 2**31

    # What has come of it

    def _refuse_another(self) -> None:
        known = read_evaluation(self.folder.root)
        if known is not None and dict(known.definition) != self._definition():
            raise ResumeMismatch(
                f"the trials of study {self.study.name!r} were evaluated before with another command, environment or"
                f" metrics: {known.definition.get('command')}",
                hint=f"move {self.folder.root / 'evaluation.json'} and {self.root} away to evaluate them anew",
            )
        ledger, here = Ledger(self.root), {place.site.name for place in self._places}
        latest = [ledger.latest(key) for key in ledger.keys()]  # noqa: SIM118  a ledger is no dict
        if away := {each.site for each in latest if each is not None and each.outcome is None} - here:
            raise ResumeMismatch(
                f"runs of this evaluation are in flight on site {min(away)!r}, which is not among {', '.join(sorted(here))}",
                hint=f"go on with --site {min(away)} until they have ended",
            )

    def _definition(self) -> dict[str, Json]:
        command = self._how.command or self.study.command
        return {
            "command": command if isinstance(command, str) else list(command),
            "metrics": list(self.metrics),
            "environment": dict(self._how.environment),
        }

    def _write(self) -> EvaluationRecord:
        known = read_evaluation(self.folder.root)
        before: Mapping[int, EvaluatedTrial] = {} if known is None else {each.number: each for each in known.trials}
        now = {trial.number: self._evaluated(trial, before.get(trial.number)) for trial in self.trials}
        every = {**before, **now}
        sign = -1.0 if self.study.targets[0].direction == "maximize" else 1.0
        record = EvaluationRecord(
            definition=self._definition(),
            metrics=self.metrics,
            updated=self.clock.now(),
            trials=tuple(sorted(every.values(), key=lambda each: (sign * each.values[0], each.number))),
        )
        write_evaluation(self.folder.root, record)
        return record

    def _evaluated(self, trial: TrialRecord, before: EvaluatedTrial | None) -> EvaluatedTrial:
        runs = {} if before is None else {run.run: run for run in before.runs}
        for run in range(1, self._how.repeats + 1):
            if (outcome := self._ended.get(_key(trial.number, run))) is not None:
                runs[run] = EvaluatedRun(
                    run=run,
                    seed=self._seed(run),
                    verdict=str(outcome.verdict),
                    reason=outcome.reason,
                    metrics=outcome.metrics,
                    info=outcome.info,
                    job_id=outcome.job_id,
                    directory=outcome.directory,
                )
        return EvaluatedTrial(
            number=trial.number,
            values=trial.values or (),
            params=trial.params,
            runs=tuple(runs[run] for run in sorted(runs)),
        )


def _key(number: int, run: int) -> str:
    return run_key(number, run, _SEVERAL)
