"""What the adaptors share."""

from __future__ import annotations

import pytest

from orchestrator.schedulers.reading import Table, indices, seconds, utc

COLUMNS = {"id": ("JOB_ID",), "state": ("ST", "STATUS"), "reason": ("REASON",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4-9%2", {4, 5, 6, 7, 8, 9}),
        ("0-10:5", {0, 5, 10}),
        ("1,3,5-7", {1, 3, 5, 6, 7}),
        ("7", {7}),
        ("1-3,5-...", None),
        ("", None),
    ],
)
def test_a_range_is_read_whole_or_not_at_all(text: str, expected: set[int] | None) -> None:
    assert indices(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:01:30", 90), ("100:00:00", 360000), ("30:00", 1800), ("5", 5), ("-", None), ("1d", None)],
)
def test_durations_are_seconds(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


def test_a_time_that_is_none_is_none() -> None:
    assert utc("Unknown", "%Y-%m-%dT%H:%M:%S") is None
    assert utc("2026-11-20T23:24:56", "%Y-%m-%dT%H:%M:%S") == 1795217096.0


def test_a_list_is_read_by_the_names_in_its_header_wherever_they_stand() -> None:
    table = Table.read("motd\n\nSTATUS USER JOB_ID REASON\nRUN me 12 waits for a node\n", COLUMNS, r"\d+")
    assert table is not None
    assert table.rows == [{"state": "RUN", "id": "12", "reason": "waits for a node"}]


def test_a_list_without_its_header_is_no_list() -> None:
    assert Table.read("12 RUN\n", COLUMNS, r"\d+") is None


def test_lines_that_are_no_jobs_are_passed_over_and_spoilt_ones_are_kept_apart() -> None:
    table = Table.read("JOB_ID ST\n12 RUN\n13..\n\nTotal: 2 jobs\n", COLUMNS, r"\d+")
    assert table is not None
    assert [row["id"] for row in table.rows] == ["12"]
    assert table.odd == ["13.."]
