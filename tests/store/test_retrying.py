"""A failed trial that is asked for again: one write, after which another trial has its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler

from orchestrator.errors import UsageError
from orchestrator.store.retrying import failed_trials, retry_trials
from orchestrator.store.studydb import StudyDatabase


@pytest.fixture(params=[None, "journal:study.log"], ids=["sqlite", "journal"])
def url(request: pytest.FixtureRequest) -> str | None:
    param: str | None = request.param
    return param


def open_study(root: Path, url: str | None) -> StudyDatabase:
    return StudyDatabase.open(root, name="s", directions=["minimize"], url=url, definition={})


def ask(study: StudyDatabase) -> tuple[int, dict[str, Any]]:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["sgd", "adam"])
        rate = trial.suggest_float("rate", 0.0, 1.0)
        momentum = {"momentum": trial.suggest_float("momentum", 0.0, 1.0)} if kind == "sgd" else {}
        return {"kind": kind, "rate": rate, "epochs": 20, **momentum}

    return study.ask(RandomSampler(seed=study.next_number), suggest)


@pytest.fixture
def study(tmp_path: Path, url: str | None) -> Iterator[StudyDatabase]:
    """Four trials: 0 complete, 1 and 2 failed, 3 running."""
    with open_study(tmp_path, url) as database:
        for _ in range(4):
            ask(database)
        database.tell(0, "complete", [0.5])
        database.tell(1, "failed")
        database.tell(2, "failed")
        yield database


def test_the_new_trial_has_the_parameters_and_the_place_of_the_old_one(study: StudyDatabase) -> None:
    assert study.counts == {"complete": 1, "failed": 2, "running": 1}
    assert retry_trials(study, [2]) == [(2, 4)]
    assert study.counts == {"complete": 1, "failed": 1, "running": 1, "waiting": 1}
    assert ask(study) == (4, study.record()[2].params)
    assert study.counts == {"complete": 1, "failed": 1, "running": 2}
    assert study.record()[4].retry_of == 2


def test_who_reads_the_database_later_finds_the_same(study: StudyDatabase, tmp_path: Path, url: str | None) -> None:
    retry_trials(study, [1, 2])
    ask(study)
    counts, record = study.counts, study.record()
    study.close()
    with open_study(tmp_path, url) as again:
        assert again.counts == counts
        assert [trial.retry_of for trial in again.record()] == [None, None, None, None, 1, 2]
        assert [trial.params for trial in again.record()][:5] == [trial.params for trial in record][:5]
        assert failed_trials(again) == ()


def test_a_write_that_is_done_again_because_its_answer_was_lost_asks_once(study: StudyDatabase) -> None:
    assert study.enqueue({"rate": 0.5}, retry_of=1) == 4
    assert study.enqueue({"rate": 0.5}, retry_of=1) == 4
    assert len(study.trials()) == 5


def test_one_that_cannot_be_asked_for_leaves_all_as_they_are(study: StudyDatabase) -> None:
    for numbers, words in [([1, 0], "trial 0 is complete"), ([1, 3], "trial 3 is running"), ([1, 7], "no trial 7")]:
        with pytest.raises(UsageError, match=words):
            retry_trials(study, numbers)
    assert len(study.trials()) == 4
    assert failed_trials(study) == (1, 2)
