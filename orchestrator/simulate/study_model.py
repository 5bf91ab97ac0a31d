"""A whole study on a modelled machine, in virtual time: the real driver, samplers and store, and a table for a training.

What is left out of the study: its command, its sites, its walltime. What stands in for them: a program that looks
its result up, and an emulated Slurm on which jobs wait as long as other users would make them wait.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestrator.errors import UsageError
from orchestrator.simulate.batchjob import BatchJob, Node, Partition
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.programs import Execution, Run
from orchestrator.simulate.study_driver import BatchDriver, VirtualDriver
from orchestrator.simulate.surrogate import Expected
from orchestrator.simulate.times import Times
from orchestrator.simulate.transport import SimulatedTransport

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.store.record import StudyRecord

__all__ = ["WAYS", "Arm", "JobUse", "Machine", "Way", "simulate_arm"]

Way: TypeAlias = Literal["asynchronous", "batches", "packed"]
WAYS: tuple[Way, ...] = ("asynchronous", "batches", "packed")

Trainings: TypeAlias = "Callable[[Mapping[str, Any], int], Expected]"

_LOOKS = 50  # of the driver in a typical run: an end is noticed one to two percent late
_LONGEST_LOOK = 120.0
_QUERY = (300.0, 3600.0)  # no job is lost here, and ends are seen by files: the scheduler is asked about once a run
_HISTORY = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the study runs on.

    Attributes
    ----------
    run_time : Times or None
        None: what the table says, times ``stretch``.
    failures : float
        Chance that a trial fails part of the way.
    nodes : int or None
        Nodes that the study's jobs can have at a time; None: as many as its slots need.
    pack : int
        Trials that a node carries side by side.
    submits_per_minute : float
        What the site bears.
    """

    queue_wait: Times
    run_time: Times | None = None
    stretch: float = 1.0
    failures: float = 0.0
    nodes: int | None = None
    pack: int = 4
    submits_per_minute: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUse:
    """A batch job that has run: seconds since the study's start, and the trials that it carried."""

    started: float
    ended: float
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One simulated study.

    Attributes
    ----------
    devices : int
        GPUs of a trial, on all of its nodes; 0 for one that needs none.
    jobs : tuple of JobUse
        By their starts.
    """

    way: Way
    parallel: int
    repeat: int
    record: StudyRecord
    jobs: tuple[JobUse, ...]
    devices: int

    def hours(self, until: float | None = None) -> float:
        """GPU-hours that the jobs held (hours of trials' places where no GPU is asked for), up to a moment."""
        ends = [job.ended if until is None else min(job.ended, until) for job in self.jobs]
        held = [max(0.0, end - job.started) * job.trials for job, end in zip(self.jobs, ends, strict=True)]
        return sum(held) * max(1, self.devices) / 3600.0


def simulate_arm(
    study: Study, trainings: Trainings, machine: Machine, *, way: Way, parallel: int, repeat: int = 1, typical: float
) -> Arm:
    """Run the study once, from its first trial to its last.

    Parameters
    ----------
    trainings : callable
        What a training with parameters and a seed comes to.
    repeat : int
        Sets the seeds of the sampler, the trials and the machine; the same repeat of another arm has the same ones.
    typical : float
        Seconds of a typical run: sets how often the driver looks.
    """
    plain = _simulated_study(study, way, parallel, repeat, machine)
    gpus, cpus, nodes = (getattr(study.resources, name) for name in ("gpus", "cpus", "nodes"))
    if way == "packed" and nodes > 1:
        raise UsageError(
            f"trials of study {study.name!r} take {nodes} nodes each: only trials of one node can share a job"
        )
    side_by_side = machine.pack if nodes == 1 else 1
    needed = -(-parallel * nodes // side_by_side)
    if machine.nodes is not None and machine.nodes < nodes:
        raise UsageError(f"a trial of study {study.name!r} takes {nodes} nodes; there are {machine.nodes}")

    async def play(root: Path) -> tuple[StudyRecord, list[Execution]]:
        clock = VirtualClock()
        kind = flavour("slurm")
        rules = kind.make_rules(
            nodes=tuple(
                Node(name=f"n{index}", gpus=gpus * side_by_side, cpus=cpus * side_by_side)
                for index in range(machine.nodes or needed)
            ),
            partitions=(Partition(name="main"),),
            queue_wait=_waits(machine.queue_wait, repeat),
            history_kept=_HISTORY,
        )
        program = _program(trainings, machine, repeat)
        transport = SimulatedTransport(clock, program, kind=kind, rules=rules, keep_folders=0)
        look = min(max(5.0, typical / _LOOKS), _LONGEST_LOOK)
        query = min(max(_QUERY[0], typical), _QUERY[1])
        site = kind.site(
            poll={"look": look, "query_min": query, "query_max": 2 * query},
            limits={"submits_per_minute": machine.submits_per_minute},
        )
        make = BatchDriver if way == "batches" else VirtualDriver
        record = await make(plain, site, root, clock=clock, transport=transport).run()
        return record, transport.executions

    with tempfile.TemporaryDirectory(prefix="survey-simulate-", dir=_memory()) as folder:
        record, executions = run_virtual(play(Path(folder)))
    started = min(trial.created for trial in record.trials if trial.created is not None)
    return Arm(
        way=way,
        parallel=parallel,
        repeat=repeat,
        record=record,
        jobs=_uses(executions, started),
        devices=gpus * nodes,
    )


def _simulated_study(study: Study, way: Way, parallel: int, repeat: int, machine: Machine) -> Study:
    from orchestrator.config.site import BatchOptions
    from orchestrator.config.study import Failures

    sampler = study.sampler.model_copy(update={"seed": (study.sampler.seed + repeat - 1) % 2**32})
    return study.model_copy(
        update={
            "sampler": sampler,
            "parallel": parallel,
            "batch": BatchOptions(pack=min(machine.pack, parallel) if way == "packed" else 1),
            "resources": study.resources.model_copy(update={"walltime": None, "memory": None}),
            "failures": Failures(most=1.0),
            "sites": (),
            "storage": None,
            "workdir": None,
            "environment": {},
            "data": (),
            "read": (),
            "command": ("looked-up",),
        }
    )


def _program(trainings: Trainings, machine: Machine, repeat: int) -> Callable[..., Run]:
    def run(order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        expected = trainings(params, int(order["seed"] or 0))
        of_several = (order["run"],) if order["runs"] > 1 else ()
        seconds = (expected.seconds or 0.0) * machine.stretch
        if machine.run_time is not None:
            seconds = machine.run_time.draw(repeat, "run", order["number"], *of_several, attempt)
        luck = random.Random("-".join(map(str, (repeat, "luck", order["number"], *of_several, attempt))))
        if expected.metrics is None or luck.random() < machine.failures:
            return Run(duration=max(1.0, seconds * luck.random()), exit_code=1)
        return Run(duration=max(1.0, seconds), metrics=expected.metrics, progress=expected.progress, resumes=True)

    return run


def _waits(times: Times, repeat: int) -> Callable[[BatchJob], float]:
    return lambda job: times.draw(repeat, "wait", job.number, job.index or 0)


def _uses(executions: list[Execution], began: float) -> tuple[JobUse, ...]:
    """Jobs, from the executions in them: a job holds all that it has until its last trial ends."""
    jobs: dict[object, list[Execution]] = {}
    for execution in executions:
        jobs.setdefault(execution.key, []).append(execution)
    uses = [
        JobUse(
            started=min(each.started for each in group) - began,
            ended=max(each.ended or each.started for each in group) - began,
            trials=len(group),
        )
        for group in jobs.values()
    ]
    return tuple(sorted(uses, key=lambda use: use.started))


def _memory() -> str | None:
    """A folder in memory for the ledger, whose files are synced one by one; None where there is none."""
    place = "/dev/shm"  # noqa: S108  a folder of its own is made in it
    return place if os.path.isdir(place) and os.access(place, os.W_OK) else None
