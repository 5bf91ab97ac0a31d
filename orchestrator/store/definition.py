"""What may not change as long as a study lives: its definition, kept in its database.

A changed range under an old name is accepted by Optuna without a word, and then two searches are one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.study import StudyDirection

from orchestrator.errors import ResumeMismatch

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from orchestrator.model import Json

__all__ = ["find_or_make"]

_DEFINITION = "survey"  # the study's user attribute
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
