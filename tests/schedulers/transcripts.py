"""Recorded terminal sessions, read again as completions.

A session is ``$ command`` lines, each followed by what it printed; lines of stderr begin with ``[stderr] ``, and
``[rc=N]`` (or ``rc=N elapsed=...``) ends it.
"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.transports.base import Completion

__all__ = ["SAMPLES", "answers", "session"]

SAMPLES = Path(__file__).parent / "samples"


def session(name: str) -> list[tuple[str, Completion]]:
    """All commands of a session with their completions, in order."""
    found = []
    command = ""
    out: list[str] = []
    err: list[str] = []
    for line in (SAMPLES / name).read_text().splitlines():
        if line.startswith("$ "):
            command, out, err = line[2:], [], []
        elif match := re.fullmatch(r"\[?rc=(\d+)\b.*", line):
            found.append((command, _completion(command, int(match[1]), out, err)))
        elif line.startswith("[stderr] "):
            err.append(line.removeprefix("[stderr] "))
        else:
            out.append(line)
    return found


def answers(name: str, command: str) -> Completion:
    """The completion of the one command of a session that is ``command``, or begins with it."""
    whole = session(name)
    matching = [completion for words, completion in whole if words == command]
    matching = matching or [completion for words, completion in whole if words.startswith(command)]
    assert len(matching) == 1, f"{len(matching)} commands of {name} begin with {command!r}"
    return matching[0]


def _completion(command: str, returncode: int, out: list[str], err: list[str]) -> Completion:
    return Completion(
        argv=tuple(command.split()),
        returncode=returncode,
        stdout="".join(f"{line}\n" for line in out),
        stderr="".join(f"{line}\n" for line in err),
    )
