"""What a look at something found: lines with a level, and what to do."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.errors import EXIT_DONE, Paused, SurveyError

__all__ = ["Finding", "Level", "amount", "error", "exit_code", "of_error", "ok", "some", "warn"]


class Level(enum.StrEnum):
    """How much a finding matters."""

    OK = "OK"
    WARN = "WARN"
    """Works, or may work; better to know."""
    ERROR = "ERROR"
    """A study would not run, or its record is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line.

    Attributes
    ----------
    subject : str
        What was looked at, in a word or two.
    text : str
        What was seen.
    hint : str
        What to do about it; every finding that is not OK has one.
    """

    level: Level
    subject: str
    text: str
    hint: str = ""


def ok(subject: str, text: str) -> Finding:
    """Make a finding that asks for nothing."""
    return Finding(level=Level.OK, subject=subject, text=text)


def warn(subject: str, text: str, hint: str) -> Finding:
    """Make a finding that is better known."""
    return Finding(level=Level.WARN, subject=subject, text=text, hint=hint)


def error(subject: str, text: str, hint: str) -> Finding:
    """Make a finding that somebody has to act on."""
    return Finding(level=Level.ERROR, subject=subject, text=text, hint=hint)


def of_error(subject: str, failure: SurveyError, hint: str = "see `survey doctor --help`") -> Finding:
    """Make a finding of what another room raised; ``hint`` where it brings none."""
    return error(subject, failure.message, failure.hint or hint)


def exit_code(findings: Iterable[Finding]) -> int:
    """0, or where there is an error that of everything which waits for a person: 4."""
    return Paused.exit_code if any(finding.level is Level.ERROR for finding in findings) else EXIT_DONE


def amount(size: float) -> str:
    """Bytes for people: ``1.5 TB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000.0:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100.0 else f"{size:.1f} {unit}"
        size /= 1000.0
    return f"{size:.1f} PB"


def some(items: Sequence[str], most: int = 5) -> str:
    """List the first of many: ``a, b and 7 more``."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
