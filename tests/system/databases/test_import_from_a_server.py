"""Trials of an Optuna study on a server, taken over and begun with; the server is only read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from database_servers import Server
from sqlalchemy import create_engine, text

from orchestrator.config.study import Study
from orchestrator.errors import UsageError
from orchestrator.search.layout import StudyFolder
from orchestrator.search.warm_start import resolve
from orchestrator.store.database import close_storage
from orchestrator.studies.importing import import_study
from orchestrator.studies.reader import read_study

pytestmark = pytest.mark.system


def study(**changes: Any) -> Study:
    data = {
        "name": "goes-on",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "trials": 6,
        "command": ["true"],
    }
    return Study.model_validate({**data, **changes})


@pytest.fixture
def theirs(server: Server) -> str:
    """A database with a study that Optuna alone has made."""
    url = server.url(server.new_database())
    storage = optuna.storages.RDBStorage(plain(url))
    try:
        made = optuna.create_study(storage=storage, study_name="old")
        made.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=4)
    finally:
        close_storage(storage)
    return url


def plain(url: str) -> str:
    """The URL with the driver that is installed."""
    from orchestrator.store.server import _readable

    return _readable(url, "here").render_as_string(hide_password=False)


def content(url: str) -> dict[str, int]:
    engine = create_engine(plain(url))
    try:
        with engine.connect() as connection:
            tables = ("studies", "trials", "trial_params", "trial_user_attributes", "study_user_attributes")
            return {name: connection.execute(text(f"SELECT COUNT(*) FROM {name}")).scalar_one() for name in tables}
    finally:
        engine.dispose()


def test_trials_are_taken_over_from_a_server_that_is_only_read(theirs: str, tmp_path: Path) -> None:
    before = content(theirs)
    done = import_study(study(), theirs, "old", root=tmp_path / "runs", origin=tmp_path)
    assert done.numbers == (0, 1, 2, 3)
    assert [trial.state for trial in read_study(done.root).trials] == ["complete"] * 4
    assert content(theirs) == before


def test_trials_are_taken_over_to_a_study_beside_them_and_never_in_their_place(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "storage_url", lambda _self, _environ=None: theirs)
    with pytest.raises(UsageError, match="holds a study 'old' already"):
        import_study(study(name="old"), theirs, "old", root=tmp_path / "runs", origin=tmp_path)
    done = import_study(study(), theirs, "old", root=tmp_path / "runs", origin=tmp_path)
    assert len(read_study(done.root).trials) == 4
    assert content(theirs)["studies"] == 2


def test_a_study_begins_with_trials_on_a_server(theirs: str, tmp_path: Path) -> None:
    before = content(theirs)
    what = study(name="large", warm_start={"study": "x"})
    assert what.warm_start is not None
    source = what.warm_start.model_copy(update={"study": None, "storage": theirs, "name": "old"})
    found = resolve(what.model_copy(update={"warm_start": source}), StudyFolder(tmp_path / "large"), tmp_path)
    assert found is not None
    assert len(found.trials) == 4
    assert content(theirs) == before
