"""What a site bears of one user: submits and queries a minute, jobs in the queue, over all drivers together.

The drivers of a user on a machine share one small file below the user's state folder, under a lock.
Where there is no such folder, or locks do not work on it, each driver keeps the limits by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orchestrator import resources
from orchestrator.clock import Clock
from orchestrator.config.site import Limits, Site
from orchestrator.store.lease import EXPIRY, Holder

__all__ = ["Throttle", "shared_folder"]

Kind: TypeAlias = Literal["submits", "queries"]

_MINUTE = 60.0
_TRIES = 20
_TRY_PAUSE = 0.05
_ROOM_PAUSE = 5.0


def shared_folder(site: Site) -> Path:
    """Where the drivers of this user share what they take of ``site``."""
    import platformdirs

    return Path(platformdirs.user_state_dir(resources.APP)) / site.name


class Throttle:
    """Gives leave for submits and queries; time is the clock's.

    Parameters
    ----------
    folder : Path or None
        What drivers share; None keeps the limits for this driver alone.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        folder: Path | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._folder = folder
        self._me = Holder.myself(0, clock.now())
        self._own: dict[str, Any] = {}
        self._jobs: dict[str, set[str]] = {}

    async def submit(self, jobs: Mapping[str, Iterable[str]]) -> tuple[float, str]:
        """Take leave to submit ``jobs`` (several: an array) with one command, and count them as in the queue.

        Parameters
        ----------
        jobs : mapping
            Tags of the attempts that each job carries.

        Returns
        -------
        pause, why
            0 if the submit may go now; else nothing was taken, and it may be asked for again after ``pause`` seconds.
        """
        return await self._take("submits", jobs=jobs)

    async def query(self, commands: int = 1) -> float:
        """Take leave for a query: 0 if it may go now, else the seconds until one may be asked for again."""
        pause, _ = await self._take("queries", count=commands)
        return pause

    async def spent(self, commands: int = 1) -> None:
        """Count queries that cannot wait: those that must follow upon an answer, such as of history."""

        def act(state: dict[str, Any]) -> None:
            state.setdefault("queries", []).extend([self._clock.now()] * commands)

        await self._transaction(act)

    def enter(self, job: str, tag: str) -> None:
        """Count ``job``, which carries the attempt ``tag``, as in the queue."""
        self._jobs.setdefault(job, set()).add(tag)

    def leave(self, job: str, tag: str) -> None:
        """The attempt ``tag`` has ended; a job without attempts is in the queue no more."""
        tags = self._jobs.get(job, set())
        tags.discard(tag)
        if not tags:
            self._jobs.pop(job, None)

    @property
    def queued(self) -> int:
        """Jobs of this driver in the queue, running ones included."""
        return len(self._jobs)

    async def close(self) -> None:
        """Take this driver's jobs out of the count: nobody watches them until its study is run again."""
        if self._limits.queued is not None:
            self._jobs.clear()
            await self._transaction(lambda _state: None)

    async def _take(
        self, kind: Kind, *, count: int = 1, jobs: Mapping[str, Iterable[str]] | None = None
    ) -> tuple[float, str]:
        """Seconds to wait and why; 0 if it was taken."""
        answer = (0.0, "")

        def act(state: dict[str, Any]) -> None:
            nonlocal answer
            now = self._clock.now()
            rate = self._limits.submits_per_minute if kind == "submits" else self._limits.queries_per_minute
            # Fewer than one a minute: one in so many minutes.
            most = max(1, int(rate))
            span = _MINUTE * most / rate
            # A time from the future is another clock's.
            times = [time for time in state.get(kind, ()) if now - span < time <= now]
            state[kind] = times
            room = self._limits.queued
            if jobs and room is not None:
                others = sum(int(entry["jobs"]) for entry in state["drivers"].values())
                if others + self.queued + len(jobs) > max(room, len(jobs)):
                    there = others + self.queued
                    words = f"{there} job{'s' * (there != 1)} of yours {'is' if there == 1 else 'are'} in the queue"
                    answer = (_ROOM_PAUSE, f"{words}, the site takes {room}")
                    return
            if len(times) >= most:
                wait = times[-most] + span - now
                answer = (max(wait, 0.1), f"the site takes {rate:g} {kind} a minute; the next in {wait:.0f} s")
                return
            times.extend([now] * count)
            for job, tags in (jobs or {}).items():
                for tag in tags:
                    self.enter(job, tag)

        await self._transaction(act)
        return answer

    async def _transaction(self, act: Callable[[dict[str, Any]], None]) -> None:
        for _ in range(_TRIES if self._folder is not None else 0):
            done = await self._clock.blocking(lambda: self._shared(act))
            if done is None:
                self._folder = None  # no such folder, or no locks: from now on each driver for itself
                break
            if done:
                return
            await self._clock.sleep(_TRY_PAUSE)
        self._own.setdefault("drivers", {})
        act(self._own)

    def _shared(self, act: Callable[[dict[str, Any]], None]) -> bool | None:
        """Do ``act`` on the shared state: True if it was done, False if it is locked, None if nothing is shared."""
        assert self._folder is not None
        try:
            with _locked(self._folder) as state:
                if state is None:
                    return False
                now = self._clock.now()
                drivers = {nonce: entry for nonce, entry in _entries(state) if _counts(entry, now)}
                drivers.pop(self._me.nonce, None)
                state["drivers"] = drivers
                act(state)
                if self._jobs:
                    self._me = dataclasses.replace(self._me, renewed=now)
                    drivers[self._me.nonce] = {"jobs": self.queued, "holder": dataclasses.asdict(self._me)}
        except OSError:
            return None
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[dict[str, Any] | None]:
    """The state in ``folder``, written back at the end; None if another has the lock."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The file itself is the lock, and is written in place: it is worth nothing after a power cut anyway.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(folder / "limits.json", flags, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            state = json.loads(file.read() or b"{}")
        except ValueError:
            state = {}
        state = state if isinstance(state, dict) else {}
        yield state
        file.seek(0)
        file.write(json.dumps(state).encode())
        file.truncate()


def _entries(state: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    drivers = state.get("drivers")
    return list(drivers.items()) if isinstance(drivers, dict) else []


def _counts(entry: Any, now: float) -> bool:
    """Whether a driver's count still holds: it is not proved dead, or on another machine has spoken lately."""
    holder = Holder.from_json(entry.get("holder")) if isinstance(entry, dict) else None
    if holder is None or holder.is_dead or not isinstance(entry.get("jobs"), int):
        return False
    return holder.is_here or now - holder.renewed < EXPIRY
