"""A study of Optuna goes on as one of ours: what is taken over, what is left out, what is refused, what is never touched."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.clock import SystemClock
from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.errors import SurveyError, UsageError
from orchestrator.search import space
from orchestrator.search.driver import StudyDriver
from orchestrator.search.layout import StudyFolder
from orchestrator.store.rebuild import rebuild
from orchestrator.studies import importing
from orchestrator.studies.importing import Imported, import_study
from orchestrator.studies.reader import read_study, studies_below

THEIRS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-6, 1.0, log=True),
    "optimizer": CategoricalDistribution(["sgd", "adam", "lamb"]),
}


def study(**changes: Any) -> Study:
    data = {
        "name": "goes-on",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {
            "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
            "epochs": 20,
        },
        "sampler": {"name": "bo", "seed": 1},
        "trials": 6,
        "command": """echo '{"metrics": {"loss": 0.25}}' > "$SURVEY_RESULT" """,
    }
    return Study.model_validate({**data, **changes})


def trial(lr: float, value: float | None = None, optimizer: str = "sgd", **changes: Any) -> optuna.trial.FrozenTrial:
    return create_trial(
        **{
            "params": {"lr": lr, "optimizer": optimizer},
            "distributions": THEIRS,
            "value": lr if value is None else value,
            "user_attrs": {"f1": 0.5, "note": "text"},
            **changes,
        }
    )


def source(
    path: Path, *trials: optuna.trial.FrozenTrial, direction: Literal["minimize", "maximize"] = "minimize"
) -> str:
    url = f"sqlite:///{path}"
    made = optuna.create_study(storage=url, study_name="old", direction=direction)
    for each in trials:
        made.add_trial(each)
    return url


def taken(tmp_path: Path, url: str, what: Study | None = None, name: str | None = None) -> Imported:
    return import_study(what or study(), url, name, root=tmp_path / "runs", origin=tmp_path)


def refusal(tmp_path: Path, url: str, what: Study | None = None, name: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        taken(tmp_path, url, what, name)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_ended_trials_become_the_first_trials_with_their_old_numbers_on_record(tmp_path: Path) -> None:
    url = source(tmp_path / "old.db", trial(0.1), trial(0.2, optimizer="adam"))
    done = taken(tmp_path, url)
    record = read_study(done.root)
    assert done.numbers == (0, 1)
    assert [(each.params["lr"], each.values) for each in record.trials] == [(0.1, (0.1,)), (0.2, (0.2,))]
    assert record.trials[1].params == {"lr": 0.2, "optimizer": "adam", "epochs": 20}
    assert record.trials[1].metrics == {"loss": 0.2, "f1": 0.5}
    assert record.trials[1].info["imported_from"]["number"] == 1  # type: ignore[index, call-overload]
    assert record.trials[1].reason == f"imported: trial 1 of study 'old' in {tmp_path}/old.db"
    assert [folder.name for folder in studies_below(tmp_path / "runs")] == ["goes-on"]


def test_failed_and_pruned_trials_stay_what_they_were(tmp_path: Path) -> None:
    url = source(
        tmp_path / "old.db",
        trial(0.1),
        create_trial(params={"lr": 0.2, "optimizer": "sgd"}, distributions=THEIRS, state=TrialState.FAIL),
        trial(0.3, state=TrialState.PRUNED, intermediate_values={1: 0.9, 2: 0.7}),
    )
    record = read_study(taken(tmp_path, url).root)
    assert [each.state for each in record.trials] == ["complete", "failed", "pruned"]
    assert record.trials[2].steps == {1: 0.9, 2: 0.7}


def test_what_is_no_point_of_the_study_is_left_out_and_said(tmp_path: Path) -> None:
    outside, stranger = trial(1e-5), trial(0.3, optimizer="lamb")
    url = source(tmp_path / "old.db", outside, trial(0.1), stranger, create_trial(state=TrialState.FAIL), trial(0.2))
    made = optuna.load_study(storage=url, study_name="old")
    made.ask(THEIRS)
    made.enqueue_trial({"lr": 0.5})
    done = taken(tmp_path, url)
    assert done.numbers == (1, 4)
    assert done.lines == (
        "left out, parameter lr cannot be 1e-05: trial 0",
        "left out, parameter optimizer cannot be 'lamb': trial 2",
        "left out, without parameters: trial 3",
        "left out, still running: trial 5",
        "left out, still waiting: trial 6",
    )


def test_a_parameter_that_was_always_the_same_there_is_dropped_and_one_that_varied_is_not(tmp_path: Path) -> None:
    def wide(lr: float, width: float) -> optuna.trial.FrozenTrial:
        space = {**THEIRS, "width": FloatDistribution(1.0, 9.0)}
        return trial(lr, params={"lr": lr, "optimizer": "sgd", "width": width}, distributions=space)

    done = taken(tmp_path, source(tmp_path / "one.db", wide(0.1, 4.0), wide(0.2, 4.0)))
    assert done.lines == ("width = 4.0: no parameter of this study, dropped",)
    words = refusal(tmp_path, source(tmp_path / "two.db", wide(0.1, 4.0), wide(0.2, 5.0)), study(name="other"))
    assert "left out, there is no parameter width: trials 0, 1" in words


def test_a_study_with_conditions_and_constraints_takes_what_meets_and_has_them(tmp_path: Path) -> None:
    url = source(tmp_path / "old.db", trial(0.1), trial(0.9), trial(0.2, user_attrs={}))
    done = taken(tmp_path, url, study(where=["lr <= 0.5"], constraints=[{"metric": "f1", "at_least": 0.75}]))
    assert done.lines == (
        "left out, breaks a condition between parameters: trial 1",
        "left out, without the metric f1, of which the study has a constraint: trial 2",
    )
    assert [each.feasible for each in read_study(done.root).trials] == [False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"metric": "loss", "direction": "maximize"}}, "has another goal: minimize, and study 'goes-on'"),
        ({"space": {"depth": {"type": "int", "low": 1, "high": 3}}}, "left out, there is no parameter"),
        (
            {
                "space": {
                    "lr": {"type": "float", "low": 2.0, "high": 3.0},
                    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
                }
            },
            "parameter lr cannot be 0.1: trial 0",
        ),
    ],
)
def test_a_study_that_does_not_fit_is_refused(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    url = source(tmp_path / "old.db", trial(0.1), trial(0.2, optimizer="adam"))
    assert words in refusal(tmp_path, url, study(**changes))
    assert not (tmp_path / "runs").exists()


def test_a_begun_study_takes_no_trials(tmp_path: Path) -> None:
    url = source(tmp_path / "old.db", trial(0.1))
    taken(tmp_path, url)
    assert "was begun already" in refusal(tmp_path, url)


def test_a_database_that_is_somebody_elses_is_neither_the_source_nor_overwritten(tmp_path: Path) -> None:
    url = source(tmp_path / "old.db", trial(0.1))
    before = (tmp_path / "old.db").read_bytes()
    assert "there is a database already" in refusal(tmp_path, url, study(storage=url))
    assert "there is no database" in refusal(tmp_path, f"sqlite:///{tmp_path}/none.db")
    assert "holds no study 'odl'" in refusal(tmp_path, url, name="odl")
    assert (tmp_path / "old.db").read_bytes() == before


def test_a_journal_is_read_too(tmp_path: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / "old.log"
    made = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="old")
    made.add_trial(trial(0.1))
    before = path.read_bytes()
    assert taken(tmp_path, f"journal:{path}").numbers == (0,)
    assert path.read_bytes() == before


def stamped(path: Path, *statements: str) -> str:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path}"


def test_a_database_of_optuna_4_is_read_as_it_is_and_an_older_schema_is_refused_in_words(tmp_path: Path) -> None:
    source(tmp_path / "old.db", trial(0.1))
    url = stamped(tmp_path / "old.db", "UPDATE version_info SET library_version = '4.9.0'")
    assert taken(tmp_path, url).numbers == (0,)
    stamped(tmp_path / "old.db", "UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    words = refusal(tmp_path, url, study(name="again"))
    assert "is of another version of Optuna" in words
    assert "optuna storage upgrade" in words


def test_an_import_that_was_cut_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = source(tmp_path / "old.db", trial(0.1), trial(0.2))

    def away(*_: object, **__: object) -> None:
        raise SurveyError("cut off")

    for name in ("put_in_place", "publish", "freeze_imported"):
        with monkeypatch.context() as patch:
            patch.setattr(importing, name, away)
            with pytest.raises(SurveyError, match="cut off"):
                taken(tmp_path, url)
        assert not StudyFolder(tmp_path / "runs" / "goes-on").begun
    assert read_study(taken(tmp_path, url).root).complete[1].params["lr"] == 0.2


def test_a_driver_goes_on_with_the_imported_trials_in_its_budget_and_a_rebuild_keeps_them(tmp_path: Path) -> None:
    url = source(tmp_path / "old.db", trial(0.1), trial(0.2), trial(0.3), trial(0.4))
    what = study()
    root = taken(tmp_path, url, what).root
    site = tmp_path / "mine.yaml"
    site.write_text("name: mine\nscheduler: local\n", encoding="utf-8")
    driver = StudyDriver(what, load_site(site), tmp_path / "runs", origin=tmp_path)
    record = asyncio.run(driver.run())
    assert [each.values for each in record.trials] == [(0.1,), (0.2,), (0.3,), (0.4,), (0.25,), (0.25,)]
    assert record.state == "done"
    assert record.provenance["imported"]["trials"] == 4  # type: ignore[index, call-overload]
    (root / "study.db").unlink()
    rebuilt = rebuild(
        root,
        name=what.name,
        directions=["minimize"],
        definition=what.frozen(),
        suggest=lambda trial: space.suggest(what.space, trial),
        ended=lambda _runs, _seen: None,
        clock=SystemClock(),
    )
    assert rebuilt.trials["complete"] == 4
