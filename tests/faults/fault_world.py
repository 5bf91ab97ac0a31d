"""One study on an emulated cluster, driven by the real driver in virtual time; faults happen to both.

`FaultWorld.holds` is the judge: it is asked when a driver has run to the end and the cluster has drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.config.study import Study
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.model import Attempt, Verdict
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.batchjob import BatchJob, Phase, Wish
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Execution, Program, Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.studydb import read_trials

T = TypeVar("T")

THREE = ["slurm", "pbs", "pjm"]
TRIALS, PARALLEL = 6, 3
HOUR = 3600.0
LOOKS = {"look": 15.0}
"""Looks at files are most of what a study costs in virtual time."""
FILE = {"storage": "journal:study.log"}
"""A storage that costs less to open than SQLite, for faults that have nothing to do with the database."""


def study(**changes: Any) -> Study:
    """The study of these tests: six random points, three at a time."""
    data: dict[str, Any] = {
        "name": "faulty",
        "objective": {"metric": "m", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 5},
        "trials": TRIALS,
        "parallel": PARALLEL,
        "command": ["train"],
        "resources": {"gpus": 1, "walltime": 7200},
        "failures": {"stop_after": None, "most": 1.0},
        **FILE,
    }
    return Study.model_validate({**data, **changes})


def train(_order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
    """Ten to twenty minutes, and a parabola."""
    x = float(params["x"])
    return Run(duration=600.0 + 600.0 * x, metrics={"m": (x - 0.3) ** 2})


def of_trial(number: int, run: Run) -> Program:
    """A program that does ``run`` in one trial and trains in the others."""
    return lambda order, params, attempt: run if order["number"] == number else train(order, params, attempt)


class FaultWorld:
    """A cluster that outlives its drivers, jobs of others on it, and the folder of one study.

    Attributes
    ----------
    events : list
        What the drivers told.
    strangers : list of BatchJob
        Jobs that are not the study's: one of the same user, one of another. They wait as long as the world lives.
    """

    def __init__(
        self,
        root: Path,
        kind: str = "slurm",
        program: Program = train,
        *,
        faults: Sequence[Fault] = (),
        site: Mapping[str, Any] | None = None,
        files_lag: float = 0.0,
        latency: float = 0.0,
        skew: float = 0.0,
        clock: VirtualClock | None = None,
        changes: Mapping[str, Any] | None = None,
        **rules: Any,
    ) -> None:
        self.root = root
        self.clock = clock or VirtualClock()
        self.flavour = FLAVOURS[kind]
        self.plan = FaultPlan(faults)
        self.transport = SimulatedTransport(
            self.clock,
            program,
            kind=kind,
            rules=self.flavour.make_rules(**rules),
            faults=self.plan,
            files_lag=files_lag,
            latency=latency,
            skew=skew,
        )
        self.cluster = self.transport.cluster
        self.site = self.flavour.site(**{"poll": LOOKS, **(site or {})})
        self.study = study(**(changes or {}))
        self.events: list[dict[str, Any]] = []
        self.began = self.clock.now()
        self.strangers = [
            self.cluster.submit(Wish(name=name, hold=True, text="#!/bin/sh\nsleep 60\n"), user)
            for name, user in (("my-other-job", None), ("t00001-theirs00", "neighbour"))
        ]

    # What happens

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.root / self.study.name

    def driver(self, what: Study | None = None, *, root: Path | None = None) -> StudyDriver:
        """A new driver."""
        return StudyDriver(
            what or self.study,
            self.site,
            root or self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=lambda event: self.events.append(dict(event)),
        )

    async def run(self, what: Study | None = None) -> StudyRecord:
        """Run the study to its end."""
        return await self.driver(what).run()

    async def run_while(self, happening: Awaitable[object]) -> StudyRecord:
        """Run the study to its end while something happens."""
        record, _ = await asyncio.gather(self.run(), happening)
        return record

    async def cut_short(self, seconds: float) -> None:
        """Run a driver that is ended in order after a while; its jobs stay."""
        driver = self.driver()
        task = asyncio.create_task(driver.run())
        await asyncio.sleep(seconds)
        driver.leave()
        await task

    async def idle(self, seconds: float) -> None:
        """Let time pass on the cluster while nobody drives."""
        await asyncio.sleep(seconds)
        self.cluster.advance(self.clock.now())

    def running(self) -> list[BatchJob]:
        """Our jobs that run, the oldest first."""
        ours = [job for job in self.cluster.live() if job.phase is Phase.RUNNING and job not in self.strangers]
        return sorted(ours, key=lambda job: (job.started or 0.0, job.key))

    # What is known

    @property
    def executions(self) -> list[Execution]:
        """Every start of a program, as the cluster counts them."""
        return self.transport.executions

    @property
    def starts(self) -> Counter[str]:
        """How often the program of each trial was started, by the trial's key; found by the ledger's tags."""
        owner = {attempt.tag: attempt.key for attempt in self.attempts()}
        return Counter(owner.get(execution.tag, f"unknown {execution.tag}") for execution in self.executions)

    def attempts(self) -> list[Attempt]:
        """All attempts of the study."""
        ledger = Ledger(self.folder)
        return [attempt for key in ledger.keys() for attempt in ledger.attempts(key)]  # noqa: SIM118 - no dict

    def said(self, event: str) -> list[str]:
        """The words of all events of a name."""
        return [str(each.get("message", "")) for each in self.events if each["event"] == event]

    def calls(self, role: str) -> int:
        """How often the scheduler's command for something was called."""
        return self.plan.calls(role)

    # What must hold

    async def holds(self, record: StudyRecord, *, once: bool = True, failed: Sequence[int] = ()) -> None:
        """Let the cluster drain and see that nothing was lost and nothing came twice.

        Parameters
        ----------
        once : bool
            Whether each trial's program was to start exactly once.
        failed : sequence of int
            Trials that were to fail; all others are complete, with the values of the undisturbed study.
        """
        await asyncio.sleep(3 * HOUR)
        self.cluster.advance(self.clock.now() + self.transport._skew)
        wrong = [
            *self._trials(record, failed),
            *self._queue(),
            *self._executions(once=once),
            *self._reopens(record),
            *self._manners(),
        ]
        assert not wrong, "\n".join(wrong)

    def _trials(self, record: StudyRecord, failed: Sequence[int]) -> list[str]:
        wrong = []
        if record.state != "done":
            wrong.append(f"INV1: the study is {record.state}: {record.message}")
        if [trial.number for trial in record.trials] != list(range(record.planned)):
            wrong.append(f"INV4: {len(record.trials)} trials of {record.planned}")
        expected = undisturbed()
        for trial in record.trials:
            if trial.state not in {"complete", "pruned", "failed"}:
                wrong.append(f"INV3: trial {trial.number} is {trial.state}")
            if trial.state == "failed" and not trial.reason:
                wrong.append(f"INV1: trial {trial.number} has failed without a reason")
            if (trial.state == "failed") is not (trial.number in failed):
                wrong.append(f"INV1: trial {trial.number} is {trial.state}: {trial.reason}")
            if trial.number < len(expected):
                params, values = expected[trial.number]
                if dict(trial.params) != params or (trial.state == "complete" and trial.values != values):
                    wrong.append(f"INV8: trial {trial.number} differs from that of the undisturbed study")
            if trial.state == "complete":
                wrong += self._fenced(trial)
        return wrong

    def _fenced(self, trial: TrialRecord) -> list[str]:
        """The value is that of the attempt that was current."""
        last = Ledger(self.folder).attempts(f"{trial.number:05d}")[-1]
        if last.outcome is None or last.outcome.tag != last.tag or last.outcome.verdict is not Verdict.SUCCEEDED:
            return [f"INV2: the last attempt of trial {trial.number} is no success: {last.outcome}"]
        written = self.transport.files.read(f"{trial.directory}/result.json")
        if written is None:  # tidied away, or read from the output
            return []
        result = json.loads(written)
        if result.get("tag", last.tag) != last.tag or (result["metrics"]["m"],) != trial.values:
            return [f"INV2: trial {trial.number} has not the value of its last attempt"]
        return []

    def _queue(self) -> list[str]:
        left = [job for job in self.cluster.live() if job.phase is not Phase.ENDED and job not in self.strangers]
        wrong = [f"INV5: job {job.number} ({job.wish.name}) is left in the queue" for job in left]
        touched = [job for job in self.strangers if job.phase is not Phase.HELD]
        return wrong + [f"INV5: job {job.number} is not ours and was touched" for job in touched]

    def _executions(self, *, once: bool) -> list[str]:
        wrong = []
        attempts = {attempt.tag: attempt for attempt in self.attempts()}
        for tag, count in Counter(execution.tag for execution in self.executions).items():
            if tag not in attempts:
                wrong.append(f"INV6: {tag} was executed and is in no attempt file")
            elif NEVER_RAN in attempts[tag].notes:
                wrong.append(f"INV6: {tag} was executed, and its attempt file says that it never ran")
            elif count > 1 + self.restarts(attempts[tag]):
                wrong.append(f"INV6: {tag} was executed {count} times, and no restart is recorded")
        twice = {key: count for key, count in self.starts.items() if count > 1}
        return wrong + ([f"INV6: executed more than once: {twice}"] if once and twice else [])

    def restarts(self, attempt: Attempt) -> int:
        """How often the agent has recorded that the scheduler started the attempt's job again."""
        path = f"{self.folder}/trials/{attempt.key}/attempt-{attempt.number}/restarts.jsonl"
        return (self.transport.files.read(path) or b"").count(b"\n")

    def _reopens(self, record: StudyRecord) -> list[str]:
        wrong = []
        for _ in range(2):
            found = read_trials(self.folder, name=self.study.name, url=self.study.storage)
            same = [(each.number, each.state, each.values) for each in found]
            if same != [(each.number, each.state, each.values) for each in record.trials]:
                wrong.append("INV7: the database holds something else than the record")
        return wrong

    def _manners(self) -> list[str]:
        elapsed = self.clock.now() - self.began
        calls = sum(self.transport.login.calls.values())
        wrong = [] if elapsed < 3 * 86400.0 else [f"INV10: it took {elapsed:.0f} s"]
        if calls >= 60 + elapsed / 10.0:
            wrong.append(f"INV10: {calls} commands in {elapsed:.0f} s")
        open_to_all = [path.name for path in self.folder.rglob("*") if path.lstat().st_mode & 0o077]
        return [*wrong, f"INV9: open to others: {open_to_all}"] if open_to_all else wrong


def play(body: Callable[[], Awaitable[T]]) -> T:
    """Run a test's body in virtual time."""

    async def act() -> T:
        return await body()

    undisturbed()  # its own virtual time comes first
    return run_virtual(act())


@functools.cache
def undisturbed() -> tuple[tuple[dict[str, Any], tuple[float, ...] | None], ...]:
    """Parameters and values of the study when nothing happens to it."""
    with tempfile.TemporaryDirectory(prefix="survey-test-") as folder:
        found: list[StudyRecord] = []

        async def run() -> None:
            found.append(await FaultWorld(Path(folder)).run())

        run_virtual(run())
    return tuple((dict(trial.params), trial.values) for trial in found[0].trials)


async def after(seconds: float, act: Callable[[], object]) -> None:
    """Do something when so much time has passed."""
    await asyncio.sleep(seconds)
    act()


@contextlib.contextmanager
def emptied(world: FaultWorld) -> Iterator[None]:
    """The scheduler forgets everything, and has no doubt about it: empty lists, return code 0."""
    cluster = world.cluster
    names = ("live", "job", "past", "named")
    for name in names:
        setattr(cluster, name, lambda *_: [])
    try:
        yield
    finally:
        for name in names:
            delattr(cluster, name)
