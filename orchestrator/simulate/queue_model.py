"""Which queued job starts, and where: first come, first served, with jobs that cannot delay the first let past.

Also how long other users make a job wait, for clusters on which nobody else is emulated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from orchestrator.simulate.batchjob import BatchJob, Node, Wish

__all__ = ["Room", "choose", "lognormal_wait"]

_DEPTH = 100  # jobs behind the first that are tried, as schedulers bound it too (Slurm: bf_max_job_test)


class Room:
    """What is free on the nodes.

    Nodes of equal free room share a bucket, so that a look costs as much as there are kinds of nodes
    and not as there are nodes.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._gpus: dict[str, list[int]] = {node.name: list(range(node.gpus)) for node in nodes}
        self._rest: dict[str, tuple[int, int]] = {node.name: (node.cpus, node.memory) for node in nodes}
        self._jobs: dict[str, int] = dict.fromkeys(self.nodes, 0)
        self._buckets: dict[tuple[int, int, int], dict[str, None]] = {}
        for node in nodes:
            self._file(node.name)

    def copy(self) -> Room:
        """An independent copy."""
        twin = Room(())
        twin.nodes = self.nodes
        twin._gpus = {name: list(free) for name, free in self._gpus.items()}
        twin._rest = dict(self._rest)
        twin._jobs = dict(self._jobs)
        twin._buckets = {key: dict(names) for key, names in self._buckets.items()}
        return twin

    def able(self, wish: Wish, among: tuple[str, ...] | None, *, up: bool = False) -> int:
        """How many nodes (of those that are ``up``) have what the wish needs of each, were they free."""
        return sum(
            1
            for node in self.nodes.values()
            if (among is None or node.name in among)
            and (node.up or not up)
            and node.gpus >= wish.gpus
            and (wish.whole or (node.cpus >= wish.cpus and node.memory >= wish.memory))
        )

    def find(self, wish: Wish, among: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Nodes for the wish, the fullest first; None if there are none now."""
        found: list[str] = []
        for key in sorted(self._buckets):
            if key[0] < wish.gpus or (not wish.whole and (key[1] < wish.cpus or key[2] < wish.memory)):
                continue
            for name in self._buckets[key]:
                if (among is not None and name not in among) or (wish.whole and self._jobs[name]):
                    continue
                found.append(name)
                if len(found) == wish.nodes:
                    return tuple(found)
        return None

    def take(self, wish: Wish, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Take what the wish needs on each node; returns the GPUs by node."""
        taken = {}
        for name in names:
            self._unfile(name)
            node, (cpus, memory) = self.nodes[name], self._rest[name]
            count = node.gpus if wish.whole else wish.gpus
            taken[name] = tuple(self._gpus[name][:count])
            self._gpus[name] = self._gpus[name][count:]
            used = (node.cpus, node.memory) if wish.whole else (wish.cpus, wish.memory)
            self._rest[name] = (cpus - used[0], memory - used[1])
            self._jobs[name] += 1
            self._file(name)
        return taken

    def give(self, wish: Wish, taken: dict[str, tuple[int, ...]]) -> None:
        """Give back what `take` took."""
        for name, gpus in taken.items():
            self._unfile(name)
            node, (cpus, memory) = self.nodes[name], self._rest[name]
            self._gpus[name] = sorted((*self._gpus[name], *gpus))
            used = (node.cpus, node.memory) if wish.whole else (wish.cpus, wish.memory)
            self._rest[name] = (cpus + used[0], memory + used[1])
            self._jobs[name] -= 1
            self._file(name)

    def refile(self, name: str) -> None:
        """Note that a node has gone down or come up."""
        self._unfile(name)
        self._file(name)

    def _key(self, name: str) -> tuple[int, int, int]:
        return len(self._gpus[name]), *self._rest[name]

    def _file(self, name: str) -> None:
        if self.nodes[name].up:
            self._buckets.setdefault(self._key(name), {})[name] = None

    def _unfile(self, name: str) -> None:
        bucket = self._buckets.get(self._key(name))
        if bucket is not None:
            bucket.pop(name, None)
            if not bucket:
                del self._buckets[self._key(name)]


def choose(
    pending: Iterable[BatchJob],
    room: Room,
    now: float,
    *,
    among: tuple[str, ...] | None,
    running: Callable[[], Sequence[tuple[float, Wish, dict[str, tuple[int, ...]]]]],
) -> tuple[BatchJob, tuple[str, ...]] | None:
    """Find the next job to start, and its nodes.

    Parameters
    ----------
    among : tuple of str or None
        Nodes that the jobs may use, None for all.
    running : callable
        Latest end, wish and share of each running job; asked only when a job could go past another.

    Notes
    -----
    EASY backfilling (Lifka, "The ANL/IBM SP scheduling system", 1995) in its cautious form: a job
    goes past the first one only if it ends before that one can start at the latest.
    """
    first: BatchJob | None = None
    shadow: float | None = None
    for tried, job in enumerate(pending):
        if tried > _DEPTH:
            return None
        names = room.find(job.wish, among)
        if first is None:
            if names is not None:
                return job, names
            first = job
            continue
        if names is None or job.limit is None:
            continue
        if shadow is None:
            shadow = _earliest(first, room, now, among, running())
        if now + job.limit <= shadow:
            return job, names
    return None


def _earliest(
    job: BatchJob,
    room: Room,
    now: float,
    among: tuple[str, ...] | None,
    running: Sequence[tuple[float, Wish, dict[str, tuple[int, ...]]]],
) -> float:
    later = room.copy()
    for end, wish, taken in sorted(running, key=lambda item: item[0]):
        later.give(wish, taken)
        if later.find(job.wish, among) is not None:
            return max(end, now)
    return float("inf")


def lognormal_wait(median: float, sigma: float, seed: int) -> Callable[[BatchJob], float]:
    """Queue waits as measured on busy machines: most short, some very long.

    The same job number gets the same wait, whatever is submitted before it.
    """

    def wait(job: BatchJob) -> float:
        rng = random.Random(f"{seed}-{job.number}-{job.index}")
        return float(median * rng.lognormvariate(0.0, sigma))

    return wait
