"""The one error that a workload raises on purpose: a line for the user, a hint, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["WorkloadError", "did_you_mean"]


class WorkloadError(Exception):
    """Something that the user must change: a file, a folder, a parameter, an installation.

    Parameters
    ----------
    message : str
        What is wrong, and in which file.
    hint : str, optional
        What to do about it. Printed on a line of its own.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint that offers the closest of ``options``, or all of them where none is close."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1)
    return f"did you mean {close[0]!r}?" if close else "there is: " + ", ".join(options)
