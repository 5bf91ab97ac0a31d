"""Whether a database is the study's: of its definition, which may not change, and as old as its ledger.

A changed range under an old name is accepted by Optuna without a word, and then two searches are one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.study import StudyDirection

from orchestrator.errors import Paused, ResumeMismatch
from orchestrator.store.atomic import make_directory, read_in_words, write_json
from orchestrator.store.ledger import Ledger
from orchestrator.store.serverlock import DRIVER

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import BaseStorage

    from orchestrator.model import Json

__all__ = ["belong_to", "find_or_make", "refuse_older"]

_DEFINITION = "survey"  # the study's user attribute
_FOLDER = "folder"  # another: the mark of the folder that has the study's attempts
_MARK = "database.json"  # the mark, in that folder
_VERSION = 1


def find_or_make(
    real: BaseStorage, name: str, directions: list[str], definition: Mapping[str, Json], place: str, *, alone: bool
) -> int:
    """Find the id of the study ``name`` with this definition; make it if it is not there.

    Parameters
    ----------
    place : str
        The database, for messages.
    alone : bool
        Whether the database is a file of this one study.

    Raises
    ------
    ResumeMismatch
        The database holds another study, or this one with another definition.
    """
    wanted = {"version": _VERSION, "directions": directions, "definition": definition}
    wanted = json.loads(json.dumps(wanted, sort_keys=True))
    sealed = {**wanted, "hash": hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()}
    studies = {study.study_name: study._study_id for study in real.get_all_studies()}  # noqa: SLF001 - no public name
    if name not in studies:
        if alone and studies:
            raise ResumeMismatch(
                f"{place} holds the study {', '.join(map(repr, sorted(studies)))}, not {name!r}",
                hint="give the study another folder, or its old name",
            )
        study_id = real.create_new_study([StudyDirection[word.upper()] for word in directions], name)
        real.set_study_user_attr(study_id, _DEFINITION, sealed)
        return study_id
    study_id = studies[name]
    kept = real.get_study_user_attrs(study_id).get(_DEFINITION)
    if kept is None:
        # A stop between the two writes above; a study with trials is somebody else's.
        if real.get_n_trials(study_id):
            raise ResumeMismatch(
                f"{place} holds a study {name!r} that this program did not make", hint="choose another name or database"
            )
        real.set_study_user_attr(study_id, _DEFINITION, sealed)
    elif kept.get("hash") != sealed["hash"]:
        raise ResumeMismatch(
            f"study {name!r} in {place} is not the study that was asked for: {_difference(kept, sealed)}",
            hint="put the old values back to go on with it, or give the changed study another name",
        )
    return study_id


def belong_to(root: Path, real: BaseStorage, study_id: int, name: str, place: str) -> None:
    """Bind a study on a server to the folder ``root``, which may move: it alone knows of jobs in flight.

    Raises
    ------
    ResumeMismatch
        The study has trials, and its attempts are in another folder: they would be run again.
    """
    known = read_in_words(root / _MARK)
    mark = known.get("mark") if isinstance(known, dict) else None
    if mark is None:
        mark = secrets.token_hex(8)
        write_json(make_directory(root) / _MARK, {"mark": mark})
    attributes = real.get_study_user_attrs(study_id)
    if attributes.get(_FOLDER) == mark:
        return
    if attributes.get(_FOLDER) is not None and real.get_n_trials(study_id):
        raise ResumeMismatch(
            f"study {name!r} in {place} belongs to another folder than {root}; it was last driven by"
            f" {attributes.get(DRIVER, 'another driver')}",
            hint="run it from its own folder (--root), or give the new study another name",
        )
    real.set_study_user_attr(study_id, _FOLDER, mark)


def refuse_older(root: Path, trials: int, place: str) -> None:
    """Refuse a database that lacks trials of which the ledger in ``root`` has attempts.

    A trial is in the database before it is in the ledger, so this one is new, or an old copy: going on
    would give the numbers of the lost trials to others, and their attempts' results with them.

    Raises
    ------
    Paused
        Naming the trials.
    """
    numbers = [int(head) for head in {key.partition("/")[0] for key in Ledger(root).keys()} if head.isdecimal()]  # noqa: SIM118
    lost = sorted(number for number in numbers if number >= trials)
    if lost:
        shown = ", ".join(map(str, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise Paused(
            f"{place} is older than the attempt files beside it: it lacks the trials {shown}",
            hint="put the right file back, or have it made again: `survey doctor STUDY --rebuild`",
        )


def _difference(kept: Any, wanted: Any, path: str = "") -> str:
    """Where two definitions part, in words: the first few places."""
    if isinstance(kept, Mapping) and isinstance(wanted, Mapping):
        parts = []
        for key in dict.fromkeys([*kept, *wanted]):
            if (path, key) == ("", "hash"):
                continue
            if kept.get(key) != wanted.get(key):
                inner = f"{path}.{key}" if path else str(key)
                parts.append(_difference(kept.get(key), wanted.get(key), inner))
        shown = [part for part in parts if part][:5]
        return "; ".join(shown)
    return f"{path.removeprefix('definition.')} was {json.dumps(kept)}, is now {json.dumps(wanted)}"
