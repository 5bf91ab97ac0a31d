"""The process that keeps one emulated cluster behind the commands on PATH: ``python -m orchestrator.simulate.keeper STATE``.

It ends on request, when its state folder is gone, or when nothing was asked of it for an hour; with
it end all its jobs. Without it the commands say that their server is down.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.simulate.batchjob import Node, Partition, Rules
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.faults import Fault, FaultPlan
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.loginnode import LoginNode
from orchestrator.simulate.processes import ProcessNodes

__all__ = ["Keeper", "main"]

_TICK, _IDLE_TICK = 0.05, 0.5
_FORGOTTEN = 3600.0


class Keeper:
    """One cluster, its jobs as processes, and a socket for the commands.

    Parameters
    ----------
    state : Path
        A folder with ``cluster.json``, as `orchestrator.simulate.installed.install` writes it.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        data = json.loads((state / "cluster.json").read_text())
        dialect = flavour(data["flavour"]).dialect()
        self._nodes = ProcessNodes(state / "spool", dialect)
        self._cluster = Cluster(_rules(data["rules"]), self._nodes, now=time.time())
        self._nodes.cluster = self._cluster
        plan = FaultPlan([Fault(**fault) for fault in data["faults"]], seed=data["seed"])
        self._login = LoginNode(self._cluster, dialect, plan, open_file=_open)
        self._delay_factor = float(data["delay_factor"])
        self._end = False

    def serve(self) -> None:
        """Answer until the end."""
        os.chdir(self._state)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind("socket")
            listener.listen(128)
            (self._state / "keeper.pid").write_text(f"{os.getpid()}\n")
            last = time.monotonic()
            try:
                while not self._end and time.monotonic() - last < _FORGOTTEN and os.path.exists("cluster.json"):
                    listener.settimeout(self._pause())
                    try:
                        link, _ = listener.accept()
                    except TimeoutError:
                        link = None
                    self._nodes.reap()
                    self._cluster.advance(time.time())
                    if link is not None:
                        last = time.monotonic()
                        self._answer(link)
            finally:
                self._nodes.clear()

    def _pause(self) -> float:
        due = self._cluster.next_event
        wait = _TICK if self._nodes.busy else _IDLE_TICK
        return wait if due is None else min(wait, max(due - time.time(), 0.001))

    def _answer(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError, ValueError):
            link.settimeout(5.0)
            content = b""
            while not content.endswith(b"\n"):
                chunk = link.recv(1 << 16)
                if not chunk:
                    return
                content += chunk
            request = json.loads(content)
            reply = self._control(request) if "control" in request else self._command(request)
            link.sendall(json.dumps(reply).encode())

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = self._login.run(
            [request["name"], *request["words"]],
            now=time.time(),
            stdin=request["stdin"],
            folder=request["folder"],
            environment=request["environment"],
        )
        return {
            "returncode": reply.returncode,
            "stdout": reply.stdout,
            "stderr": reply.stderr,
            "delay": reply.delay * self._delay_factor,
        }

    def _control(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what no user can.

        ``stop``; ``show``; ``fail-node`` (with ``node`` and ``back_after``); ``requeue`` and ``preempt`` (with
        ``number``); ``crash`` (with ``unsaved``); ``reset-counter``.
        """
        match request["control"]:
            case "stop":
                self._end = True
            case "fail-node":
                self._cluster.fail_node(request["node"], request.get("back_after"))
            case "requeue" | "preempt" as verb:
                act = self._cluster.requeue if verb == "requeue" else self._cluster.preempt
                for job in self._cluster.job(request["number"]):
                    act(job)
            case "crash":
                self._cluster.crash(request["unsaved"])
            case "reset-counter":
                self._cluster.reset_counter()
        jobs = [
            {"number": job.number, "index": job.index, "name": job.wish.name, "phase": job.phase.value}
            for job in self._cluster.live()
        ]
        return {"jobs": jobs, "calls": dict(self._login.calls)}


def _rules(data: dict[str, Any]) -> Rules:
    data = dict(data)
    data["nodes"] = tuple(Node(**node) for node in data["nodes"])
    data["partitions"] = tuple(
        Partition(**{**partition, "nodes": None if partition["nodes"] is None else tuple(partition["nodes"])})
        for partition in data["partitions"]
    )
    data["groups"] = None if data["groups"] is None else tuple(data["groups"])
    return Rules(**data)


def _open(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def main(arguments: list[str]) -> int:
    """Keep the cluster whose state folder is given."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Keeper(Path(arguments[0])).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
