"""Every error that the orchestrator raises on purpose, and the exit code of each.

::

    SurveyError                     1   something unexpected that we can still explain
     +-- UsageError                 2   a command line, a file or a value that must be changed
     |    +-- ConfigError           2   study.yaml, site.yaml, comparison.yaml: file, line, key
     |    +-- ResultError           2   a result file that cannot be used (per attempt, never fatal)
     +-- TooManyFailures            3   the study ended, but more trials failed than it allows
     |    +-- NothingFeasible       3   it ended, and no trial keeps to its constraints
     +-- Paused                     4   the study waits for a person: log in, free space, mend a queue name
     +-- HeldByAnother              5   another driver holds the study's lease
     +-- ResumeMismatch             6   the study on disk is not the study in study.yaml

130 and 143 are not errors: they say that SIGINT or SIGTERM ended the driver in an orderly way.
"""

from __future__ import annotations

__all__ = [
    "EXIT_DONE",
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "ConfigError",
    "HeldByAnother",
    "NothingFeasible",
    "Paused",
    "ResultError",
    "ResumeMismatch",
    "SurveyError",
    "TooManyFailures",
    "UsageError",
]

EXIT_DONE = 0
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class SurveyError(Exception):
    """An error with words for the user: what happened, where, and what to do about it.

    Parameters
    ----------
    message : str
        What happened, to which study, trial, file or job.
    hint : str, optional
        What to do next. Printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(SurveyError):
    """The command line, or something it names, must be changed before this can work."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is wrong; the message names the file, the line and the key."""


class ResultError(UsageError):
    """A trial's result cannot be used: missing, truncated, of another attempt, not a finite number."""


class TooManyFailures(SurveyError):
    """The study came to its end, but more of its trials failed than it allows."""

    exit_code = 3


class NothingFeasible(TooManyFailures):
    """The study came to its end, and none of its complete trials keeps to its constraints."""


class Paused(SurveyError):
    """Nothing is lost and nothing more is submitted until a person has acted."""

    exit_code = 4


class HeldByAnother(SurveyError):
    """Another driver holds the lease of this study."""

    exit_code = 5


class ResumeMismatch(SurveyError):
    """The study on disk differs from study.yaml in something that may not change."""

    exit_code = 6
