"""Terminal sessions that were recorded on real schedulers (`tests/schedulers/samples`), to hold the emulated ones against.

A session is ``$ command`` lines, each followed by what it printed; lines of stderr begin with ``[stderr] ``, and
``[rc=N]`` (or ``rc=N elapsed=...``) ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SAMPLES", "Said", "sessions"]

SAMPLES = Path(__file__).parents[1] / "schedulers" / "samples"


@dataclass
class Said:
    """One command with all that it printed, both streams together as a terminal shows them."""

    command: str
    lines: list[str] = field(default_factory=list)
    returncode: int = 0


def sessions(name: str) -> list[Said]:
    found: list[Said] = []
    speaks = False
    for line in (SAMPLES / name).read_text().splitlines():
        if line.startswith("$ "):
            found.append(Said(line[2:]))
            speaks = True
        elif match := re.match(r"\[?rc=(\d+)\b", line):
            found[-1].returncode = int(match[1])
            speaks = False
        elif speaks:
            found[-1].lines.append(line.removeprefix("[stderr] "))
    return found
