"""A whole site in memory, behind a transport: files, a login node and compute nodes, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.agent import RESULT_LIMIT
from orchestrator.clock import Clock
from orchestrator.simulate.batchjob import Rules
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.computenodes import SimulatedNodes
from orchestrator.simulate.faults import FaultPlan
from orchestrator.simulate.files import Files
from orchestrator.simulate.flavours import Flavour, flavour
from orchestrator.simulate.loginnode import LoginNode
from orchestrator.simulate.programs import Execution, Program
from orchestrator.transports.base import Command, Completion

__all__ = ["SimulatedTransport"]


class SimulatedTransport:
    """Commands and files of an emulated site.

    The site lives as long as this object does: closing the transport (as a driver does that ends)
    leaves its jobs running, and the next driver may be given the same object. It is to be made in the
    loop whose time it shares.

    Parameters
    ----------
    clock : Clock
        Whose time is the cluster's time.
    program : callable
        What jobs run: ``program(order, params, attempt) -> Run``.
    kind : str or Flavour
        Which cluster (`orchestrator.simulate.flavours.FLAVOURS`).
    rules : Rules, optional
        In place of the flavour's own.
    faults : FaultPlan, optional
        What goes wrong with the commands.
    files_lag : float
        Seconds until the login node sees what a job has written.
    latency : float
        Seconds that each command, look and transfer takes.
    skew : float
        Seconds by which the site's clocks are ahead of the driver's.
    keep_folders : int, optional
        Folders of how many ended attempts are kept once their report was seen; None keeps all.

    Attributes
    ----------
    cluster, files, login, flavour :
        The parts, for tests to look at and to break.
    """

    name = "simulated"

    def __init__(
        self,
        clock: Clock,
        program: Program,
        *,
        kind: str | Flavour = "slurm",
        rules: Rules | None = None,
        faults: FaultPlan | None = None,
        files_lag: float = 0.0,
        latency: float = 0.0,
        skew: float = 0.0,
        keep_folders: int | None = None,
    ) -> None:
        self.flavour = flavour(kind) if isinstance(kind, str) else kind
        self.files = Files()
        dialect = self.flavour.dialect()
        self._clock = clock
        self._skew = skew
        self._nodes = SimulatedNodes(self.files, program, dialect, lag=files_lag)
        self.cluster = Cluster(rules or self.flavour.make_rules(), self._nodes, now=self._now())
        self._nodes.cluster = self.cluster
        self.login = LoginNode(self.cluster, dialect, faults, open_file=self._open)
        self._latency = latency
        self.keep_folders = keep_folders
        self._seen: deque[str] = deque()

    @property
    def executions(self) -> list[Execution]:
        """Every execution of a program, as the outside world counts them."""
        return self._nodes.executions

    async def run(self, command: Command) -> Completion:
        """Run one of the scheduler's commands; there are no others."""
        await self._travel()
        argv = command.argv
        if not self.login.knows(argv):
            return Completion(argv=argv, returncode=127, stderr=f"{argv[0]}: No such file or directory")
        reply = self.login.run(argv, now=self._now(), stdin=command.stdin)
        if reply.returncode is None or reply.delay >= command.timeout:
            await self._clock.sleep(command.timeout)
            words = f"no answer within {command.timeout:g} s; killed"
            return Completion(argv=argv, returncode=None, stdout=reply.stdout, stderr=words)
        if reply.delay:
            await self._clock.sleep(reply.delay)
        return Completion(argv=argv, returncode=reply.returncode, stdout=reply.stdout, stderr=reply.stderr)

    async def put(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> None:  # noqa: ARG002 - no modes here
        """Write ``files``."""
        await self._travel()
        self._advance()
        for path, content in files.items():
            self.files.write(path, content)
            folder, _, name = path.rpartition("/")
            if name == "cancel":
                self._nodes.told_to_cancel(folder)

    async def get(self, path: str, *, limit: int | None = None) -> bytes | None:
        """Content of ``path`` as the login node sees it."""
        await self._travel()
        self._advance()
        content = self.files.read(path, self.cluster.now)
        return content if content is None or limit is None else content[-limit:] if limit else b""

    async def look(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What `orchestrator.agent.look` would say on the login node."""
        query = request.get("query")
        answer = None
        if query is not None:
            command = Command(argv=tuple(query["argv"]), stdin=query["stdin"], timeout=query["timeout"])
            done = await self.run(command)
            answer = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        else:
            await self._travel()
        self._advance()
        attempts = {folder: self._look_at(folder, wanted) for folder, wanted in request["attempts"].items()}
        return {"now": self.cluster.now, "host": "login", "attempts": attempts, "query": answer}

    async def revoke(self, directory: str, tag: str) -> bool:
        """Take the claim for the driver, unless an agent has it."""
        await self._travel()
        self._advance()
        claim = {"tag": tag, "by": "driver", "job_id": "", "restarts": 0, "host": "login", "time": self.cluster.now}
        path = f"{directory}/claim"
        if self.files.create(path, _dump(claim)):
            return True
        return bool(json.loads(self.files.read(path) or b"{}").get("by") == "driver")

    async def remove(self, paths: Sequence[str]) -> None:
        """Remove files and whole folders."""
        await self._travel()
        self._advance()
        for path in paths:
            self.files.remove(path)

    async def close(self) -> None:
        """Do nothing: the site goes on without its drivers."""

    def _advance(self) -> None:
        self.cluster.advance(self._now())

    def _now(self) -> float:
        """The site's time."""
        return self._clock.now() + self._skew

    async def _travel(self) -> None:
        # Also without latency others get their turn, as they would in any real transport.
        await (self._clock.sleep(self._latency) if self._latency else asyncio.sleep(0))

    def _open(self, path: str) -> str | None:
        content = self.files.read(path)
        return None if content is None else content.decode()

    def _look_at(self, folder: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        now, offset, inside = self.cluster.now, int(wanted.get("progress") or 0), self.files.inside
        report = _parsed(inside(folder, "exit.json", now))
        result: Any = None
        if wanted.get("result") or report is not None:
            content = inside(folder, "result.json", now)
            if content is not None and len(content) > RESULT_LIMIT:
                result = {"too_long": len(content)}
            elif content is not None:
                result = content.decode("utf-8", "replace")
        progress = inside(folder, "progress.jsonl", now) or b""
        whole = progress[offset : progress.rfind(b"\n") + 1]
        if report is not None:
            self._let_go(folder)
        return {
            "exists": self.files.is_folder(folder),
            **({"claim": _parsed(inside(folder, "claim", now))} if wanted.get("claim", True) else {}),
            "exit": report,
            "result": result,
            "progress": whole.decode("utf-8", "replace"),
            "offset": offset + len(whole),
        }

    def _let_go(self, folder: str) -> None:
        if self.keep_folders is None:
            return
        self._seen.append(folder)
        while len(self._seen) > self.keep_folders:
            self.files.remove(self._seen.popleft())


@functools.lru_cache(maxsize=8192)
def _parsed(content: bytes | None) -> dict[str, Any] | None:
    """A JSON object, parsed once however often it is looked at."""
    return None if content is None else dict(json.loads(content))


def _dump(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data) + "\n").encode()
