"""Drivers that die without a word at a named step: kill -9, in process and in virtual time.

What a dead driver would still do on its way out (a write, a command, the release of its lease) does not happen;
the cluster goes on. On disk it looks as after a kill: the lease is not given back, and its holder is no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest import mock

from fault_world import FaultWorld

from orchestrator.search.chronicle import Chronicle
from orchestrator.store import lease as leases
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger
from orchestrator.store.studydb import StudyDatabase

Moment = Literal["before", "after"]

STEPS = ("ask", "intent", "script write", "submit", "id store", "poll", "read result", "tell", "lock refresh")
_LIVES = itertools.count(1)


class Death(BaseException):
    """The driver is no more."""


class _Doom:
    """When the driver is to die, and whether it has."""

    def __init__(self, step: str, moment: Moment, occurrence: int) -> None:
        self.step, self.moment, self.occurrence = step, moment, occurrence
        self.passed = 0
        self.come = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self.come.is_set()

    def strike(self) -> None:
        self.come.set()
        raise Death

    def check(self) -> None:
        if self.dead:
            raise Death

    def at(self, steps: tuple[str, ...], moment: Moment) -> None:
        """The driver comes to a step, or has done it."""
        self.check()
        if self.step in steps and moment == self.moment:
            self.passed += 1
            if self.passed == self.occurrence:
                self.strike()

    def around(self, *steps: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` as one of the steps."""

        def called(*arguments: Any, **named: Any) -> Any:
            self.at(steps, "before")
            result = call(*arguments, **named)
            self.at(steps, "after")
            return result

        return called

    def around_async(self, name: Callable[[Any], tuple[str, ...]], call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, whose step depends on its first argument."""

        async def called(*arguments: Any, **named: Any) -> Any:
            steps = name(arguments[0])
            self.at(steps, "before")
            result = await call(*arguments, **named)
            if steps == ("poll",) and any(seen.get("exit") for seen in (result or {}).get("attempts", {}).values()):
                self.at(("read result",), "before")
                self.at(("read result",), "after")
            self.at(steps, "after")
            return result

        return called


@contextlib.contextmanager
def another_process() -> Iterator[None]:
    """Drivers that begin here are of a process that is no more afterwards, whatever their lease says then."""
    with mock.patch.object(leases, "_process_start", return_value=f"life {next(_LIVES)}"):
        yield


@contextlib.contextmanager
def _mortal(world: FaultWorld, doom: _Doom) -> Iterator[None]:
    transport, scheduler = world.transport, world.transport.login.dialect

    def step_of(command: Any) -> tuple[str, ...]:
        words = [word.rpartition("/")[2] for word in command.argv]
        roles = {role for word in words for role in scheduler.programs.get(word, ())}
        return ("submit",) if "submit" in roles and "-H" not in words else ()

    patches: list[Any] = [
        mock.patch.object(transport, "run", doom.around_async(step_of, transport.run)),
        mock.patch.object(transport, "put", doom.around_async(lambda _: ("script write",), transport.put)),
        mock.patch.object(transport, "look", doom.around_async(lambda _: ("poll",), transport.look)),
        mock.patch.object(transport, "revoke", doom.around_async(lambda _: ("revoke",), transport.revoke)),
        mock.patch.object(Ledger, "plan", doom.around("intent", call=Ledger.plan)),
        mock.patch.object(Ledger, "save", doom.around("id store", call=Ledger.save)),
        mock.patch.object(StudyDatabase, "ask", doom.around("ask", call=StudyDatabase.ask)),
        mock.patch.object(StudyDatabase, "tell", doom.around("tell", call=StudyDatabase.tell)),
        mock.patch.object(StudyDatabase, "note", doom.around(call=StudyDatabase.note)),
        mock.patch.object(StudyDatabase, "report", doom.around(call=StudyDatabase.report)),
        mock.patch.object(Lease, "renew", doom.around("lock refresh", call=Lease.renew)),
        mock.patch.object(Lease, "release", _released(doom, Lease.release)),
        mock.patch.object(Chronicle, "write", doom.around(call=Chronicle.write)),
        mock.patch.object(os, "replace", doom.around(call=os.replace)),
        mock.patch.object(os, "link", doom.around(call=os.link)),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(another_process())
        for patch in patches:
            stack.enter_context(patch)
        yield


def _released(doom: _Doom, release: Callable[[Lease], None]) -> Callable[[Lease], None]:
    def released(lease: Lease) -> None:
        if not doom.dead:
            release(lease)
        elif lease._lock is not None:
            os.close(lease._lock)  # all that the kernel does for a process that was killed
            lease._lock = None

    return released


def _unless_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody is left to ask what became of the tasks of a dead driver."""
    if not isinstance(context.get("exception"), Death):
        loop.default_exception_handler(context)


async def killed(
    world: FaultWorld, step: str = "", moment: Moment = "before", occurrence: int = 1, *, seconds: float | None = None
) -> bool:
    """Run a driver that dies at a step, or after some seconds; False if it came to the study's end before.

    Parameters
    ----------
    step : str
        One of `STEPS`, or ``revoke``.
    """
    doom = _Doom(step, moment, occurrence)
    asyncio.get_running_loop().set_exception_handler(_unless_dead)
    with _mortal(world, doom):
        task = asyncio.create_task(world.driver().run())
        death = asyncio.create_task(doom.come.wait())
        await asyncio.wait({task, death}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if seconds is not None and not task.done():
            doom.come.set()
        for each in (task, death):
            each.cancel()
        await asyncio.gather(task, death, return_exceptions=True)
    return doom.dead
