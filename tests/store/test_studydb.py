"""A study's database through the life of its trials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from orchestrator.errors import HeldByAnother, Paused, ResumeMismatch, SurveyError
from orchestrator.store.database import open_for_reading
from orchestrator.store.mirror import MirrorStorage
from orchestrator.store.studydb import StudyDatabase, read_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DEFINITION: Mapping[str, Any] = {"space": {"lr": {"type": "float", "low": 1e-5, "high": 0.1}}, "objectives": ["pauc"]}


@pytest.fixture(params=[None, "journal:study.log"], ids=["sqlite", "journal"])
def url(request: pytest.FixtureRequest) -> str | None:
    param: str | None = request.param
    return param


def open_study(root: Path, url: str | None = None, **changes: Any) -> StudyDatabase:
    settings: dict[str, Any] = {"name": "aneurysm", "directions": ["maximize"], "definition": DEFINITION}
    return StudyDatabase.open(root, url=url, **{**settings, **changes})


@pytest.fixture
def study(tmp_path: Path, url: str | None) -> Iterator[StudyDatabase]:
    with open_study(tmp_path, url, now=lambda: 1_800_000_000.0) as database:
        yield database


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "lr": trial.suggest_float("lr", 1e-5, 0.1, log=True),
        "layers": trial.suggest_int("layers", 1, 5),
        "norm": trial.suggest_categorical("norm", ["batch", "none"]),
        "fixed": 42,
    }


def ask(study: StudyDatabase, **attributes: Any) -> tuple[int, dict[str, Any]]:
    return study.ask(RandomSampler(seed=study.next_number), suggest, attributes)


def test_a_trial_goes_from_ask_to_tell_and_is_there_after_a_restart(tmp_path: Path, url: str | None) -> None:
    with open_study(tmp_path, url, now=lambda: 1_800_000_000.0) as study:
        number, params = ask(study, phase="warm-up")
        study.note(number, "job", {"job_id": "123", "submitted": 10.0})
        study.report(number, 1, 0.5)
        study.tell(
            number,
            "complete",
            [0.81],
            {
                "outcome": {
                    "verdict": "succeeded", "reason": "", "host": "n1", "started": 11.0, "ended": 20.0,
                    "attempts": 2, "max_rss": 100.5, "gpus": ["0"], "gpu_memory": 7.0, "directory": "/w/1",
                },
                "metrics": {"pauc": 0.81, "dice": 0.7},
                "info": {"epochs": 3},
            },
        )  # fmt: skip
        before = study.record()
    with open_study(tmp_path, url) as study:
        assert study.record() == before
        assert study.counts == {"complete": 1}
    (record,) = before
    assert (record.number, record.state, record.params, record.values) == (0, "complete", params, (0.81,))
    assert record.params["fixed"] == 42
    assert (record.metrics, record.info, record.steps) == ({"pauc": 0.81, "dice": 0.7}, {"epochs": 3}, {1: 0.5})
    assert (record.verdict, record.reason, record.job_id, record.attempts) == ("succeeded", "", "123", 2)
    assert (record.host, record.gpus, record.max_rss, record.gpu_memory) == ("n1", ("0",), 100.5, 7.0)
    assert (record.created, record.submitted, record.started, record.ended) == (1_800_000_000.0, 10.0, 11.0, 20.0)
    assert record.directory == "/w/1"
    assert record.ask_seconds is not None


def test_the_whole_trial_is_in_one_transaction(tmp_path: Path) -> None:
    from sqlalchemy import event

    with open_study(tmp_path) as study:
        ask(study)  # the first one also asks for its number
        commits: list[object] = []
        event.listen(study._real.engine, "commit", commits.append)  # type: ignore[attr-defined]
        number, _ = ask(study)
        assert len(commits) == 1
        study.note(number, "job", {"job_id": "1"})
        assert len(commits) == 2
        study.tell(number, "failed", None, {"outcome": {"verdict": "lost"}, "metrics": {}, "info": {}})
        assert len(commits) == 3


def test_an_ask_that_fails_leaves_no_trial(study: StudyDatabase) -> None:
    def broken(trial: optuna.Trial) -> dict[str, Any]:
        suggest(trial)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study.ask(RandomSampler(), broken)
    assert study.trials() == []
    assert ask(study)[0] == 0


def test_unfinished_trials_come_back_with_their_parameters(tmp_path: Path, url: str | None) -> None:
    with open_study(tmp_path, url) as study:
        asked = [ask(study) for _ in range(3)]
        study.tell(1, "complete", [1.0])
    with open_study(tmp_path, url) as study:
        assert study.unfinished() == [asked[0], asked[2]]
        assert study.next_number == 3
        assert ask(study)[0] == 3


def test_a_trial_that_nobody_was_told_of_is_handed_out_before_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_study(tmp_path) as study:
        real_commit = MirrorStorage.commit

        def written_but_lost(mirror: MirrorStorage) -> None:
            real_commit(mirror)
            raise optuna.exceptions.StorageInternalError("connection lost")

        with monkeypatch.context() as patch:
            patch.setattr(MirrorStorage, "commit", written_but_lost)
            with pytest.raises(Paused, match="connection lost"):
                ask(study)
        assert study.next_number == 0
        number, params = ask(study)
        assert (number, params["fixed"]) == (0, 42)
        assert len(study.trials()) == 1
        assert ask(study)[0] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_finite_number_is_refused(study: StudyDatabase, value: float) -> None:
    ask(study)
    with pytest.raises(ValueError, match="finite"):
        study.tell(0, "complete", [value])
    assert study.counts == {"running": 1}


@pytest.mark.parametrize(
    ("state", "values"), [("complete", None), ("complete", [1.0, 2.0]), ("failed", [1.0]), ("running", None)]
)
def test_values_must_fit_the_state(study: StudyDatabase, state: str, values: list[float] | None) -> None:
    ask(study)
    with pytest.raises(ValueError, match=r"values|running"):
        study.tell(0, state, values)
    assert study.counts == {"running": 1}


def test_telling_the_same_again_does_nothing_and_something_else_is_an_error(study: StudyDatabase) -> None:
    ask(study)
    study.tell(0, "complete", [0.5], {"outcome": {"reason": "first"}})
    study.tell(0, "complete", [0.5], {"outcome": {"reason": "second"}})
    assert study.attributes(0)["outcome"] == {"reason": "first"}
    with pytest.raises(SurveyError, match=r"is complete with \[0.5\] and cannot become failed"):
        study.tell(0, "failed")


def test_telling_again_after_an_answer_was_lost_does_nothing(
    study: StudyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(study)
    real = study._real
    name = "finish_trial" if hasattr(real, "finish_trial") else "set_trial_state_values"
    write = getattr(real, name)

    def written_but_lost(*args: Any) -> None:
        write(*args)
        raise optuna.exceptions.StorageInternalError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(real, name, written_but_lost)
        with pytest.raises(Paused, match="connection lost"):
            study.tell(0, "complete", [0.5], {"outcome": {"reason": ""}})
    study.tell(0, "complete", [0.5], {"outcome": {"reason": ""}})
    assert study.counts == {"complete": 1}


def test_the_reason_is_on_disk_before_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end: dict[str, Any] = {"outcome": {"verdict": "timeout", "reason": "24 h"}}

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with open_study(tmp_path, "journal:study.log") as study:
        ask(study)
        with monkeypatch.context() as patch:
            patch.setattr(study._real, "set_trial_state_values", die)
            with pytest.raises(KeyboardInterrupt):
                study.tell(0, "failed", None, end)
    with open_study(tmp_path, "journal:study.log") as study:
        assert study.counts == {"running": 1}
        assert study.record()[0].reason == "24 h"
        study.tell(0, "failed", None, end)
        assert study.counts == {"failed": 1}


def test_a_pruned_trial_keeps_its_last_value(study: StudyDatabase) -> None:
    ask(study)
    study.report(0, 1, 0.25)
    study.tell(0, "pruned", [0.25])
    assert study.trials()[0].state == TrialState.PRUNED
    assert study.record()[0].values == (0.25,)


def test_enqueued_parameters_are_taken_by_the_next_ask(study: StudyDatabase) -> None:
    study.enqueue({"lr": 0.01, "layers": 3})
    assert study.counts == {"waiting": 1}
    assert study.record()[0].params == {"lr": 0.01, "layers": 3}
    assert study.next_number == 0
    number, params = ask(study)
    assert number == 0
    assert (params["lr"], params["layers"]) == (0.01, 3)
    assert study.counts == {"running": 1}


def test_a_database_of_another_study_is_refused_by_both_names(tmp_path: Path, url: str | None) -> None:
    open_study(tmp_path, url).close()
    with pytest.raises(ResumeMismatch, match="'aneurysm', not 'nodule'"):
        open_study(tmp_path, url, name="nodule")


def test_a_changed_definition_is_refused_by_its_keys(tmp_path: Path, url: str | None) -> None:
    open_study(tmp_path, url).close()
    changed = {**DEFINITION, "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.1}}}
    with pytest.raises(ResumeMismatch, match=r"space\.lr\.low was 1e-05, is now 0\.0001"):
        open_study(tmp_path, url, definition=changed)
    with pytest.raises(ResumeMismatch, match="directions"):
        open_study(tmp_path, url, directions=["minimize"])
    open_study(tmp_path, url).close()


def test_the_order_of_keys_in_a_definition_does_not_matter(tmp_path: Path) -> None:
    open_study(tmp_path).close()
    open_study(tmp_path, definition=dict(sorted(DEFINITION.items()))).close()


def test_a_study_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    with open_study(tmp_path) as study:
        real = study._real
        study_id = real.get_study_id_from_name("aneurysm")
        ask(study)
        real.set_study_user_attr(study_id, "survey", None)
    with pytest.raises(ResumeMismatch, match="did not make"):
        open_study(tmp_path)


def test_a_study_cut_off_while_it_was_made_is_completed(tmp_path: Path) -> None:
    with open_study(tmp_path) as study:
        study._real.set_study_user_attr(study._study_id, "survey", None)
    open_study(tmp_path).close()
    with pytest.raises(ResumeMismatch):
        open_study(tmp_path, definition={})


def test_a_lost_lease_is_noticed_before_any_write(tmp_path: Path) -> None:
    lost = False

    def guard() -> None:
        if lost:
            raise HeldByAnother("taken over")

    with open_study(tmp_path, guard=guard) as study:
        ask(study)
        before = (tmp_path / "study.db").stat().st_mtime_ns
        lost = True
        for write in (
            lambda: ask(study),
            lambda: study.note(0, "job", 1),
            lambda: study.report(0, 1, 1.0),
            lambda: study.tell(0, "failed"),
            lambda: study.enqueue({}),
            study.backup,
        ):
            with pytest.raises(HeldByAnother):
                write()
        assert (tmp_path / "study.db").stat().st_mtime_ns == before


def test_an_unknown_trial_is_named(study: StudyDatabase) -> None:
    with pytest.raises(SurveyError, match="no trial 7"):
        study.note(7, "job", {})


def test_finished_trials_give_the_same_record_each_time(study: StudyDatabase) -> None:
    for _ in range(2):
        ask(study)
    study.tell(0, "complete", [1.0])
    first, second = study.record(), study.record()
    assert first[0] is second[0]
    assert first[1] is not second[1]
    assert first == second


def test_what_was_written_can_be_read_by_plain_optuna(tmp_path: Path) -> None:
    with open_study(tmp_path) as study:
        _, params = ask(study)
        study.tell(0, "complete", [0.5])
        copy = study.backup()
    assert copy is not None
    with open_for_reading(f"sqlite:///{copy}", tmp_path) as storage:
        plain = optuna.load_study(study_name="aneurysm", storage=storage)
        assert plain.best_value == 0.5
        assert plain.best_params.items() <= params.items()


def test_five_hundred_trials_load_and_an_ask_reads_none_of_them_from_the_database(tmp_path: Path) -> None:
    url = "journal:study.log"
    with open_study(tmp_path, url) as study:
        for number in range(500):
            ask(study)
            study.tell(number, "complete", [number / 500])
    with open_study(tmp_path, url) as study:
        assert study.counts == {"complete": 500}
        reads: list[str] = []
        real = study._real
        for name in ("get_all_trials", "get_trial", "get_study_system_attrs", "get_trial_number_from_id"):
            setattr(real, name, lambda *_, name=name, **__: reads.append(name))
        assert ask(study)[0] == 500
        assert reads == []
        assert len(study.record()) == 501


def test_readers_get_the_records_without_a_driver(tmp_path: Path, url: str | None) -> None:
    with open_study(tmp_path, url) as study:
        ask(study)
        study.enqueue({"lr": 0.01})
        expected = study.record()
    assert read_trials(tmp_path, name="aneurysm", url=url) == expected
    with pytest.raises(SurveyError, match="no study 'nodule'"):
        read_trials(tmp_path, name="nodule", url=url)
    with pytest.raises(SurveyError, match="no study database"):
        read_trials(tmp_path / "none", name="aneurysm", url=url)


def test_a_lease_lost_during_a_long_ask_is_noticed_before_the_write(tmp_path: Path) -> None:
    lost = False

    def guard() -> None:
        if lost:
            raise HeldByAnother("taken over")

    def slow(trial: optuna.Trial) -> dict[str, Any]:
        nonlocal lost
        lost = True
        return suggest(trial)

    with open_study(tmp_path, guard=guard) as study, pytest.raises(HeldByAnother):
        study.ask(RandomSampler(), slow)
    assert read_trials(tmp_path, name="aneurysm") == ()


def test_a_full_disk_pauses_and_the_study_goes_on_when_there_is_space(tmp_path: Path) -> None:
    with open_study(tmp_path) as study:
        ask(study)
        connection = study._real.engine.raw_connection()  # type: ignore[attr-defined]
        pages = connection.cursor().execute("PRAGMA page_count").fetchone()[0]
        connection.cursor().execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Paused, match="full") as caught:
            study.note(0, "job", {"words": "x" * 100_000})
        assert "free space" in caught.value.hint
        assert "job" not in study.attributes(0)
        connection.cursor().execute("PRAGMA max_page_count = 100000")
        connection.close()
        study.note(0, "job", {"words": "x" * 100_000})
    assert len(read_trials(tmp_path, name="aneurysm")) == 1


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_is_removed_or_replaced_while_a_driver_runs_stops_it(
    tmp_path: Path, url: str | None, how: str
) -> None:
    path = tmp_path / ("study.db" if url is None else "study.log")
    with open_study(tmp_path, url) as study:
        ask(study)
        path.rename(tmp_path / "away")
        if how == "replaced":
            path.write_bytes((tmp_path / "away").read_bytes())
        with pytest.raises(Paused, match="removed or replaced while this driver ran") as caught:
            ask(study)
        assert "--rebuild" in caught.value.hint
        path.unlink(missing_ok=True)
        (tmp_path / "away").rename(path)
        assert ask(study)[0] == 1
