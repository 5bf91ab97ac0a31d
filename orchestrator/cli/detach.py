"""``survey run --detach``: the driver as a process of its own, with its output in ``driver.log``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.hangup import open_log
from orchestrator.cli.output import state
from orchestrator.store.atomic import told_in_words

if TYPE_CHECKING:
    from orchestrator.search.layout import StudyFolder

__all__ = ["Launch", "launch"]

# What a driver tells of once its folder, database, site and first jobs are as they should be.
_UNDER_WAY = {"submitted", "found", "waiting", "held", "told"}
_PATIENCE = 30.0
_LOOK = 0.1
_LAST_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What became of a driver in its first seconds.

    Attributes
    ----------
    code : int or None
        Exit code, if it has ended already.
    said : str
        The end of what it has written into the log by then.
    under_way : bool
        Whether its first jobs are with the scheduler, or wait for something that it has told.
    """

    pid: int
    host: str
    code: int | None
    said: str
    under_way: bool


def launch(words: Sequence[str], folder: StudyFolder, *, patience: float = _PATIENCE) -> Launch:
    """Start ``survey`` with ``words`` in a session of its own, and see its first seconds through.

    Parameters
    ----------
    words : sequence of str
        The verb and what follows.
    patience : float
        Seconds after which a driver that neither ended nor got anything under way is left to itself.
    """
    command = [sys.executable, "-m", "orchestrator.cli.app", *_shared_options(), *words]
    with told_in_words(folder.log):
        log = open_log(folder.log)
    try:
        before = os.fstat(log).st_size
        seen = folder.events.stat().st_size if folder.events.exists() else 0
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
    finally:
        os.close(log)
    give_up = time.monotonic() + patience
    under_way = False
    while process.poll() is None and not under_way and time.monotonic() < give_up:
        time.sleep(_LOOK)
        under_way = any(event in _UNDER_WAY for event in _events(folder.events, seen))
    code = process.poll()
    process.returncode = process.returncode or 0  # it is left to itself, and nobody's child to wait for
    return Launch(
        pid=process.pid,
        host=socket.gethostname(),
        code=code if code is None or code >= 0 else 128 - code,
        said=_tail(folder.log, before),
        under_way=under_way,
    )


def _shared_options() -> list[str]:
    """The options before the verb, as this process was given them; a log gets no colour."""
    options = state()
    words = ["--no-color"]
    if options.verbosity < 0:
        words.append("-q")
    words += ["-v"] * max(0, options.verbosity)
    if options.debug:
        words.append("--debug")
    return words


def _events(path: Path, start: int) -> Iterator[str]:
    """Names of the events that were written after the first ``start`` bytes."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield str(json.loads(line)["event"])
        except (ValueError, KeyError, TypeError):  # the line that is being written
            continue


def _tail(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])
