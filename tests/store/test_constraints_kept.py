"""By how much a trial is beyond its study's bounds is kept where Optuna's samplers look for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from optuna.samplers import RandomSampler

from orchestrator.store.rebuild import rebuild
from orchestrator.store.record import StudyRecord
from orchestrator.store.snapshot import publish
from orchestrator.store.studydb import StudyDatabase, read_trials
from orchestrator.store.trials import CONSTRAINTS, Ending

if TYPE_CHECKING:
    import optuna

SETTINGS: dict[str, Any] = {"name": "toy", "directions": ["minimize"], "definition": {"space": "x"}}
AMOUNTS = {"memory <= 16": 0.5, "s >= 0.8": -0.125}


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {"x": trial.suggest_float("x", 0.0, 1.0)}


@pytest.fixture(params=[None, "journal:study.log"], ids=["sqlite", "journal"])
def url(request: pytest.FixtureRequest) -> str | None:
    param: str | None = request.param
    return param


def told(root: Path, url: str | None) -> None:
    with StudyDatabase.open(root, url=url, **SETTINGS) as study:
        for amounts in (AMOUNTS, {}):
            number, _ = study.ask(RandomSampler(seed=1), suggest)
            for _ in range(2):  # as after an answer that was lost
                study.tell(number, "complete", [1.0], {CONSTRAINTS: amounts, "metrics": {"memory": 16.5}})
        assert [trial.constraints for trial in study.trials()] == [AMOUNTS, {}]
        assert [trial.feasible for trial in study.record()] == [False, True]


def test_it_is_there_at_once_and_after_a_restart(tmp_path: Path, url: str | None) -> None:
    told(tmp_path, url)
    with StudyDatabase.open(tmp_path, url=url, **SETTINGS) as study:
        assert [trial.constraints for trial in study.trials()] == [AMOUNTS, {}]
        assert CONSTRAINTS not in study.attributes(0)
    assert [trial.constraints for trial in read_trials(tmp_path, name="toy", url=url)] == [AMOUNTS, {}]


def test_a_database_that_is_made_again_has_it(tmp_path: Path, url: str | None) -> None:
    told(tmp_path, url)
    record = StudyRecord(
        name="toy", objectives=("loss",), directions=("minimize",), space={}, sampler={}, planned=2, parallel=1,
        site="x", state="done", trials=read_trials(tmp_path, name="toy", url=url),
    )  # fmt: skip
    publish(tmp_path, record)
    for path in tmp_path.glob("study.*"):
        path.unlink()
    rebuild(tmp_path, suggest=suggest, ended=lambda *_: None, url=url, **SETTINGS)
    assert [trial.constraints for trial in read_trials(tmp_path, name="toy", url=url)] == [AMOUNTS, {}]


def test_an_ending_names_the_bounds_that_are_broken() -> None:
    assert Ending(state="complete", values=[1.0], attributes={CONSTRAINTS: AMOUNTS}).broken == ["memory <= 16"]
    assert Ending(state="failed", attributes={}).broken == []
