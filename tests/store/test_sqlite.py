"""The short writes leave the rows that Optuna's own code would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.store import sqlite
from orchestrator.store.database import close_storage
from orchestrator.store.sqlite import SQLiteStorage, open_sqlite

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")
WHEN = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


def template(state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        datetime_start=WHEN if state == TrialState.RUNNING else None,
        datetime_complete=None,
        params={"lr": 0.01, "layers": 3, "norm": None},
        distributions={
            "lr": FloatDistribution(1e-5, 0.1, log=True),
            "layers": IntDistribution(1, 5),
            "norm": CategoricalDistribution(["batch", None, 2]),
        },
        user_attrs={"survey": {"ünï": [1, None]}},
        system_attrs={"tpe": "x"},
        intermediate_values={},
    )


def rows(storage: RDBStorage) -> dict[str, Any]:
    with storage.engine.connect() as connection:
        found = {name: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")] for name in TABLES}
    # When a trial ended is the moment of the test; that it is there, and its form, is what counts.
    found["trials"] = [(*row[:-1], row[-1] and len(row[-1])) for row in found["trials"]]
    return found


@pytest.fixture
def lean(tmp_path: Path) -> Any:
    storage = open_sqlite(tmp_path / "lean.db")
    yield storage
    close_storage(storage)


@pytest.fixture
def plain(tmp_path: Path) -> Any:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'plain.db'}")
    yield storage
    close_storage(storage)


@pytest.mark.parametrize("values", [[0.5], [0.5, 1.5], None])
def test_a_trials_life_leaves_the_same_rows(lean: SQLiteStorage, plain: RDBStorage, values: list[float] | None) -> None:
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    for storage in (lean, plain):
        study_id = storage.create_new_study([StudyDirection.MINIMIZE] * len(values or [0]), "s")
        for _ in range(2):
            trial_id = storage.create_new_trial(study_id, template())
        storage.create_new_trial(study_id, template(TrialState.WAITING))
        storage.set_trial_user_attr(trial_id, "job", {"id": "1"})
        storage.set_trial_user_attr(trial_id, "job", {"id": "2"})
        end = {"job": 3, "outcome": {"reason": "r"}}
        if isinstance(storage, SQLiteStorage):
            storage.finish_trial(trial_id, end, state, values)
        else:
            for key, value in end.items():
                storage.set_trial_user_attr(trial_id, key, value)
            storage.set_trial_state_values(trial_id, state, values)
    assert rows(lean) == rows(plain)


def test_times_are_read_back_as_they_were(lean: SQLiteStorage) -> None:
    trial_id = lean.create_new_trial(lean.create_new_study([StudyDirection.MINIMIZE], "s"), template())
    before = datetime.now(UTC)
    lean.finish_trial(trial_id, {}, TrialState.FAIL, None)
    trial = lean.get_trial(trial_id)
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert trial.datetime_start.astimezone(UTC) == WHEN
    assert before <= trial.datetime_complete.astimezone(UTC) <= datetime.now(UTC)


def test_a_trial_that_has_ended_is_not_changed(lean: SQLiteStorage) -> None:
    trial_id = lean.create_new_trial(lean.create_new_study([StudyDirection.MINIMIZE], "s"), template())
    lean.finish_trial(trial_id, {"outcome": 1}, TrialState.COMPLETE, [1.0])
    before = rows(lean)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        lean.finish_trial(trial_id, {"outcome": 2}, TrialState.FAIL, None)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        lean.set_trial_user_attr(trial_id, "outcome", 2)
    assert rows(lean) == before


def test_an_unusual_trial_goes_the_way_of_optuna(lean: SQLiteStorage) -> None:
    study_id = lean.create_new_study([StudyDirection.MINIMIZE], "s")
    finished = optuna.trial.create_trial(params={}, distributions={}, value=2.0, intermediate_values={1: 3.0})
    assert lean.get_trial(lean.create_new_trial(study_id, finished)).values == [2.0]
    assert lean.get_trial(lean.create_new_trial(study_id)).state == TrialState.RUNNING
    with pytest.raises(KeyError):
        lean.set_trial_user_attr(99, "a", 1)


def test_a_write_that_fails_half_way_leaves_nothing(lean: SQLiteStorage) -> None:
    study_id = lean.create_new_study([StudyDirection.MINIMIZE], "s")
    trial = template()
    trial.user_attrs = {"survey": object()}
    with pytest.raises(TypeError):
        lean.create_new_trial(study_id, trial)
    assert lean.get_n_trials(study_id) == 0


def test_a_schema_that_is_not_known_gets_optunas_own_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "REVISION", "another")
    storage = open_sqlite(tmp_path / "s.db")
    assert type(storage) is RDBStorage
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    storage.create_new_trial(study_id, template())
    close_storage(storage)
