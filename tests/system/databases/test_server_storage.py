"""What is kept on a server, step by step: the lock, a commit whose answer is lost, a rebuilt study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from database_servers import Server
from optuna.samplers import RandomSampler

from orchestrator.errors import HeldByAnother, ResumeMismatch, SurveyError, UsageError
from orchestrator.store.rebuild import rebuild
from orchestrator.store.record import StudyRecord
from orchestrator.store.server import ServerStorage
from orchestrator.store.snapshot import publish
from orchestrator.store.studydb import StudyDatabase, read_trials
from orchestrator.store.trials import Ending

pytestmark = pytest.mark.system

SETTINGS: dict[str, Any] = {"name": "toy", "directions": ["minimize"], "definition": {}}


def open_study(server: Server, database: str, root: Path, **changes: Any) -> StudyDatabase:
    return StudyDatabase.open(root, url=server.url(database), **{**SETTINGS, **changes})


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {"x": trial.suggest_float("x", 1e-9, 1.0, log=True), "kind": trial.suggest_categorical("kind", ["a", None])}


def ask(study: StudyDatabase) -> int:
    return study.ask(RandomSampler(seed=study.next_number), suggest)[0]


def storage_of(study: StudyDatabase) -> ServerStorage:
    real = study._real
    assert isinstance(real, ServerStorage)
    return real


def test_a_trials_life_is_read_back_exactly_by_plain_optuna(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    database = server.new_database()
    with open_study(server, database, tmp_path, now=lambda: 1_800_000_000.0) as study:
        first, second = ask(study), ask(study)
        study.note(first, "job", {"name": "ünï"})
        study.note(first, "job", {"name": "日本"})
        study.report(first, 2, 1e-300)
        study.tell(first, "complete", [0.1 + 0.2], {"outcome": {"reason": "r"}, "info": {"text": "é" * 50_000}})
        study.tell(second, "failed", attributes={"outcome": {"reason": "s"}})
        study.enqueue({"x": math.pi / 10})
        third = ask(study)
        mine = study.trials()
    plain = optuna.storages.RDBStorage(storage_of(study).url, engine_kwargs={})
    try:
        theirs = plain.get_all_trials(plain.get_study_id_from_name("toy"))
    finally:
        plain.engine.dispose()
    assert [trial.state.name for trial in theirs] == ["COMPLETE", "FAIL", "RUNNING"]
    for one, other in zip(mine, theirs, strict=True):
        assert (one.params, one.values, one.distributions) == (other.params, other.values, other.distributions)
        assert one.intermediate_values == other.intermediate_values
        info = other.user_attrs.pop("info", None), one.user_attrs.pop("info", None)
        assert info[0] == info[1] or "do not fit" in str(info[0])
        assert one.user_attrs == other.user_attrs
    assert theirs[third].params["x"] == math.pi / 10
    (record, *_) = read_trials(tmp_path, name="toy", url=server.url(database))
    assert record.created == 1_800_000_000.0


@pytest.mark.parametrize("step", ["ask", "note", "report", "tell"])
def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice(
    server: Server, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with open_study(server, server.new_database(), tmp_path, on_wait=lambda words, _: said.append(words)) as study:
        first = ask(study)
        dialect = storage_of(study).engine.dialect
        commit = dialect.do_commit
        cut: list[bool] = []

        def committed_and_cut(connection: Any) -> None:
            commit(connection)
            if not cut:
                cut.append(True)
                server.drop_sessions()
                connection.cursor().execute("SELECT 1")

        monkeypatch.setattr(dialect, "do_commit", committed_and_cut)
        if step == "ask":
            assert ask(study) == 1
        elif step == "note":
            study.note(first, "job", {"job_id": "1"})
        elif step == "report":
            study.report(first, 1, 0.5)
        else:
            study.tell(first, "complete", [0.25], {"outcome": {"reason": "r"}})
        assert cut == [True]
        assert len(study.trials()) == (2 if step == "ask" else 1)
        study.storage.reload()
        trials = study.trials()
        assert len(trials) == (2 if step == "ask" else 1)
        if step == "note":
            assert trials[0].user_attrs["job"] == {"job_id": "1"}
        if step == "report":
            assert trials[0].intermediate_values == {1: 0.5}
        if step == "tell":
            assert trials[0].values == [0.25]
    assert said == []  # a connection that was cut and made again at once is no news


def test_a_driver_whose_session_was_ended_takes_the_lock_again_or_stops(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.serverlock._LOOKS", 2)
    database = server.new_database()
    with open_study(server, database, tmp_path / "a") as study:
        number = ask(study)
        with pytest.raises(HeldByAnother, match="is driven by process"):
            open_study(server, database, tmp_path / "b")
        server.drop_sessions()
        study.note(number, "job", {})
        with pytest.raises(HeldByAnother, match="is driven by process"):
            open_study(server, database, tmp_path / "b")
        # While its session is gone another takes the lock: it may not write one more byte.
        server.drop_sessions()
        usurper = open_study(server, database, tmp_path / "a")
        with pytest.raises(HeldByAnother, match="is driven by process"):
            study.note(number, "job", {"job_id": "2"})
        usurper.close()


def test_studies_of_other_names_do_not_hinder_each_other(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    with (
        open_study(server, database, tmp_path / "a") as one,
        open_study(server, database, tmp_path / "b", name="other") as other,
    ):
        assert (ask(one), ask(other), ask(one)) == (0, 0, 1)


def test_a_study_is_not_taken_up_from_a_folder_that_knows_nothing_of_its_jobs(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    with open_study(server, database, tmp_path / "a") as study:
        ask(study)
    with pytest.raises(ResumeMismatch, match="belongs to another folder than") as caught:
        open_study(server, database, tmp_path / "b")
    assert "it was last driven by process" in caught.value.message
    (tmp_path / "a").rename(tmp_path / "moved")
    with open_study(server, database, tmp_path / "moved") as study:
        assert [number for number, _ in study.unfinished()] == [0]


def test_reading_makes_nothing_and_needs_no_lock(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    with pytest.raises(SurveyError, match="there are no studies in"):
        read_trials(tmp_path, name="toy", url=server.url(database))
    with open_study(server, database, tmp_path) as study:
        ask(study)
        assert [trial.state for trial in read_trials(tmp_path, name="toy", url=server.url(database))] == ["running"]


def test_a_database_that_is_not_there_is_named_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match="nowhere cannot be used") as caught:
        open_study(server, "nowhere", tmp_path)
    assert caught.value.exit_code == 4


def test_a_password_file_that_others_can_read_is_refused(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o640)
    option = "passfile" if server.scheme == "postgresql" else "read_default_file"
    with pytest.raises(UsageError, match="can be read by others") as caught:
        StudyDatabase.open(tmp_path, url=f"{server.url('toy')}?{option}={secret}", **SETTINGS)
    assert f"chmod 600 {secret}" in caught.value.hint


def test_a_study_is_made_again_on_the_server_and_the_old_one_keeps_another_name(server: Server, tmp_path: Path) -> None:
    database = server.new_database()
    with open_study(server, database, tmp_path) as study:
        for number in (ask(study), ask(study)):
            study.tell(number, "complete", [number / 3], {"outcome": {"reason": "r"}})
        before = study.record()
        publish(
            tmp_path,
            StudyRecord(
                name="toy",
                objectives=("loss",),
                directions=("minimize",),
                space={},
                sampler={},
                planned=2,
                parallel=1,
                site="local",
                state="done",
                trials=before,
            ),
        )
        with storage_of(study).engine.begin() as connection:
            for table in ("trial_values", "trial_params"):
                connection.exec_driver_sql(f"DELETE FROM {table}")

    def ended(_attempts: object, _seen: bool) -> Ending | None:
        raise AssertionError

    made = rebuild(tmp_path, url=server.url(database), suggest=suggest, ended=ended, **SETTINGS)
    assert made.trials == {"complete": 2}
    assert "toy.damaged-" in made.kept
    after = read_trials(tmp_path, name="toy", url=server.url(database))
    assert [(one.params, one.values) for one in after] == [(one.params, one.values) for one in before]
    kept = made.kept.split("'")[1]
    assert len(read_trials(tmp_path, name=kept, url=server.url(database))) == 2
    with open_study(server, database, tmp_path) as study:
        assert ask(study) == 2
