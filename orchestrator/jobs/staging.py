"""What goes to the site: the library once per version, and each attempt's folder.

```
<work root>/lib/<hash>/agent.py localq.py orchestrator/trial.py
<work root>/trials/<key>/attempt-<n>/job.json params.json job.sh
```
The ``orchestrator`` folder in the library has no ``__init__.py`` on purpose: as a namespace
package it steps back wherever the real package is installed.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.model import Attempt, Job, Json
from orchestrator.transports.base import Command, Completion, Transport
from orchestrator.transports.remote import RemoteTransport

__all__ = [
    "Library",
    "attempt_directory",
    "attempt_files",
    "library_version",
    "order",
    "run_with",
    "stage",
    "stage_library",
]

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Where the staged library lies on the site."""

    root: str

    @property
    def agent(self) -> str:
        """Path of the agent."""
        return posixpath.join(self.root, "agent.py")

    @property
    def localq(self) -> str:
        """Path of the local machine's queue program."""
        return posixpath.join(self.root, "localq.py")


def attempt_directory(work_root: str, key: str, number: int) -> str:
    """Folder of one attempt on the site."""
    return posixpath.join(work_root, "trials", key, f"attempt-{number}")


async def stage_library(transport: Transport, work_root: str) -> Library:
    """Put agent, queue program and trial module into a folder named by their content."""
    files = _library_files()
    library = Library(root=posixpath.join(work_root, "lib", library_version()))
    last = posixpath.join(library.root, "complete")
    if await transport.get(last) is None:
        await transport.put({posixpath.join(library.root, name): content for name, content in files.items()})
        await transport.put({last: b"\n"})
    return library


def library_version() -> str:
    """Name of the staged library's folder, which is its content's."""
    files = _library_files()
    return hashlib.sha256(b"\0".join(files[name] for name in sorted(files))).hexdigest()[:12]


def _library_files() -> dict[str, bytes]:
    return {
        "agent.py": (_PACKAGE / "agent.py").read_bytes(),
        "localq.py": (_PACKAGE / "localq.py").read_bytes(),
        "orchestrator/trial.py": (_PACKAGE / "trial.py").read_bytes(),
    }


def order(
    job: Job,
    attempt: Attempt,
    *,
    study: str,
    library: Library,
    directory: str,
    command: tuple[str, ...] | str,
    environment: Mapping[str, str],
    walltime: int | None,
    margin: float,
    kill_grace: float,
    launched: bool = False,
) -> dict[str, Json]:
    """The agent's order (``job.json``); ``launched`` if a launcher takes the command to several nodes."""
    return {
        "version": 1,
        "tag": attempt.tag,
        "key": job.key,
        "number": job.number,
        "attempt": attempt.number,
        "run": job.run,
        "runs": job.runs,
        "study": study,
        "command": command if isinstance(command, str) else list(command),
        "launched": launched,
        "workdir": job.workdir,
        "environment": dict(environment),
        "seed": job.seed,
        "gpus": job.resources.gpus,
        "walltime": walltime,
        "margin": margin,
        "kill_grace": kill_grace,
        "warn_signal": job.warn_signal or None,
        "metrics": list(job.metrics),
        "read": [
            {name: value for name in ("metric", "stdout", "json", "csv") if (value := getattr(rule, name)) is not None}
            for rule in job.read
        ],
        "lib": posixpath.relpath(library.root, directory),
        "checkpoint": "../checkpoint",
    }


def attempt_files(
    directory: str, *, job_order: Mapping[str, Any], params: Mapping[str, Any], script: str | None
) -> dict[str, bytes]:
    """One attempt's folder, path to content; ``script`` is None where another attempt of the same job carries it."""
    files = {
        posixpath.join(directory, "params.json"): _json(params),
        posixpath.join(directory, "job.json"): _json(job_order),
    }
    if script is not None:
        files[posixpath.join(directory, "job.sh")] = script.encode()
    return files


async def stage(transport: Transport, files: Mapping[str, bytes], *, executable: str) -> Mapping[str, bytes]:
    """Write ``files``; returns those that `run_with` is to take along: of a far site all of them."""
    if isinstance(transport, RemoteTransport):
        return files
    await transport.put(files, executable=(executable,))
    return {}


async def run_with(
    transport: Transport, files: Mapping[str, bytes], command: Command, *, executable: str
) -> Completion:
    """Run ``command`` after writing the ``files`` that `stage` has left, in one request."""
    if files and isinstance(transport, RemoteTransport):
        return await transport.put_and_run(files, command, executable=(executable,))
    return await transport.run(command)


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
