"""docs/faults.md and the tests say the same: each fault is there, with a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE = ROOT / "docs" / "faults.md"
ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)
NAME = re.compile(r"`((?:tests/[\w/]+\.py::)?test_\w+)`")
DEFINED = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
NUMBERED = re.compile(r"test_fault_(\d+)_")
FAULTS = range(1, 64)


def rows() -> list[tuple[int, list[str]]]:
    """Each row's number and its cells."""
    text = TABLE.read_text(encoding="utf-8")
    return [(int(number), [cell.strip() for cell in cells.split(" | ")]) for number, cells in ROW.findall(text)]


def named() -> dict[int, list[str]]:
    """The tests that the table names, by number."""
    return {number: NAME.findall(cells[-1]) for number, cells in rows()}


def defined(folder_or_file: Path) -> set[str]:
    """Names of the tests in a file, or in all files of a folder."""
    files = [folder_or_file] if folder_or_file.is_file() else folder_or_file.glob("test_*.py")
    return {name for file in files for name in DEFINED.findall(file.read_text(encoding="utf-8"))}


def test_each_fault_stands_in_the_table_once_and_in_order() -> None:
    assert [number for number, _ in rows()] == list(FAULTS)


def test_each_row_says_what_happens_what_you_see_and_which_test_knows() -> None:
    assert [number for number, cells in rows() if len(cells) != 4 or not all(cells)] == []
    assert [number for number, names in named().items() if not names] == []


def test_each_test_that_the_table_names_exists() -> None:
    missing = []
    for number, names in named().items():
        for name in names:
            path, _, test = name.rpartition("::")
            place = ROOT / path if path else HERE
            if not place.exists() or test not in defined(place):
                missing.append(f"{number}: {name}")
    assert missing == []


def test_each_fault_has_a_test_of_its_number_and_each_of_them_stands_there() -> None:
    wanted: dict[int, set[str]] = {number: set() for number in FAULTS}
    for name in defined(HERE):
        if match := NUMBERED.match(name):
            wanted[int(match[1])].add(name)
    assert {number: {name for name in names if "::" not in name} for number, names in named().items()} == wanted
    assert [number for number, names in wanted.items() if not names] == []
