"""A cluster in virtual time that outlives its drivers, and drivers that are killed at a point or at a moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna.storages._rdb.storage as rdb
import pytest
import sqlalchemy
from chaos_crash import Gate, Killed, Point, closing, instrument
from chaos_invariants import Evidence, History, Ran, history, metrics_of, violations

from orchestrator.config.site import Queue
from orchestrator.config.study import Study
from orchestrator.errors import Paused, TooManyFailures
from orchestrator.search import chronicle
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.batchjob import BatchJob, Fate, Node, Phase, Wish
from orchestrator.simulate.clock import VirtualClock
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Program, Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store import lease, provenance, sqlite
from orchestrator.store.database import close_storage
from orchestrator.store.studydb import read_trials

__all__ = ["CANARY", "WAYS", "Life", "World", "fast_folder", "make_study", "processes", "train"]

CANARY = "canary-7f3a91c4"
"""A secret in the driver's environment; wherever it is found later, it has leaked."""

_WHOLE_NODES = Queue(name="main", unit="node", gpus_per_unit=2, cores_per_unit=8)
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # What is changed of the site, and the study's batch section.
    "single": ({}, {"array": False}),
    "packed": ({"queues": [_WHOLE_NODES.model_dump()]}, {"pack": "auto", "array": False}),
    "array": ({"array_allowed": True}, {"array": True}),
}
"""Jobs of one trial, jobs of two trials on a node of their own, elements of an array job."""

_HOUR = 3600.0
_DRAINED = 12 * _HOUR
_TOO_LONG = 30 * 24 * _HOUR


def train(_order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    """One to four minutes; the number of the attempt is among the metrics."""
    x = float(params["x"])
    return Run(duration=60.0 + 180.0 * x, metrics={"m": (x - 0.3) ** 2, "attempt": attempt}, progress=[(1, x)])


def make_study(**changes: Any) -> Study:
    """Twenty trials in four slots, unless told otherwise."""
    data: dict[str, Any] = {
        "name": "chaos",
        "objective": {"metric": "m", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 11},
        "trials": 20,
        "parallel": 4,
        "command": ["train"],
        "resources": {"gpus": 1, "walltime": 3600},
        "failures": {"most": 1.0},
    }
    return Study.model_validate({**data, **changes})


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is such a thing: thousands of small files are renamed here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="survey-chaos-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        yield Path(folder)


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Let each driver in this process count as a process of its own, and spare what only a power cut would tell."""
    with pytest.MonkeyPatch.context() as patch:
        instrument(patch, SimulatedTransport)
        # A driver that was killed is dead, although the process that it lived in goes on.
        patch.setattr(lease, "_process_start", lambda _pid: str(World.lives))
        patch.setenv("SURVEY_TEST_PASSWORD", CANARY)
        # What a killed process has written is in the kernel's hands; that it is synced is tested elsewhere.
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setattr(sqlite, "connect", _unsynced(sqlite.connect))
        # Real time must not decide what happens in virtual time.
        patch.setattr(chronicle, "_SHARE", 0.0)
        # One process stands for hundreds: it need not read Optuna's migrations, compile SQL and ask git each time.
        manager = rdb._VersionManager
        patch.setattr(manager, "_create_alembic_script", _read_once(manager._create_alembic_script))
        patch.setattr(sqlalchemy.engine, "create_engine", _with_one_cache(sqlalchemy.engine.create_engine))
        patch.setattr(provenance, "_git", lambda _folder: {})
        patch.setattr(provenance, "_packages", dict)
        yield


def _unsynced(connect: Any) -> Any:
    def open_(path: Path) -> Any:
        connection = connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    return open_


def _read_once(read: Any) -> Any:
    found: list[Any] = []

    def script(manager: Any) -> Any:
        if not found:
            found.append(read(manager))
        return found[0]

    return script


def _with_one_cache(create: Any) -> Any:
    first: list[Any] = []

    def create_engine(*arguments: Any, **keys: Any) -> Any:
        engine = create(*arguments, **keys)
        if not first:
            first.append(engine)
        engine._compiled_cache = first[0]._compiled_cache
        return engine

    return create_engine


@dataclass(frozen=True, slots=True)
class Life:
    """How one driver's life went: ``killed``, or the state in which it left the study (done, interrupted, paused)."""

    end: str
    gate: Gate
    words: str = ""


class World:
    """One cluster, one study, and its drivers.

    Parameters
    ----------
    root : Path
        Where the study's folder is to be.
    kind, way : str
        A flavour of cluster, and which trials share jobs: one of `WAYS`.
    study : mapping
        What of the study is to be different.
    rules : mapping
        What of the cluster is to be different.
    """

    lives = 0

    def __init__(
        self,
        root: Path,
        kind: str = "slurm",
        way: str = "single",
        *,
        program: Program = train,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        files_lag: float = 0.0,
        skew: float = 0.0,
        study: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        changes, batch = WAYS[way]
        self.root = root
        self.clock = VirtualClock()
        self.site = FLAVOURS[kind].site(**changes)
        self.study = make_study(batch=batch, **(study or {}))
        self.folder = root / self.study.name
        nodes = tuple(Node(name=f"n{number}", gpus=2, cpus=8) for number in range(1, 6))
        made = FLAVOURS[kind].make_rules(**{"nodes": nodes, "requeue_wait": 60.0, **(rules or {})})
        self.plan = FaultPlan(faults, seed=seed)
        self.transport = SimulatedTransport(
            self.clock, program, kind=kind, rules=made, faults=self.plan, files_lag=files_lag, skew=skew
        )
        self.cluster = self.transport.cluster
        self.events: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._mishaps: set[asyncio.Task[None]] = set()
        self._others = [
            self.cluster.submit(Wish(name=name, text="sleep 900\n", walltime=_HOUR), user=user)
            # One of another user; one of ours that no driver of ours has made, with a name that looks like it.
            for name, user in (("t00001-colleague", "colleague"), ("t00001", made.user))
        ]

    # What happens

    async def live(self, die_at: Point | None = None, *, seconds: float | None = None, manner: str = "") -> Life:
        """Let a driver run to its end, to a point where it is killed, or for so many seconds.

        Parameters
        ----------
        manner : str
            What it is told after these seconds: ``drain``, ``leave`` or ``cancel``; without one it is killed.
            ``tick``: it is there for one pass only, which takes so many seconds at most.
        """
        World.lives += 1
        gate = Gate(die_at)
        # Only its tasks are ended with it: those that were there before are the world's.
        others = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(_unless_killed)
        driver = StudyDriver(
            self.study,
            self.site,
            self.root,
            origin=self.root,
            clock=self.clock,
            transport=self.transport,
            on_event=lambda event: self.events.append(dict(event)),
        )
        if manner == "tick":
            driver.pass_once(seconds or _HOUR)
            seconds = None
        begun = self.clock.now()
        dead = asyncio.get_running_loop().create_future()
        gate.on_close(lambda: None if dead.done() else dead.set_result(None))
        with closing(gate):
            task = asyncio.create_task(driver.run())
        await self._until(task, dead, _TOO_LONG if seconds is None else seconds)
        if manner and not task.done() and not gate.closed:
            with closing(gate), contextlib.suppress(Killed):
                getattr(driver, manner)()
            seconds = None
            await self._until(task, dead, _TOO_LONG)
        self.seconds += self.clock.now() - begun
        if gate.closed or not task.done():
            assert seconds is not None or gate.closed, f"the study does not end: {self.events[-5:]}"
            gate.close()
            await self._bury(driver, gate, others)
            return Life("killed", gate)
        try:
            record = task.result()
        except Paused as error:
            return Life("paused", gate, error.message)
        except TooManyFailures as error:
            return Life("done", gate, error.message)
        return Life(record.state, gate)

    @staticmethod
    async def _until(task: asyncio.Task[Any], dead: asyncio.Future[None], seconds: float) -> None:
        await asyncio.wait({task, dead}, timeout=seconds, return_when="FIRST_COMPLETED")

    async def _bury(self, driver: StudyDriver, gate: Gate, others: set[asyncio.Task[Any]]) -> None:
        """Do what the kernel does for a process that is killed; nothing else of it may leave a trace."""
        before = _tree(self.folder)
        while tasks := asyncio.all_tasks() - others:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for storage in gate.storages:
            close_storage(storage)
        if (held := getattr(driver, "_lease", None)) is not None and held._lock is not None:
            os.close(held._lock)
            held._lock = None
        after = _tree(self.folder)
        assert before == after, f"a killed driver has written: {set(before.items()) ^ set(after.items())}"
        for path, data in gate.left_behind:
            path.touch(0o600)
            path.write_bytes(data)

    async def finish(self, *, pause: float = 60.0, lives: int = 12) -> Life:
        """Run drivers one after another until the study is done, as its user would who sees it pause."""
        for _ in range(lives):
            life = await self.live()
            if life.end == "done":
                return life
            await asyncio.sleep(pause)
        raise AssertionError(f"after {lives} more drivers the study still pauses: {life.words}")

    def mishap(self, after: float, name: str, *arguments: Any) -> None:
        """Have something happen to the cluster, so many seconds from now."""

        async def happen() -> None:
            await asyncio.sleep(after)
            self.transport._advance()
            getattr(self, f"_{name}")(*arguments)

        task = asyncio.create_task(happen())
        self._mishaps.add(task)

    def _running(self) -> list[BatchJob]:
        ours = [job for job in self.cluster.live() if job.phase is Phase.RUNNING and job not in self._others]
        return sorted(ours, key=lambda job: (job.started or 0.0, job.key))

    def _fail_node(self, back_after: float) -> None:
        for job in self._running()[:1]:
            self.cluster.fail_node(job.nodes[0], back_after=back_after)

    def _preempt(self) -> None:
        for job in self._running()[-1:]:
            self.cluster.preempt(job)

    def _requeue(self) -> None:
        for job in self._running()[-1:]:
            self.cluster.requeue(job)

    def _cancel(self) -> None:
        for job in self._running()[:1]:
            self.cluster.cancel(job)

    def _crash(self, unsaved: float) -> None:
        self.cluster.crash(unsaved=unsaved)

    def _reset_counter(self) -> None:
        self.cluster.reset_counter()

    # What is left

    async def evidence(self, undisturbed: History | None = None) -> Evidence:
        """All that can be known, once the cluster has drained."""
        for task in self._mishaps:
            await task
        await asyncio.sleep(_DRAINED)
        self.transport._advance()
        self.transport._advance()
        live = [job for job in self.cluster.live() if job.phase is not Phase.ENDED]
        site = self.transport.files
        files = {
            f"{folder}/{name}": site.read(f"{folder}/{name}") or b""
            for folder in site._folders
            for name in site.names(folder)
        }
        results = {}
        for path, content in files.items():
            if path.endswith("/job.json"):
                metrics = metrics_of(files.get(path.replace("/job.json", "/result.json")))
                if metrics is not None:
                    results[json.loads(content)["tag"]] = metrics
        return Evidence(
            root=self.folder,
            trials=self.study.trials,
            executions=[
                Ran(each.tag, str(each.key), each.how in {"finished", "stopped"}) for each in self.transport.executions
            ],
            results=results,
            url=self.study.storage_url(),
            queue=[job.wish.name for job in live if job not in self._others],
            harmed=[job.wish.name for job in self._others if job.fate is Fate.CANCELLED],
            undisturbed=undisturbed,
            secret=CANARY,
            elsewhere=files,
            commands=sum(self.transport.login.calls.values()),
            hours=self.seconds / _HOUR,
        )

    async def violations(self, undisturbed: History | None = None) -> list[str]:
        """What of the invariants does not hold."""
        return violations(await self.evidence(undisturbed))

    def history(self) -> History:
        """What the study has come to."""
        return history(read_trials(self.folder, name=self.study.name, url=self.study.storage_url()))


def _unless_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time, but for what closing SQLite rolls back and what a killed write leaves."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".tmp" and not path.name.startswith("study.db")
    }
