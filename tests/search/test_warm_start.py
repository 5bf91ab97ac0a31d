"""The earlier trials that a study begins with: what of them is taken, what is said, what is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.config.study import Study
from orchestrator.errors import SurveyError, UsageError
from orchestrator.search.layout import StudyFolder
from orchestrator.search.warm_start import FILE, Warm, keep, load, resolve

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "depth": {"type": "int", "low": 2, "high": 10, "step": 4},
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "epochs": 20,
}


def study(warm_start: Any, **changes: Any) -> Study:
    data = {
        "name": "large",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": SPACE,
        "trials": 4,
        "command": ["true"],
        "warm_start": warm_start,
    }
    return Study.model_validate({**data, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "runs" / "large")
    made.root.mkdir(parents=True)
    return made


def row(number: int, **changes: Any) -> dict[str, Any]:
    params = {"lr": 0.01, "depth": 6, "optimizer": "adam", "epochs": 20, **changes}
    return {"params": params, "metrics": {"loss": number / 10}}


def table(folder: Path, *rows: dict[str, Any], name: str = "earlier.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return str(path)


def taken(what: Study, folder: StudyFolder) -> Warm:
    found = resolve(what, folder, folder.root.parent.parent)
    assert found is not None
    return found


def refusal(what: Study, folder: StudyFolder) -> str:
    with pytest.raises(UsageError) as caught:
        taken(what, folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_trials_that_fit_are_taken_as_they_are(tmp_path: Path, folder: StudyFolder) -> None:
    source = table(tmp_path, row(1), row(2, optimizer="sgd", momentum=0.5, depth=2))
    found = taken(study(source), folder)
    assert found.trials == (
        ({"lr": 0.01, "depth": 6, "optimizer": "adam"}, 0.1),
        ({"lr": 0.01, "depth": 2, "optimizer": "sgd", "momentum": 0.5}, 0.2),
    )
    assert found.lines == (f"2 trials of {source}, by their loss",)


def test_what_does_not_match_is_said_parameter_by_parameter(tmp_path: Path, folder: StudyFolder) -> None:
    rows = [
        row(1),
        row(2, lr=10.0),
        row(3, lr=1e-9),
        row(4, optimizer="rmsprop"),
        row(5, depth=5, epochs=10),
        row(6, depth=2.5, width=64),
    ]
    found = taken(study(table(tmp_path, *rows)), folder)
    assert [params for params, _ in found.trials] == [
        {"lr": 0.01, "depth": 6, "optimizer": "adam"},
        {"lr": 0.01, "depth": 6, "optimizer": "adam"},
    ]
    assert found.lines[1:] == (
        "lr: outside 0.0001 .. 1: 2 of 6 trials are left out",
        "depth: no whole number: 1 of 6 trials are left out",
        "depth: 1 of 6 trials lie between the steps, and are moved to the nearest one",
        "optimizer: no choice here: rmsprop: 1 of 6 trials are left out",
        "momentum: not in the source; nothing is known of it",
        "epochs: fixed here, and the source has 10 too",
        "not in this study, and left out of account: width",
    )


def test_a_parameter_that_does_not_exist_under_the_others_values_is_dropped(
    tmp_path: Path, folder: StudyFolder
) -> None:
    found = taken(study(table(tmp_path, row(1, momentum=0.3), row(2, momentum=0.4, optimizer="sgd"))), folder)
    assert [params.get("momentum") for params, _ in found.trials] == [None, 0.4]


def test_csv_is_read_in_the_types_of_the_study(tmp_path: Path, folder: StudyFolder) -> None:
    (tmp_path / "old.csv").write_text("lr,depth,optimizer,loss\n0.1,6,sgd,0.5\n0.2,10,adam,0.25\n", encoding="utf-8")
    found = taken(study("old.csv"), folder)
    assert found.trials[0] == ({"lr": 0.1, "depth": 6, "optimizer": "sgd"}, 0.5)


def test_failed_and_pruned_trials_are_taken_for_what_they_are(tmp_path: Path, folder: StudyFolder) -> None:
    failed = {"params": {"lr": 1.0}, "state": "failed"}
    pruned = {"params": {"lr": 0.5}, "metrics": {"loss": 0.0}, "state": "pruned"}
    found = taken(study(table(tmp_path, row(1), row(3), row(5), failed, pruned)), folder)
    assert [value for _, value in found.trials] == [0.1, 0.3, 0.5, None, 0.3]
    assert "; 1 of them failed" in found.lines[0]


def test_another_metric_with_another_direction_counts_with_the_other_sign(tmp_path: Path, folder: StudyFolder) -> None:
    rows = [{"params": {"lr": 0.1 * each}, "metrics": {"accuracy": 0.9 + each / 100}} for each in (1, 2)]
    source = {"table": table(tmp_path, *rows), "metric": "accuracy", "direction": "maximize"}
    found = taken(study(source), folder)
    assert [value for _, value in found.trials] == [-0.91, -0.92]
    assert "accuracy counts with the other sign: maximize there, minimize loss here" in found.lines


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "the table is empty"),
        ([{"params": {"lr": 0.1}, "metrics": {"accuracy": 1.0}}], "no row has a number as 'loss'"),
        ([{"params": {"lr": 0.1}, "metrics": {"loss": "low"}}], "no row has a number as 'loss'"),
        ([{"params": {"alpha": 0.1}, "metrics": {"loss": 1.0}}] * 2, "has no parameter in common with study 'large'"),
        ([row(1, lr="small"), row(2, lr="large")], "lr: no number: 2 of 2 trials are left out"),
        ([row(1)], "and 2 with a value are needed"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, folder: StudyFolder, rows: list[dict[str, Any]], words: str
) -> None:
    assert words in refusal(study(table(tmp_path, *rows)), folder)


def test_a_source_that_is_not_there_is_refused_by_its_path(tmp_path: Path, folder: StudyFolder) -> None:
    assert f"{tmp_path}/none.csv: no such table" in refusal(study("none.csv"), folder)
    assert f"there is no study in {tmp_path}/runs/small" in refusal(study("runs/small"), folder)
    assert f"there is no database {tmp_path}/old.db" in refusal(study(f"sqlite:///{tmp_path}/old.db"), folder)


# --- Optuna's databases


def optuna_study(
    path: Path, name: str = "old", direction: Literal["minimize", "maximize"] = "minimize", **kinds: Any
) -> str:
    url = f"sqlite:///{path}"
    made = optuna.create_study(storage=url, study_name=name, direction=direction)
    space = {"lr": FloatDistribution(1e-6, 1.0, log=True), "depth": IntDistribution(2, 10), **kinds}
    for number in range(4):
        params = {"lr": 0.01 * (number + 1), "depth": 2 + 4 * (number % 3), **dict.fromkeys(kinds, "sgd")}
        made.add_trial(
            create_trial(params=params, distributions=space, value=float(number), user_attrs={"f1": number / 2})
        )
    made.add_trial(create_trial(params={}, distributions={}, state=TrialState.FAIL))
    made.ask(space)
    return url


def test_a_study_of_optuna_is_read_from_its_database_and_never_written(tmp_path: Path, folder: StudyFolder) -> None:
    source = optuna_study(tmp_path / "old.db", optimizer=CategoricalDistribution(["sgd", "lamb"]))
    before = (tmp_path / "old.db").read_bytes()
    found = taken(study(source), folder)
    assert found.trials[3] == ({"lr": 0.04, "depth": 2, "optimizer": "sgd"}, 3.0)
    assert len(found.trials) == 4
    assert found.lines[-1] == "1 trials have none of this study's parameters, and are left out"
    assert found.lines[1:4] == (
        "1 trials of the source are left out: not ended",
        "lr: 1e-06 .. 1 there, 0.0001 .. 1 here",
        "optimizer: adam is no choice there",
    )
    assert (tmp_path / "old.db").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old.db", "runs"]


def test_a_study_of_optuna_with_another_direction_is_refused_unless_it_is_said(
    tmp_path: Path, folder: StudyFolder
) -> None:
    source = optuna_study(tmp_path / "old.db", direction="maximize")
    assert "has another goal: maximize loss" in refusal(study(source), folder)
    said = taken(study({"storage": source, "metric": "f1", "direction": "maximize"}), folder)
    assert [value for _, value in said.trials] == [0.0, -0.5, -1.0, -1.5]


def test_which_of_several_studies_is_meant_must_be_said(tmp_path: Path, folder: StudyFolder) -> None:
    source = optuna_study(tmp_path / "old.db")
    optuna_study(tmp_path / "old.db", name="other")
    assert "holds 2 studies: 'old', 'other'" in refusal(study(source), folder)
    assert "holds no study 'odl'" in refusal(study({"storage": source, "name": "odl"}), folder)
    assert len(taken(study({"storage": source, "name": "other"}), folder).trials) == 4


def test_a_password_is_named_and_never_written(folder: StudyFolder) -> None:
    with pytest.raises(ValueError, match="no password in a file"):
        study("postgresql://me:secret@host/db")
    assert "environment variable OLD_PASSWORD is not set" in refusal(
        study("postgresql://me:${OLD_PASSWORD}@host/db"), folder
    )


# --- what is kept


def test_the_trials_are_kept_and_the_source_is_not_read_again(tmp_path: Path, folder: StudyFolder) -> None:
    source = table(tmp_path, row(1), row(2))
    what = study(source)
    assert len(keep(what, folder, tmp_path)) > 0
    folder.study.write_text(what.to_yaml(), encoding="utf-8")
    first = load(folder)
    Path(source).unlink()
    assert keep(what, folder, tmp_path) == ()
    assert load(folder) == first == taken(what, folder)


def test_a_kept_file_that_was_changed_or_removed_is_refused(tmp_path: Path, folder: StudyFolder) -> None:
    what = study(table(tmp_path, row(1), row(2)))
    keep(what, folder, tmp_path)
    folder.study.write_text(what.to_yaml(), encoding="utf-8")
    path = folder.root / FILE
    path.write_text(path.read_text(encoding="utf-8").replace("0.1", "0.7"), encoding="utf-8")
    with pytest.raises(SurveyError, match="is not as this study wrote it"):
        load(folder)
    path.unlink()
    with pytest.raises(SurveyError, match="the earlier trials of study 'large' are gone"):
        keep(what, folder, tmp_path)


def test_the_best_different_configurations_are_the_first_ones(tmp_path: Path, folder: StudyFolder) -> None:
    source = table(tmp_path, row(5), row(1, lr=0.1), row(2, lr=0.1), row(3, lr=0.2), {"params": {}, "failed": True})
    found = taken(study({"table": source, "best": 2}, sampler="random"), folder)
    assert [params["lr"] for params in found.first(study({"table": source, "best": 2}, sampler="random"))] == [0.1, 0.2]


def test_conditions_between_parameters_hold_for_the_first_ones_too(tmp_path: Path, folder: StudyFolder) -> None:
    source = table(tmp_path, row(1, depth=10, lr=0.5), row(2), row(3, lr=0.02))
    what = study(source, sampler="random", where=["lr * depth <= 1"])
    assert [params["lr"] for params in taken(what, folder).first(what)] == [0.01, 0.02]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "grid"}, "the sampler grid runs every point anyway"),
        ({"warm_start": {"table": "x.csv", "best": 3}}, "the sampler bo weighs the earlier trials itself"),
        ({"warm_start": {"table": "x.csv", "study": "y"}}, "needs exactly one of study, storage, table"),
        ({"warm_start": {"table": "x.csv", "name": "y"}}, "there is no storage"),
        (
            {"objective": None, "objectives": [{"metric": each, "direction": "minimize"} for each in ("loss", "m")]},
            "a study of several objectives cannot begin with another's trials",
        ),
    ],
)
def test_a_warm_start_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        study(**{"warm_start": "x.csv", **changes})


def test_an_earlier_study_may_be_named_by_its_folder_its_file_or_its_name(tmp_path: Path, folder: StudyFolder) -> None:
    small = StudyFolder(folder.root.parent / "small")
    small.root.mkdir()
    text = study(None, name="small").to_yaml()
    small.study.write_text(text, encoding="utf-8")
    (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
    optuna_study(small.root / "study.db", name="small")
    names = ["runs/small", "small.yaml", "small", str(small.root)]
    found = [taken(study(name), folder).trials for name in names]
    assert len(found[0]) == 4
    assert found == [found[0]] * 4
    shutil.rmtree(small.root)
    assert "there is no study in" in refusal(study("small"), folder)


def test_a_relative_path_is_below_the_folder_of_study_yaml(tmp_path: Path, folder: StudyFolder) -> None:
    optuna_study(tmp_path / "old.db")
    assert len(taken(study("sqlite:///old.db"), folder).trials) == 4
