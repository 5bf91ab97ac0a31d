"""Command lines and script directives of batch schedulers, read as their own programs read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.simulate.batchjob import Refusal, Refused

__all__ = ["Options", "array", "directives", "duration", "megabytes", "read", "takes", "whole"]


@dataclass(slots=True)
class Options:
    """Options with all their values in order, and the words that are none."""

    values: dict[str, list[str]] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)

    def last(self, *names: str) -> str | None:
        """The last value of the first of ``names`` that was given."""
        for name in names:
            if self.values.get(name):
                return self.values[name][-1]
        return None

    def every(self, *names: str) -> list[str]:
        """All values of ``names``."""
        return [value for name in names for value in self.values.get(name, ())]

    def has(self, *names: str) -> bool:
        """Whether one of ``names`` was given."""
        return any(name in self.values for name in names)

    def under(self, other: Options) -> Options:
        """These options below ``other``'s (a script's below the command line's), option by option."""
        return Options({**self.values, **other.values}, [*other.operands])


def takes(count: int, names: str) -> dict[str, int]:
    """Options, in one text, that take ``count`` words each: a part of what `read` is to know."""
    return dict.fromkeys(names.split(), count)


def read(words: Sequence[str], known: Mapping[str, int]) -> Options:
    """Read a command line up to the first word that is no option.

    Parameters
    ----------
    known : mapping
        Option (``-N``, ``--time``) to the number of words that it takes; one of two letters
        (``-N``) may have its value attached, one with two dashes behind ``=``.

    Raises
    ------
    Refusal
        For an unknown option, or one whose value is missing.
    """
    options = Options()
    rest = list(words)
    while rest:
        word = rest[0]
        if not word.startswith("-") or word == "-":
            break
        rest.pop(0)
        if word == "--":
            break
        name, equals, attached = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in known:
            count = known[name]
            given = [attached] if equals else []
            while len(given) < count:
                if not rest:
                    raise Refusal(Refused.OPTION, name)
                given.append(rest.pop(0))
            options.values.setdefault(name, []).append(" ".join(given))
        elif known.get(word[:2]) == 1 and len(word) > 2:
            options.values.setdefault(word[:2], []).append(word[2:])
        else:
            raise Refusal(Refused.OPTION, word)
    options.operands = rest
    return options


def directives(text: str, prefix: str, *, anywhere: bool = False) -> list[str]:
    """Words of the script's directives; only those before the first command, unless ``anywhere``."""
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith(prefix + " "):
            words += shlex.split(line[len(prefix) :])
        elif line.strip() and not line.startswith("#") and not anywhere:
            break
    return words


def duration(text: str, *, minutes: bool = False) -> float:
    """Seconds of ``[d-]h:m:s``, ``m:s`` or a number of seconds (of minutes, as Slurm reads one)."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not re.fullmatch(r"\d*", days) or not all(re.fullmatch(r"\d+", part) for part in parts) or len(parts) > 3:
        raise Refusal(Refused.VALUE, text)
    numbers = [int(part) for part in parts]
    if days:
        numbers += [0] * (3 - len(numbers))
        return int(days) * 86400.0 + numbers[0] * 3600.0 + numbers[1] * 60.0 + numbers[2]
    if len(numbers) == 1:
        return numbers[0] * (60.0 if minutes else 1.0)
    total = 0.0
    for number in numbers:
        total = total * 60.0 + number
    return total


def megabytes(text: str) -> int:
    """MiB of ``64G``, ``64gb``, ``500M``; a bare number is MiB."""
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower())
    if match is None:
        raise Refusal(Refused.VALUE, text)
    factor = {"k": 1 / 1024, "": 1.0, "m": 1.0, "g": 1024.0, "t": 1024.0**2}[match[2]]
    return int(int(match[1]) * factor)


def whole(text: str) -> int:
    """A number without a sign."""
    if not re.fullmatch(r"\d+", text):
        raise Refusal(Refused.VALUE, text)
    return int(text)


def array(text: str) -> tuple[int, ...]:
    """Indices of ``0-9``, ``1-15:2``, ``3,5-7``; what follows ``%`` is passed over."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise Refusal(Refused.VALUE, text)
        found += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return tuple(found)
