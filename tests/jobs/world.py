"""A site that outlives drivers, the folder of a study, and what happens on the site while a driver runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from scripted import ScriptedScheduler, ScriptedTransport

from orchestrator.config.site import Site, load_site
from orchestrator.jobs.session import Session
from orchestrator.model import Attempt, Job, Outcome
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.store.ledger import Ledger

JOB = Job(key="00000", command=("true",), params={"lr": 0.5}, metrics=("m",))


class World:
    """A site that outlives drivers, and the folder of a study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.transport = ScriptedTransport()
        self.scheduler = ScriptedScheduler()
        self.events: list[dict[str, Any]] = []
        self.site: Site = load_site("local")

    def session(self, **options: Any) -> Session:
        return Session(
            self.root,
            name="s",
            site=self.site,
            transport=self.transport,
            scheduler=self.scheduler,
            clock=VirtualClock(),
            on_event=lambda event: self.events.append(dict(event)),
            **options,
        )

    def directory(self, number: int = 1, key: str = "00000") -> str:
        return f"{self.root}/trials/{key}/attempt-{number}"

    def ends(self, number: int = 1, key: str = "00000", **report: Any) -> None:
        """The attempt's program ends well."""
        self.transport.end(self.directory(number, key), self.attempts(key)[number - 1].tag, {"m": 1.0}, **report)

    def fails(self, number: int = 1, **report: Any) -> None:
        self.transport.end(self.directory(number), self.attempts()[number - 1].tag, None, **{"exit_code": 3, **report})

    def attempts(self, key: str = "00000") -> tuple[Attempt, ...]:
        return Ledger(self.root).attempts(key)

    def told(self, event: str) -> list[str]:
        """Words of the events of that name."""
        return [str(each.get("message", "")) for each in self.events if each["event"] == event]

    async def run(self, job: Job = JOB, *, acts: dict[float, Callable[[], Any]] | None = None) -> Outcome:
        async def act(at: float, what: Callable[[], Any]) -> None:
            await asyncio.sleep(at)
            what()

        script = [asyncio.create_task(act(at, what)) for at, what in (acts or {}).items()]
        try:
            async with self.session() as session:
                return await asyncio.wait_for(session.run(job), 86400.0)
        finally:
            for task in script:
                task.cancel()

    async def killed_after(self, seconds: float, job: Job = JOB) -> None:
        """A driver runs the job and is gone after ``seconds``."""
        async with self.session() as session:
            task = asyncio.create_task(session.run(job))
            await asyncio.sleep(seconds)
            task.cancel()


def world(root: Path, body: Callable[[World], Awaitable[None]]) -> None:
    async def play() -> None:
        await body(World(root))

    run_virtual(play())
