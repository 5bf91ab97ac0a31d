"""The next stop of a machine, as a site's status command announces it, and what must not be submitted before it.

``Wisteria/BDEC-01 scheduled stop time: 2024/09/27(Fri) 09:00:00 (Remain: 31days 11:40:58)``
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

__all__ = ["Maintenance", "read_stop"]

_UNKNOWN_WALLTIME = 3600.0
_REMAIN = re.compile(
    r"Remain:\s*(?:(?P<days>\d+)\s*days?,?)?\s*(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?", re.IGNORECASE
)
_SOME = 1.0  # a banner whose Remain is rounded must not look like a new one each time
_FORMS = ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")


def read_stop(pattern: str, text: str, now: float) -> float | None:
    """Time of the stop that ``text`` announces, in seconds since the epoch; None if it announces none.

    Parameters
    ----------
    pattern : str
        Regular expression with the groups ``time`` (a date) and, unless that has it, ``clock``.
    now : float
        When the text was printed. What remains until the stop counts for more than the date, which is
        in the site's own time zone; without it the date is taken to be in ours.
    """
    match = re.search(pattern, text)
    if match is None:
        return None
    line = text[match.start() : (text.find("\n", match.end()) + 1 or len(text) + 1) - 1]
    remain = _REMAIN.search(line)
    if remain is not None:
        parts = {name: int(value or 0) for name, value in remain.groupdict().items()}
        return now + ((parts["days"] * 24 + parts["hours"]) * 60 + parts["minutes"]) * 60 + parts["seconds"]
    named = match.groupdict()
    said = " ".join(filter(None, (named.get("time"), named.get("clock"))))
    for form in _FORMS:
        try:
            return time.mktime(time.strptime(said, form))
        except (ValueError, OverflowError):
            continue
    return None


class Maintenance:
    """Remembers the announced stop, and says which jobs it holds back.

    Parameters
    ----------
    pattern : str or None
        ``status_banner`` of the site; None where it announces nothing.
    """

    def __init__(self, pattern: str | None, now: Callable[[], float]) -> None:
        self._pattern = pattern
        self._now = now
        self.stop: float | None = None

    def read(self, text: str) -> None:
        """Take note of what an output of the scheduler's commands announces."""
        if self._pattern is not None:
            found = read_stop(self._pattern, text, self._now())
            if found is not None and (self.stop is None or abs(found - self.stop) > _SOME):
                self.stop = found

    def holds(self, walltime: float | None) -> float | None:
        """Time of the stop that a job of ``walltime`` seconds, started now, would run into; None if it may go."""
        if self.stop is None or self.stop <= self._now():
            return None
        # Without a walltime nobody knows; the last hour is a compromise between idling and losing work.
        length = _UNKNOWN_WALLTIME if walltime is None else walltime
        return self.stop if self._now() + length > self.stop else None

    @staticmethod
    def words(stop: float) -> str:
        """The time of a stop for people, in this machine's time zone."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(stop))
