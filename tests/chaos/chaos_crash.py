"""Crash points: every durable step of a driver, before, within and after; a crash there ends all that it does.

The product has no hooks for this. What writes durably is wrapped from outside, and what is written says
which step it is: ``ledger: job id``, ``database: end``, ``submit``... A `Gate` belongs to one driver. It counts
the steps, and at the chosen one it closes: that step and every later one raises `Killed`, so that nothing of the
driver's reaches a disk or the site any more, whatever its tasks still do. In a real process the
gate ends the process by SIGKILL instead.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from orchestrator.jobs import session
from orchestrator.model import Attempt
from orchestrator.search import chronicle, freeze
from orchestrator.store import atomic, database, lease, ledger, studydb
from orchestrator.transports.base import Command

__all__ = ["WHENS", "Gate", "Killed", "Point", "closing", "instrument"]

WHENS = ("before", "within", "after")
_SUBMITS = {"sbatch", "qsub", "pjsub"}
_CANCELS = {"scancel", "qdel", "pjdel"}


class Killed(BaseException):
    """The driver is no more."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where a driver ends: the ``occurrence``-th time that it comes to a step."""

    step: str
    when: str
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.step!r} no. {self.occurrence}"


class Gate:
    """Counts the durable steps of one driver, and closes for good at one of them.

    Parameters
    ----------
    die_at : Point, optional
        Where it closes; without one only `close` closes it.
    end : callable, optional
        Called when it closes: ends a real process.
    """

    def __init__(self, die_at: Point | None = None, *, end: Callable[[], None] = lambda: None) -> None:
        self.die_at = die_at
        self.closed = False
        self.reached: Counter[tuple[str, str]] = Counter()
        self.storages: list[Any] = []
        self.left_behind: list[tuple[Path, bytes]] = []
        self._end = end
        self._noticed: list[Callable[[], None]] = []

    def on_close(self, act: Callable[[], None]) -> None:
        """Have ``act`` called when the gate closes."""
        self._noticed.append(act)

    def close(self) -> None:
        """End the driver here."""
        if not self.closed:
            self.closed = True
            self._end()
            for act in self._noticed:
                act()

    def is_due(self, step: str, when: str) -> bool:
        """Whether the next `reach` of this step closes the gate."""
        return self.die_at == Point(step, when, self.reached[step, when] + 1)

    def reach(self, step: str, when: str) -> None:
        """Pass, or end here.

        Raises
        ------
        Killed
            If this is where the driver ends, or it has ended before.
        """
        if self.closed:
            raise Killed
        due = self.is_due(step, when)
        self.reached[step, when] += 1
        if due:
            self.close()
            raise Killed(step)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A durable step; what is written inside it may call `within`."""
        self.reach(name, "before")
        token = _STEP.set(name)
        try:
            yield
        finally:
            _STEP.reset(token)
        self.reach(name, "after")


_GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)
_STEP: ContextVar[str] = ContextVar("step", default="")


@contextlib.contextmanager
def closing(gate: Gate) -> Iterator[None]:
    """What runs inside, and every task that begins inside, passes through ``gate``."""
    token = _GATE.set(gate)
    try:
        yield
    finally:
        _GATE.reset(token)


def instrument(patch: pytest.MonkeyPatch, transports: type) -> None:
    """Wrap everything by which a driver writes durably, and the methods of a class of transports."""

    def around(owner: Any, name: str, label: Callable[..., str]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **keys: Any) -> Any:
            gate = _GATE.get()
            if gate is None:
                return original(*arguments, **keys)
            with gate.step(label(*arguments, **keys)):
                return original(*arguments, **keys)

        patch.setattr(owner, name, wrapped)

    around(lease, "create_exclusive", lambda _path, _data: "lease: token")
    around(lease.Lease, "_publish", _lease_step)
    around(freeze, "_write_with_origin", lambda path, _text, _words: f"freeze: {path.name}")
    around(freeze, "write_json", lambda path, _value: f"freeze: {path.name}")
    around(session, "write_json", lambda path, _value: f"session: {path.name}")
    around(ledger.Ledger, "plan", lambda *_, **__: "ledger: plan")
    around(ledger.Ledger, "save", lambda _self, attempt: _ledger_step(attempt))
    around(chronicle, "publish", lambda _root, _record: "snapshot")
    around(studydb, "backup", lambda _storage, _root: "database: backup")
    patch.setattr(atomic, "_write_synced", _named_later(atomic._write_synced))
    patch.setattr(chronicle.Chronicle, "write", _torn_line(chronicle.Chronicle.write))
    patch.setattr(studydb, "open_storage", _gated_storage(database.open_storage))
    for name, label in _TRANSPORT.items():
        patch.setattr(transports, name, _over_there(getattr(transports, name), label))


def _lease_step(_lease: lease.Lease, holder: lease.Holder) -> str:
    if holder.released is not None:
        return "lease: given back"
    return "lease: renewed" if holder.renewed > holder.acquired else "lease: shown"


def _ledger_step(attempt: Attempt) -> str:
    if attempt.outcome is not None:
        return "ledger: outcome"
    if attempt.suspect_since is not None:
        return "ledger: suspect"
    if attempt.notes:
        return "ledger: note"
    if attempt.job_id is not None or attempt.submitted is not None:
        return "ledger: job id"
    return "ledger: bundle" if attempt.job_name or attempt.job_index is not None else "ledger: planned"


def _named_later(original: Callable[[Path, bytes], None]) -> Callable[[Path, bytes], None]:
    """A file that is there under its temporary name only: what is left of a driver that ends then."""

    def write(path: Path, data: bytes) -> None:
        original(path, data)
        gate, step = _GATE.get(), _STEP.get()
        if gate is None or not path.name.endswith(".tmp"):
            return
        if step and gate.is_due(step, "within"):
            gate.left_behind.append((path, data))
        if step or gate.closed:
            gate.reach(step, "within")

    return write


def _torn_line(original: Callable[..., None]) -> Callable[..., None]:
    def write(self: chronicle.Chronicle, event: Mapping[str, Any]) -> None:
        gate = _GATE.get()
        if gate is None:
            original(self, event)
            return
        gate.reach("events: line", "before")
        if gate.is_due("events: line", "within"):
            self._folder.events.touch(0o600)
            with self._folder.events.open("a", encoding="utf-8") as file:
                file.write('{"time": 1800000000.0, "ev')
        gate.reach("events: line", "within")
        original(self, event)
        gate.reach("events: line", "after")

    return write


_STORAGE = {
    "create_new_study": "database: study",
    "set_study_user_attr": "database: definition",
    "create_new_trial": "database: trial",
    "set_trial_user_attr": "database: note",
    "set_trial_intermediate_value": "database: report",
    "finish_trial": "database: end",
    "set_trial_state_values": "database: end",
}


def _gated_storage(original: Callable[..., Any]) -> Callable[..., Any]:
    """The study database, whose every transaction can be cut off before its commit."""

    def open_storage(*arguments: Any, **keys: Any) -> Any:
        gate = _GATE.get()
        if gate is None:
            return original(*arguments, **keys)
        with gate.step("database: open"):
            storage = original(*arguments, **keys)
            gate.storages.append(storage)
        for name, label in _STORAGE.items():
            if hasattr(storage, name):
                setattr(storage, name, _transaction(getattr(storage, name), label))
        if (engine := getattr(storage, "engine", None)) is not None:
            sqlalchemy.event.listen(engine, "commit", _uncommitted)
        else:
            storage._backend._append = _torn_record(storage._backend)
        return storage

    return open_storage


def _transaction(original: Callable[..., Any], label: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def write(*arguments: Any, **keys: Any) -> Any:
        gate = _GATE.get()
        if gate is None:
            return original(*arguments, **keys)
        with gate.step(label):
            return original(*arguments, **keys)

    return write


def _uncommitted(_connection: object) -> None:
    gate, step = _GATE.get(), _STEP.get()
    if gate is not None and step:
        gate.reach(step, "within")


def _torn_record(backend: Any) -> Callable[[bytes], None]:
    original = backend._append

    def append(data: bytes) -> None:
        gate, step = _GATE.get(), _STEP.get()
        if gate is not None and step:
            if gate.is_due(step, "within"):
                original(data[: len(data) // 2])
            gate.reach(step, "within")
        original(data)

    return append


def _staging_step(files: Mapping[str, bytes], **_keys: Any) -> str:
    names = {path.rpartition("/")[2] for path in files}
    if "complete" in names:
        return "site: library complete"
    if "agent.py" in names:
        return "site: library"
    return "site: attempt" if "job.json" in names else f"site: {min(names)}"


def _command_step(command: Command) -> str:
    words = [word for word in command.argv if "=" not in word]
    program = next(iter(words[1:] if words[0].endswith("env") else words))
    program = program.rpartition("/")[2]
    if program in _SUBMITS or {"submit"} & set(command.argv):
        return "submit"
    return "cancel" if program in _CANCELS or {"cancel"} & set(command.argv) else "query"


_TRANSPORT: dict[str, Callable[..., str]] = {
    "run": _command_step,
    "put": _staging_step,
    "look": lambda _request: "site: look",
    "revoke": lambda _directory, _tag: "site: claim taken",
    "remove": lambda _paths: "site: removed",
}


def _over_there(original: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
    """What is done on the site, where nothing of it is ever done by halves."""

    @functools.wraps(original)
    async def act(self: Any, *arguments: Any, **keys: Any) -> Any:
        gate = _GATE.get()
        if gate is None:
            return await original(self, *arguments, **keys)
        name = label(*arguments, **keys)
        gate.reach(name, "before")
        answer = await original(self, *arguments, **keys)
        gate.reach(name, "after")
        return answer

    return act
