"""A database server that is away is waited for, aloud: the jobs in flight need it not, and their results are on disk."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from orchestrator.store.trouble import ServerAway

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patience"]

T = TypeVar("T")

_LONGEST = 6 * 3600.0  # a night's maintenance; after that a person has to look
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0
_SAY_AGAIN = 600.0


class Patience:
    """Repeats steps that a server's absence cut off, until they are done.

    Parameters
    ----------
    say : callable, optional
        Told, from the thread that waits, in words that the server is away (and True), and later that it is
        back (and False). Default: a log record, which Python prints on stderr.
    longest : float
        Seconds after which the wait ends with the server's own error.
    """

    def __init__(self, say: Callable[[str, bool], object] | None = None, *, longest: float = _LONGEST) -> None:
        self._say = say or _log
        self._longest = longest
        self._ended = threading.Event()

    def end(self) -> None:
        """Have whoever waits stop doing so, now and in future; may be called from any thread."""
        self._ended.set()

    def outlast(self, step: Callable[[], T]) -> T:
        """Do ``step``; where the server is away, again once it may be back.

        Parameters
        ----------
        step : callable
            May be repeated after a failure of which it is not known whether it came before or after the
            server had done its part.

        Raises
        ------
        ServerAway
            After ``longest`` seconds, or `end`.
        """
        since: float | None = None
        said, pause = 0.0, 0.0
        while True:
            try:
                result = step()
            except ServerAway as away:
                now = time.monotonic()
                since = now if since is None else since
                if now - since > self._longest:
                    raise
                # A connection that was cut is made again at once, without a word.
                if pause and (not said or now - said > _SAY_AGAIN):
                    said = now
                    self._say(f"{away.message}; waiting for it: jobs run on, nothing is lost", True)
                if self._ended.wait(pause):
                    raise
                pause = min(max(2 * pause, _FIRST_PAUSE), _LAST_PAUSE)
            else:
                if said and since is not None:
                    self._say(f"the database server is back after {time.monotonic() - since:.0f} s", False)
                return result


def _log(words: str, _away: bool) -> None:
    logging.getLogger(__name__).warning(words)
