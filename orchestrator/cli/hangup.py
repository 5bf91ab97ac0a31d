"""A driver outlives its terminal: then it has its say in ``driver.log``."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestrator.cli.live import Lines, make_display
from orchestrator.cli.output import console, message, state
from orchestrator.errors import SurveyError
from orchestrator.store.atomic import make_directory

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.live import Display
    from orchestrator.cli.tally import Tally

__all__ = ["Lasting", "open_log"]

_STREAMS = (0, 1, 2)
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Lasting:
    """A display that goes on in a log file when nobody is there to see it any more.

    Parameters
    ----------
    log : Path
        Where it goes on.
    """

    def __init__(self, tally: Tally, *, log: Path) -> None:
        self._tally = tally
        self._log = log
        self._gone = False
        self._shown: Display = make_display(console(), tally, verbosity=state().verbosity, on_broken=self._mend)

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def show(self, event: Mapping[str, Any], *, arm: str = "") -> None:
        """Take note of one event."""
        self._shown.show(event, arm=arm)

    def hang_up(self) -> None:
        """The terminal is gone, or soon will be: go on in the log."""
        if self._gone:
            return
        streams = [stream for stream in _STREAMS if not _is_file(stream)]
        # What the old display does to tidy a screen up is for nobody.
        _lead(streams, os.open(os.devnull, os.O_RDWR))
        self._shown.__exit__(None, None, None)
        self._shown = Lines(self._move(streams), self._tally, verbosity=state().verbosity, on_broken=self._mend)
        self._shown.__enter__()

    def _mend(self) -> Console:
        """A console in place of one that cannot be written: its reader has ended, or its terminal is gone."""
        return self._move([stream for stream in _STREAMS if _is_broken(stream)])

    def _move(self, streams: Iterable[int]) -> Console:
        self._gone = True
        try:
            log = open_log(self._log)
        except (OSError, SurveyError):  # the study matters more than what is said of it
            log = os.open(os.devnull, os.O_RDWR)
        _lead(streams, log)
        message(f"nobody is there to be told: process {os.getpid()} goes on in {self._log}")
        return console()


def open_log(path: Path) -> int:
    """Open a log to be appended to, private, and no symbolic link; the descriptor."""
    make_directory(path.parent)
    return os.open(path, _FLAGS, 0o600)


def _lead(streams: Iterable[int], target: int) -> None:
    """Let ``streams`` lead to ``target``, which is closed."""
    for stream in streams:
        os.dup2(target, stream)
    os.close(target)


def _is_file(stream: int) -> bool:
    """Whether a stream leads to a file, or to nowhere by somebody's wish: it stays as it is."""
    try:
        there = os.fstat(stream)
    except OSError:
        return False
    return stat.S_ISREG(there.st_mode) or os.path.samestat(there, os.stat(os.devnull))


def _is_broken(stream: int) -> bool:
    poll = select.poll()
    poll.register(stream, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))
