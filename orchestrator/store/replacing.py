"""A study's database that is made as a whole: beside its place, and put there at the end; what was there is kept aside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.store.atomic import make_directory, sync_directory, told_in_words
from orchestrator.store.database import close_storage, describe, explained, local_file, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage

__all__ = ["Fill", "put_in_place"]


class Fill(Protocol):
    """Writes a study into an empty storage, under the name ``called``; ``alone`` says that it is a file of its own."""

    def __call__(self, storage: BaseStorage, called: str, place: str, *, alone: bool) -> None:
        """Write it."""


def put_in_place(url: str | None, root: Path, name: str, mark: str, fill: Fill) -> str:
    """Make the database of study ``name`` and put it in its place; a stop at any point loses nothing.

    Parameters
    ----------
    url, root :
        As for `orchestrator.store.database.open_storage`.
    mark : str
        Goes into the name of what was there before.

    Returns
    -------
    str
        Where that is kept now; empty if there was nothing.

    Raises
    ------
    Paused, UsageError
        The database cannot be written.
    """
    place = describe(url, root)
    with explained(place):
        path = local_file(url, root)
        if path is None:
            return _on_a_server(url, root, name, mark, lambda to, called: fill(to, called, place, alone=False))
        journal = url is not None and url.startswith("journal:")
        make_directory(path.parent)
        with told_in_words(path):
            return _in_a_file(path, root, mark, lambda to: fill(to, name, place, alone=True), journal=journal)


def _in_a_file(path: Path, root: Path, mark: str, fill: Callable[[BaseStorage], None], *, journal: bool) -> str:
    fresh = path.with_name(f".{path.name}.rebuilt")
    for left in path.parent.glob(f"{fresh.name}*"):
        left.unlink()
    storage = open_storage(f"{'journal:' if journal else 'sqlite:///'}{fresh}", root)
    try:
        fill(storage)
    finally:
        close_storage(storage)
    aside = path.with_name(f"{path.name}.damaged-{mark}")
    kept = ""
    # What belongs to the old file goes first: a rollback journal beside a new file would be played into it.
    for suffix in ("-journal", "-wal", "-shm", ".lock", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
            kept = str(aside)
            sync_directory(path.parent)
    os.replace(fresh, path)
    sync_directory(path.parent)
    return kept


def _on_a_server(url: str | None, root: Path, name: str, mark: str, fill: Callable[[BaseStorage, str], None]) -> str:
    from orchestrator.store.server import rename_studies

    storage = open_storage(url, root, study=name)
    try:
        fresh, aside = f"{name}.rebuilt", f"{name}.damaged-{mark}"
        for study in storage.get_all_studies():
            if study.study_name == fresh:  # of a rebuild that was cut off
                storage.delete_study(study._study_id)  # noqa: SLF001 - no public name
        fill(storage, fresh)
        renamed = rename_studies(storage, {name: aside, fresh: name})
        return f"study {aside!r} in the same database" if name in renamed else ""
    finally:
        close_storage(storage)
