"""The ledger: one file per attempt, written before the attempt is submitted and after each change.

``ledger/<key>/attempt-<n>.json`` below the driver's root. A file that cannot be read stops the study
with its name: an attempt that is overlooked could be submitted twice.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import SurveyError
from orchestrator.model import Attempt, Outcome, Verdict
from orchestrator.store.atomic import create_exclusive, encode, make_directory, read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.model import Json

__all__ = ["Ledger", "new_tag"]

_VERSION = 1
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_FILE = re.compile(r"attempt-([1-9][0-9]*)\.json")
_TAG_LENGTH = 15  # the shortest limit of a batch job's name: PBS before 2020
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter is taken for a digit


class _Chooser(Protocol):
    def choice(self, seq: str, /) -> str: ...


class _Secrets:
    def choice(self, seq: str, /) -> str:
        return secrets.choice(seq)


def new_tag(number: int, rng: _Chooser | None = None) -> str:
    """Make a tag that is unique for ever: ``t00007-k3j9x2q8``.

    At most 15 characters, the first a letter, the others lower-case letters, digits and ``-``:
    a job name for every scheduler. Eight random characters are 40 bits.

    Parameters
    ----------
    number : int
        Number of the trial, for people.
    rng : object with ``choice``, optional
        A source of randomness (`random.Random`) where tags must be repeatable.
    """
    rng = rng or _Secrets()
    head = f"t{number % 10**8:05d}-"
    return head + "".join(rng.choice(_ALPHABET) for _ in range(_TAG_LENGTH - len(head)))


class Ledger:
    """The attempts of one study or survey.

    Parameters
    ----------
    root : Path
        The driver's folder; files go to ``root/ledger``.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "ledger"

    def plan(
        self,
        key: str,
        tag: str,
        fence: str,
        params: Mapping[str, Json],
        now: float,
        *,
        site: str = "",
        memory: int | None = None,
    ) -> Attempt:
        """Write down that the next attempt of ``key`` is about to be made, before it is.

        Raises
        ------
        SurveyError
            Another process planned the same attempt at this moment, or the ledger cannot be read.
        Paused
            No space is left.
        """
        folder = make_directory(self._path(key))
        number = 1 + max(self._numbers(key), default=0)
        attempt = Attempt(key=key, number=number, tag=tag, fence=fence, planned=now, site=site, memory=memory)
        path = folder / f"attempt-{number}.json"
        if not create_exclusive(path, _encode(attempt, params)):
            raise SurveyError(
                f"attempt {number} of {key} was planned by another process at the same moment: {path}",
                hint="two drivers work on one study; end one of them",
            )
        return attempt

    def save(self, attempt: Attempt) -> None:
        """Write a planned attempt's new state.

        Raises
        ------
        SurveyError
            The attempt was never planned, is another one's, or its file cannot be read.
        """
        path = self._path(attempt.key) / f"attempt-{attempt.number}.json"
        kept, params = self._load(path, attempt.key)
        if kept.tag != attempt.tag:
            raise SurveyError(f"{path} is of tag {kept.tag}, not of {attempt.tag}")
        write_bytes(path, _encode(attempt, params))

    def attempts(self, key: str) -> tuple[Attempt, ...]:
        """Read all attempts of ``key``, in order; empty if there is none."""
        folder = self._path(key)
        return tuple(self._load(folder / f"attempt-{number}.json", key)[0] for number in self._numbers(key))

    def latest(self, key: str) -> Attempt | None:
        """Read the last attempt of ``key``; None if there is none."""
        numbers = self._numbers(key)
        return self._load(self._path(key) / f"attempt-{numbers[-1]}.json", key)[0] if numbers else None

    def params(self, key: str) -> Mapping[str, Json]:
        """Read the parameters of the last attempt of ``key``.

        Raises
        ------
        SurveyError
            If there is none.
        """
        numbers = self._numbers(key)
        if not numbers:
            raise SurveyError(f"{self._folder} has no attempt of {key}")
        return self._load(self._path(key) / f"attempt-{numbers[-1]}.json", key)[1]

    def keys(self, head: str = "") -> tuple[str, ...]:
        """List all keys that have an attempt, sorted; with a ``head``, that key and those below it."""
        found = []
        for folder, _, names in os.walk(self._path(head) if head else self._folder, onerror=_unreadable):
            if any(_FILE.fullmatch(name) for name in names):
                found.append(os.path.relpath(folder, self._folder))
        return tuple(sorted(found))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise SurveyError(
                f"{key!r} cannot be the key of a job: letters, digits, '.', '_', '-', parts joined by '/'"
            )
        return self._folder / key

    def _numbers(self, key: str) -> list[int]:
        try:
            names = os.listdir(self._path(key))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SurveyError(f"cannot read {self._path(key)}: {error.strerror}") from error
        return sorted(int(match[1]) for match in map(_FILE.fullmatch, names) if match)

    def _load(self, path: Path, key: str) -> tuple[Attempt, Mapping[str, Json]]:
        try:
            data = read_bytes(path)
        except OSError as error:
            raise SurveyError(f"cannot read {path}: {error.strerror}") from error
        if data is None:
            raise SurveyError(f"there is no {path}: the attempt was never planned, or its file was removed")
        return _decode(data, path, key)


def _encode(attempt: Attempt, params: Mapping[str, Json]) -> bytes:
    return encode({"version": _VERSION, **dataclasses.asdict(attempt), "params": dict(params)})


def _decode(data: bytes, path: Path, key: str) -> tuple[Attempt, Mapping[str, Json]]:
    hint = "restore it from a backup, or see with the scheduler that its job is gone and move the file away"
    try:
        fields: dict[str, Any] = json.loads(data)
        version = fields.pop("version")
        if version != _VERSION:
            raise SurveyError(
                f"{path} is of version {version}, this program knows {_VERSION}", hint="update the program"
            )
        params = fields.pop("params")
        outcome = fields.pop("outcome")
        if outcome is not None:
            verdict = Verdict(outcome.pop("verdict"))
            gpus = tuple(outcome.pop("gpus"))
            outcome = Outcome(verdict=verdict, gpus=gpus, **outcome)
        attempt = Attempt(outcome=outcome, notes=tuple(fields.pop("notes")), **fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SurveyError(f"{path} cannot be read as an attempt: {type(error).__name__}: {error}", hint=hint) from error
    if attempt.key != key:
        raise SurveyError(f"{path} is of {attempt.key}, not of {key}", hint=hint)
    return attempt, params


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise SurveyError(f"cannot read {error.filename}: {error.strerror}") from error
