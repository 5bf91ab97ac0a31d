"""What a study no longer needs on its work root, and its removal.

Only folders and files of known names below the study's own work root are ever named, and only where a
walk that follows no link has found them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.errors import SurveyError
from orchestrator.jobs.fetch import far_site, is_far
from orchestrator.jobs.staging import library_version
from orchestrator.search.layout import StudyFolder, trial_number
from orchestrator.store.ledger import Ledger
from orchestrator.studies.reader import read_study, trial_directory
from orchestrator.transports.local import LocalTransport

if TYPE_CHECKING:
    from orchestrator.model import Attempt
    from orchestrator.transports.remote import RemoteTransport

__all__ = ["KINDS", "Spare", "clean", "find_spare"]

KINDS = ("checkpoints", "artefacts", "output", "libraries")
_ENDED = {"complete", "pruned", "failed"}
_OUTPUT = ("stdout", "stderr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A folder or a file that can go.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    site : str
        The site whose work root it is on.
    trial : int or None
        Whose it is.
    size : int
        Bytes of the files in it.
    """

    path: str
    kind: str
    site: str
    trial: int | None
    size: int


def find_spare(root: Path, *, logs: bool = False) -> tuple[Spare, ...]:
    """List what the study in the folder ``root`` no longer needs; nothing is removed.

    Checkpoints and artefacts of trials that have ended and are not among the best (`keep: best`), and
    old versions of the staged library once nothing is in flight.

    Parameters
    ----------
    logs : bool
        Whether what complete trials printed can go, too.

    Raises
    ------
    SurveyError
        The record cannot be read, or a site cannot be reached.
    """
    return asyncio.run(_on_all_sites(root, logs=logs, remove=False))


def clean(root: Path, *, logs: bool = False) -> tuple[Spare, ...]:
    """Remove what `find_spare` lists, and return that; the caller holds the study's lease.

    Raises
    ------
    SurveyError
        Something could not be removed.
    """
    return asyncio.run(_on_all_sites(root, logs=logs, remove=True))


async def _on_all_sites(root: Path, *, logs: bool, remove: bool) -> tuple[Spare, ...]:
    ledger = Ledger(root)
    by_site: dict[Path, list[Attempt]] = {}
    for key in ledger.keys():  # noqa: SIM118 - a ledger is no dict
        for attempt in ledger.attempts(key):
            by_site.setdefault(StudyFolder(root).site_of(attempt.site), []).append(attempt)
    wanted = _Wanted.read(root, logs=logs)
    found: list[Spare] = []
    for file, attempts in by_site.items():
        site = load_site(file)
        async with contextlib.AsyncExitStack() as stack:
            far: RemoteTransport | None = None
            user = home = None
            if is_far(site):
                far, there = await stack.enter_async_context(far_site(site))
                user, home = there.user, there.home
            directory = trial_directory(root, attempts[0], user=user, home=home)
            top = str(directory)[: -len(posixpath.join("/trials", attempts[0].key, directory.name))]
            files = await _tree(far, top)
            spare = [
                Spare(path=f"{top}/{name}", kind=kind, site=site.name, trial=trial, size=size)
                for name, kind, trial in wanted.candidates(attempts, files)
                if (size := _size(files, name)) is not None
            ]
            if remove:
                await (far or LocalTransport()).remove([each.path for each in spare])
                left = await _tree(far, top)
                stuck = [each.path for each in spare if _size(left, each.path[len(top) + 1 :]) is not None]
                if stuck:
                    raise SurveyError(
                        f"{len(stuck)} of {len(spare)} could not be removed, the first one: {stuck[0]}",
                        hint="see whose they are and whether the file system can be written; the rest is gone",
                    )
        found += spare
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What of the study is over, and what is to stay."""

    ended: frozenset[int]
    complete: frozenset[int]
    best: frozenset[int]
    logs: bool

    @classmethod
    def read(cls, root: Path, *, logs: bool) -> _Wanted:
        record = read_study(root)
        keep = Study.load(StudyFolder(root).study).keep.best
        return cls(
            ended=frozenset(trial.number for trial in record.trials if trial.state in _ENDED),
            complete=frozenset(trial.number for trial in record.complete),
            best=frozenset(trial.number for trial in record.kept(keep)),
            logs=logs,
        )

    def candidates(
        self, attempts: Sequence[Attempt], files: Mapping[str, int]
    ) -> Iterator[tuple[str, str, int | None]]:
        """Name below the work root, kind and trial of what can go, be it there or not."""
        flying = {attempt.key for attempt in attempts if attempt.outcome is None}
        for key in sorted({attempt.key for attempt in attempts} - flying):
            number = trial_number(key)
            if number in self.ended - self.best:
                yield f"trials/{key}/checkpoint", "checkpoints", number
        for attempt in attempts:
            number, folder = trial_number(attempt.key), f"trials/{attempt.key}/attempt-{attempt.number}"
            if attempt.key in flying or number not in self.ended:
                continue
            if number not in self.best:
                yield f"{folder}/artifacts", "artefacts", number
            if self.logs and number in self.complete:
                yield from ((f"{folder}/{name}", "output", number) for name in _OUTPUT)
        if not flying:
            versions = {name.split("/")[1] for name in files if name.startswith("lib/") and name.count("/") > 1}
            yield from ((f"lib/{version}", "libraries", None) for version in sorted(versions - {library_version()}))


def _size(files: Mapping[str, int], name: str) -> int | None:
    """Bytes of the files that are ``name`` or below it; None where there is none."""
    sizes = [size for file, size in files.items() if file == name or file.startswith(f"{name}/")]
    return sum(sizes) if sizes else None


async def _tree(far: RemoteTransport | None, top: str) -> Mapping[str, int]:
    """Regular files below ``top`` with their sizes, no link followed."""
    return _walk(top) if far is None else await far.tree(top) or {}


def _walk(top: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # it has just gone
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    found[os.path.relpath(path, top)] = status.st_size
    return found
