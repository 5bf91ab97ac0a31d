"""The core of the emulated cluster: what is submitted, waits, runs and ends, in time that is handed in.

It carries nothing out itself: a `Host` starts and signals what runs (in memory, or real processes)
and tells the cluster what ended. The words of the schedulers are the dialects' business.
"""

from __future__ import annotations

import copy
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from orchestrator.simulate.admission import Admission
from orchestrator.simulate.batchjob import (
    BatchJob,
    Fate,
    Key,
    Node,
    Partition,
    Phase,
    Rules,
    Wait,
    Wish,
)
from orchestrator.simulate.host import Host
from orchestrator.simulate.queue_model import Room, choose
from orchestrator.simulate.register import Register

__all__ = ["Cluster"]

SIGKILL = 9
_COMES_BACK = {Fate.NODE_FAILED, Fate.PREEMPTED, Fate.REQUEUED}


class Cluster:
    """One emulated cluster.

    Parameters
    ----------
    rules : Rules
        What it is made of and how it is run.
    host : Host
        What carries jobs out.
    now : float
        The time at which it begins.
    """

    def __init__(self, rules: Rules, host: Host, *, now: float) -> None:
        self.rules = rules
        self.host = host
        self.now = now
        self.began = now
        self._room = Room([copy.copy(node) for node in rules.nodes])
        self._admission = Admission(rules, self._room)
        self.partitions = self._admission.partitions
        self._next = rules.first_number
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pending: dict[Key, BatchJob] = {}
        self._running: dict[Key, tuple[BatchJob, dict[str, tuple[int, ...]]]] = {}
        self._register = Register()
        self._unfinished: dict[tuple[str, str], int] = {}
        self._started: dict[tuple[str, str], int] = {}
        self._due = False
        self._acting = False

    # Time

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Do something when the cluster's time comes to ``moment``."""
        heapq.heappush(self._events, (max(moment, self.now), next(self._order), act))

    def advance(self, now: float) -> None:
        """Let everything happen that is due until ``now``, each thing at its own time."""
        if self._acting:
            return
        self._acting = True
        try:
            self._schedule()
            while self._events and self._events[0][0] <= now:
                moment, _, act = heapq.heappop(self._events)
                self.now = max(self.now, moment)
                act()
                self._schedule()
            self.now = max(self.now, now)
        finally:
            self._acting = False

    @property
    def next_event(self) -> float | None:
        """When the next thing is due; None if nothing is."""
        return self._events[0][0] if self._events else None

    # What users do

    def submit(self, wish: Wish, user: str | None = None) -> BatchJob:
        """Take a job (or an array; its first element is returned).

        Raises
        ------
        Refusal
            If the cluster does not take it.
        """
        user = user or self.rules.user
        partition = self._admission.queue(wish.queue)
        indices: Sequence[int | None] = (None,) if wish.array is None else wish.array
        queued = self._unfinished.get((user, partition.name), 0)
        self._admission.check(wish, partition, queued=queued, count=len(indices))
        number = self._number()
        wish.rerun = wish.rerun or self.rules.overrules_no_rerun
        first: BatchJob | None = None
        for index in indices:
            job = BatchJob(
                number=number,
                index=index,
                raw=number if first is None or not self.rules.elements_take_numbers else self._number(),
                user=user,
                queue=partition.name,
                wish=wish,
                submitted=self.now,
                queued=self.now,
                visible=self.now + self.rules.visible_after,
                limit=wish.walltime if wish.walltime is not None else partition.default_walltime,
                eligible=self.now,
                phase=Phase.HELD if wish.hold else Phase.QUEUED,
            )
            first = first or job
            self._register.enter(job)
            self._unfinished[user, partition.name] = self._unfinished.get((user, partition.name), 0) + 1
            if self.rules.queue_wait is not None:
                job.eligible = self.now + self.rules.queue_wait(job)
            if not wish.hold:
                self._enqueue(job)
        assert first is not None
        return first

    def cancel(self, job: BatchJob) -> bool:
        """Cancel a job; False if it has ended already."""
        if job.phase in {Phase.QUEUED, Phase.HELD}:
            self._pending.pop(job.key, None)
            self._finish(job, Fate.CANCELLED)
        elif job.phase is Phase.RUNNING:
            self._tell_to_end(job, Fate.CANCELLED, self.rules.cancel_signal)
        else:
            return job.phase is Phase.ENDING
        return True

    def hold(self, job: BatchJob) -> None:
        """Hold a queued job."""
        if job.phase is Phase.QUEUED:
            self._pending.pop(job.key, None)
            job.phase = Phase.HELD

    def release(self, job: BatchJob) -> None:
        """Release a held job."""
        if job.phase is Phase.HELD:
            job.phase = Phase.QUEUED
            self._enqueue(job)

    # What happens to clusters

    def fail_node(self, name: str, back_after: float | None = None) -> None:
        """A node goes down with all that runs on it, and comes back after a while."""
        node = self._room.nodes[name]
        if not node.up:
            return
        for job, _ in list(self._running.values()):
            if name in job.nodes:
                self.host.lose(job)
                self._stop(job, Fate.NODE_FAILED)
        node.up = False
        self._room.refile(name)
        if back_after is not None:
            self.at(self.now + back_after, lambda: self._node_back(name))

    def preempt(self, job: BatchJob) -> None:
        """Take a running job's nodes away for someone else's."""
        if job.phase is Phase.RUNNING:
            self._tell_to_end(job, Fate.PREEMPTED, self.rules.cancel_signal)

    def requeue(self, job: BatchJob, *, hold: bool = False) -> bool:
        """Put a running job back, to run again under its id; False if it does not run or may not be run again."""
        if job.phase is not Phase.RUNNING or not job.wish.rerun:
            return False
        job.hold_next = hold
        self._tell_to_end(job, Fate.REQUEUED, self.rules.requeue_signal)
        return True

    def crash(self, unsaved: float) -> list[BatchJob]:
        """The controller is killed and comes back with the state it saved ``unsaved`` seconds ago.

        Jobs submitted since are lost, with what they run; their numbers are given to the next ones.

        Returns
        -------
        list of BatchJob
            The jobs that were lost.
        """
        lost = [job for job in self._register.live() if job.submitted > self.now - unsaved and job.fate is None]
        for job in lost:
            self._pending.pop(job.key, None)
            if job.key in self._running:
                self.host.lose(job)
                self._release(job)
            self._unfinished[job.user, job.queue] -= 1
            job.phase, job.fate, job.ended = Phase.ENDED, Fate.NODE_FAILED, self.now
            self._register.leave(job)
            self._register.forget(job)
            self._next = min(self._next, job.number)
        return lost

    def reset_counter(self, number: int | None = None) -> None:
        """Lose the job counter, as a controller that restarts from an old state: numbers come again."""
        self._next = self.rules.first_number if number is None else number

    def ended(self, job: BatchJob, *, exit_code: int = 0, signal: int = 0, fate: Fate = Fate.EXITED) -> None:
        """Take the `Host`'s word that a job's script is over."""
        if job.key in self._running and self._running[job.key][0] is job:
            self._stop(job, job.told or fate, exit_code=exit_code, signal=signal)

    # What listings are made of

    def live(self) -> Iterator[BatchJob]:
        """Jobs of the live list, the latest finished ones included."""
        return (job for job in self._register.live() if job.visible <= self.now)

    def job(self, number: int) -> list[BatchJob]:
        """Live jobs of one number: one, or the elements of an array."""
        return [job for job in self._register.numbered(number) if job.visible <= self.now]

    def past(self, numbers: Iterable[int] | None = None) -> Iterator[BatchJob]:
        """Records of starts that are over, of some jobs or of all, the oldest first."""
        if not self.rules.history:
            return
        latest = self.now - self.rules.history_lag
        for record in self._register.past(numbers):
            if record.visible <= self.now and (record.ended is None or record.ended <= latest):
                yield record

    def named(self, name: str) -> list[BatchJob]:
        """All jobs of a name that are known yet and still."""
        return [job for job in self._register.named(name) if job.visible <= self.now]

    def erase(self, record: BatchJob) -> None:
        """Drop an ended job's record, as its owner may in some schedulers."""
        self._register.forget(record)

    @property
    def nodes(self) -> dict[str, Node]:
        """Nodes by name."""
        return self._room.nodes

    # Inside

    def _number(self) -> int:
        while self._register.numbered(self._next):
            self._next += 1
        self._next += 1
        return self._next - 1

    def _enqueue(self, job: BatchJob) -> None:
        if (bar := self._admission.bar(job.wish, self.partitions[job.queue])) is not None:
            job.wait = bar
            return
        if job.eligible > self.now:
            job.wait = Wait.BEGIN if job.starts else Wait.PRIORITY
            self.at(job.eligible, lambda: self._enqueue(job) if job.phase is Phase.QUEUED else None)
            return
        job.wait = Wait.PRIORITY
        self._pending[job.key] = job
        self._due = True

    def _node_back(self, name: str) -> None:
        self._room.nodes[name].up = True
        self._room.refile(name)
        self._due = True

    def _schedule(self) -> None:
        if not self._due:
            return
        self._due = False
        queues: dict[str, list[BatchJob]] = {}
        for job in self._pending.values():
            if self._below_limit(job):
                queues.setdefault(job.queue, []).append(job)
        for name, waiting in queues.items():
            self._start_from(waiting, self.partitions[name])

    def _start_from(self, waiting: list[BatchJob], partition: Partition) -> None:
        """Start what can be started of one queue's jobs; they compete with other queues' for shared nodes only."""
        while True:
            chosen = choose(waiting, self._room, self.now, among=partition.nodes, running=self._releases)
            if chosen is None:
                break
            job, names = chosen
            waiting.remove(job)
            self._begin(job, names)
            if partition.running is not None:
                waiting[:] = [other for other in waiting if self._below_limit(other)]
        if waiting:
            wish = waiting[0].wish
            up = self._room.able(wish, partition.nodes, up=True) >= wish.nodes
            for job in itertools.takewhile(lambda job: job.wish is wish, waiting):
                job.wait = Wait.RESOURCES if up else Wait.NODES_DOWN

    def _below_limit(self, job: BatchJob) -> bool:
        limit = self.partitions[job.queue].running
        if limit is not None and self._started.get((job.user, job.queue), 0) >= limit:
            job.wait = Wait.USER_LIMIT
            return False
        return True

    def _releases(self) -> list[tuple[float, Wish, dict[str, tuple[int, ...]]]]:
        return [
            (float("inf") if job.limit is None else (job.started or self.now) + job.limit, job.wish, taken)
            for job, taken in self._running.values()
        ]

    def _begin(self, job: BatchJob, names: tuple[str, ...]) -> None:
        del self._pending[job.key]
        taken = self._room.take(job.wish, names)
        self._running[job.key] = (job, taken)
        self._started[job.user, job.queue] = self._started.get((job.user, job.queue), 0) + 1
        job.nodes, job.devices = names, taken[names[0]]
        job.phase, job.wait, job.started, job.told = Phase.RUNNING, Wait.NONE, self.now + self.rules.start_delay, None
        job.starts += 1
        start = job.starts
        self.at(job.started, lambda: self._launch(job, start))

    def _launch(self, job: BatchJob, start: int) -> None:
        if not self._still(job, start) or job.phase is not Phase.RUNNING:
            return
        if job.limit is not None:
            self.at(self.now + job.limit + self.rules.limit_late, lambda: self._out_of_time(job, start))
        self.host.start(job)

    def _still(self, job: BatchJob, start: int) -> bool:
        return job.starts == start and job.key in self._running and self._running[job.key][0] is job

    def _out_of_time(self, job: BatchJob, start: int) -> None:
        if self._still(job, start) and job.told is None:
            self._tell_to_end(job, Fate.LIMIT, self.rules.limit_signal)

    def _tell_to_end(self, job: BatchJob, why: Fate, number: int) -> None:
        start = job.starts
        job.phase, job.told = Phase.ENDING, why
        if (job.started or 0.0) > self.now:  # it has its nodes, and nothing runs on them yet
            self._stop(job, why, signal=number)
            return
        self.host.signal(job, number)
        if self._still(job, start) and number != SIGKILL:
            self.at(self.now + self.rules.kill_wait, lambda: self._kill(job, start))

    def _kill(self, job: BatchJob, start: int) -> None:
        if self._still(job, start):
            self.host.signal(job, SIGKILL)

    def _release(self, job: BatchJob) -> None:
        """Give back the nodes of a job that runs no more."""
        _, taken = self._running.pop(job.key)
        self._room.give(job.wish, taken)
        self._started[job.user, job.queue] -= 1
        self._due = True

    def _stop(self, job: BatchJob, fate: Fate, *, exit_code: int = 0, signal: int = 0) -> None:
        self._release(job)
        job.exit_code, job.signal = exit_code, signal
        if fate in _COMES_BACK and job.wish.rerun:
            job.earlier.append(dataclasses.replace(job, phase=Phase.ENDED, fate=fate, ended=self.now, earlier=[]))
            self._register.record(job.earlier[-1])
            job.phase, job.nodes, job.devices, job.told = Phase.QUEUED, (), (), None
            job.started, job.queued, job.eligible = None, self.now, self.now + self.rules.requeue_wait
            if job.hold_next:
                job.phase, job.hold_next = Phase.HELD, False
            else:
                self._enqueue(job)
        else:
            self._finish(job, fate)

    def _finish(self, job: BatchJob, fate: Fate) -> None:
        job.phase, job.fate, job.ended, job.wait = Phase.ENDED, fate, self.now, Wait.NONE
        if job.index is None:
            job.wish.text = ""  # ten thousand scripts that are over are memory
        self._unfinished[job.user, job.queue] -= 1
        if self.rules.history:
            self._register.record(job)
            self.at(self.now + self.rules.history_kept, lambda: self._register.forget(job))
        over = [job]
        if job.index is not None and self.rules.keep_elements:
            elements = self._register.numbered(job.number)
            over = list(elements) if all(element.phase is Phase.ENDED for element in elements) else []
        self.at(self.now + self.rules.keep_finished, lambda: self._leave(over))

    def _leave(self, jobs: Iterable[BatchJob]) -> None:
        for job in jobs:
            self._register.leave(job)
            if not self.rules.history:
                self._register.forget(job)
