from __future__ import annotations

import csv
import io
import json

from study_records import study, trial

from orchestrator.reports.export import columns, rows, to_csv, to_json
from orchestrator.store.record import StudyRecord


def record() -> StudyRecord:
    return study(
        [
            trial(
                0, 0.5, params={"x": 0.1, "later": "b", "a": None}, metrics={"pauc": 0.5, "dice": 0.7}, gpus=("0", "1")
            ),
            trial(1, None, reason="=cmd|' /C calc'!A0", info={"patient": "Tanaka"}, params={"x": -0.2}),
        ],
        space={"x": {"type": "float", "low": -1.0, "high": 1.0}},
    )


def test_columns_follow_the_space_then_names() -> None:
    names = columns(record())
    assert names[:10] == (
        "number", "state", "verdict", "values.pauc", "params.x", "params.a", "params.later", "metrics.dice",
        "metrics.pauc", "reason",
    )  # fmt: skip


def test_a_row_holds_values_params_metrics_and_attributes() -> None:
    first, second = rows(record())
    assert (first["values.pauc"], first["params.later"], first["metrics.dice"], first["gpus"]) == (0.5, "b", 0.7, "0 1")
    assert (second["values.pauc"], second["params.later"], second["state"]) == (None, None, "failed")


def test_a_formula_in_csv_is_made_text_and_numbers_stay_numbers() -> None:
    _, second = csv.DictReader(io.StringIO(to_csv(record())))
    assert second["reason"] == "'=cmd|' /C calc'!A0"
    assert second["params.x"] == "-0.2"


def test_json_keeps_types_and_says_null_for_what_is_not_finite() -> None:
    data = json.loads(to_json(study([trial(0, 0.5, metrics={"loss": float("nan")}, params={"x": True})])))
    assert data[0]["metrics.loss"] is None
    assert data[0]["params.x"] is True


def test_json_of_an_empty_study_is_an_empty_list() -> None:
    assert json.loads(to_json(study())) == []
    assert to_csv(study()).startswith("number,state,verdict,values.pauc,params.x,reason")


def test_what_a_program_reported_as_info_is_not_exported() -> None:
    assert "Tanaka" not in to_csv(record()) + to_json(record())
