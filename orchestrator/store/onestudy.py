"""The study's part of a storage that holds exactly one: its name, directions and attributes, in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage

from orchestrator.errors import Paused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.study import StudyDirection

__all__ = ["OneStudyStorage"]

T = TypeVar("T")


class OneStudyStorage(BaseStorage):
    """One study of ``real``; what it knows of trials is its subclass's.

    Parameters
    ----------
    real : BaseStorage
        Where the study is kept.
    study_id : int
        The study in ``real``.
    """

    def __init__(self, real: BaseStorage, study_id: int) -> None:
        self._real = real
        self._study_id = study_id
        self._lock = threading.RLock()
        self._name = real.get_study_name_from_id(study_id)
        self._directions = list(real.get_study_directions(study_id))
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}
        self._stale = True  # whether a write has failed since the study was read

    def _reload_attributes(self) -> None:
        self._user_attrs = dict(self._real.get_study_user_attrs(self._study_id))
        self._system_attrs = dict(self._real.get_study_system_attrs(self._study_id))

    def _write(self, write: Callable[[], T]) -> T:
        stale, self._stale = self._stale, True
        try:
            result = write()
        except KeyError as error:
            raise Paused(
                f"the database has lost records of study {self._name!r} that were written to it",
                hint="was it restored or reset? `survey doctor STUDY --rebuild` makes it again from the attempt files",
            ) from error
        self._stale = stale
        return result

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Refuse: this storage holds one study, which exists."""
        del directions
        if study_name == self._name:
            raise DuplicatedStudyError(f"study {study_name!r} exists")
        raise NotImplementedError("a MirrorStorage holds exactly one study")

    def delete_study(self, study_id: int) -> None:
        """Refused."""
        raise NotImplementedError("a MirrorStorage does not delete its study")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute of the study."""
        with self._lock:
            self._check_study(study_id)
            self._write(lambda: self._real.set_study_user_attr(study_id, key, value))
            self._user_attrs = {**self._user_attrs, key: value}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a system attribute of the study (samplers do, during an ask)."""
        with self._lock:
            self._check_study(study_id)
            self._write(lambda: self._real.set_study_system_attr(study_id, key, value))
            self._system_attrs = {**self._system_attrs, key: value}

    def get_study_id_from_name(self, study_name: str) -> int:
        """Id of the study, in the real storage too."""
        if study_name != self._name:
            raise KeyError(study_name)
        return self._study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        """Name of the study."""
        self._check_study(study_id)
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Directions of the objectives."""
        self._check_study(study_id)
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """User attributes of the study."""
        self._check_study(study_id)
        return self._user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """System attributes of the study."""
        self._check_study(study_id)
        return self._system_attrs

    def get_all_studies(self) -> list[Any]:
        """List the one study, as Optuna's record of it."""
        with self._lock:
            return [each for each in self._real.get_all_studies() if each.study_name == self._name]

    def _check_study(self, study_id: int) -> None:
        if study_id != self._study_id:
            raise KeyError(f"no study {study_id}")
