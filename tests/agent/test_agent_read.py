"""Metrics of programs that cannot write result.json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from agent_orders import carry_out, record, write_order


def _report(attempt: Path) -> dict[str, Any]:
    assert carry_out(attempt)[0] == 0
    return record(attempt / "exit.json")


def test_the_last_match_on_stdout_counts(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command="echo 'loss=0.9 loss=0.7'; echo loss=2.5e-1; echo done",
        read=[{"metric": "loss", "stdout": r"loss=([-+.0-9e]+)"}],
    )
    report = _report(attempt)
    assert report["metrics"] == {"loss": 0.25}
    assert report["message"] == ""


def test_a_json_file_is_read_by_a_dotted_path(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command="""echo '{"folds": [{"dice": 0.5}, {"dice": 0.75}]}' > out.json""",
        read=[{"metric": "dice", "json": "out.json:folds.1.dice"}],
    )
    assert _report(attempt)["metrics"] == {"dice": 0.75}


def test_a_csv_file_is_read_in_its_last_row(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command="printf 'epoch,val loss\\n1,0.5\\n2,0.125\\n' > log.csv",
        read=[{"metric": "loss", "csv": "log.csv:val loss"}],
    )
    assert _report(attempt)["metrics"] == {"loss": 0.125}


def test_files_are_looked_for_in_the_working_folder_first(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    attempt = write_order(
        tmp_path / "a",
        workdir=str(work),
        command='echo \'{"x": 1}\' > out.json; echo \'{"x": 2}\' > "$SURVEY_DIR/out.json"; '
        'echo \'{"y": 3}\' > "$SURVEY_DIR/other.json"',
        read=[{"metric": "x", "json": "out.json:x"}, {"metric": "y", "json": "other.json:y"}],
    )
    assert _report(attempt)["metrics"] == {"x": 1.0, "y": 3.0}


def test_a_file_that_lay_there_before_is_not_this_attempt_s(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "out.json").write_text('{"x": 1}')
    attempt = write_order(
        tmp_path / "a", workdir=str(work), command="true", read=[{"metric": "x", "json": "out.json:x"}]
    )
    report = _report(attempt)
    assert report["metrics"] == {}
    assert "has not changed" in report["message"]


def test_what_cannot_be_read_is_told_and_spoils_nothing_else(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command="echo acc=high; echo good=1; echo '{\"x\": {}}' > out.json; echo a > log.csv",
        read=[
            {"metric": "acc", "stdout": "acc=(.*)"},
            {"metric": "none", "stdout": "none=(.*)"},
            {"metric": "bad", "stdout": "("},
            {"metric": "place", "json": "out.json:x.y"},
            {"metric": "file", "json": "missing.json:x"},
            {"metric": "column", "csv": "log.csv:b"},
            {"metric": "good", "stdout": "good=(.*)"},
        ],
    )
    report = _report(attempt)
    assert report["metrics"] == {"good": 1.0}
    for name in ("acc", "none", "bad", "place", "file", "column"):
        assert f"metric {name!r} could not be read" in report["message"]
    assert "'x.y'" in report["message"]


def test_a_number_that_is_not_finite_is_handed_on_as_it_is(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="echo loss=nan", read=[{"metric": "loss", "stdout": "loss=(.*)"}])
    assert math.isnan(_report(attempt)["metrics"]["loss"])
