from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator.config.units import (
    Duration,
    MemorySize,
    Walltime,
    format_duration,
    format_hms,
    parse_duration,
    parse_memory,
)


class Units(BaseModel):
    duration: Duration = 0.0
    walltime: Walltime = 1
    memory: MemorySize = 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90),
        (0.1, 0.1),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1.5 h", 5400),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d 2h", 93600),
        ("10:00", 600),
        ("90:00", 5400),
        ("01:30:00", 5400),
        ("100:00:00", 360000),
        ("1-00:00:01", 86401),
    ],
)
def test_a_duration_is_read_as_people_write_it(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [True, None, -1, float("inf"), float("nan"), "", "soon", "5x", "1:99", "1:60:00", "1-30:00", "-5s", "h", [1]],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"expected a duration|finite"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "mebibytes"),
    [
        (512, 512),
        ("512", 512),
        ("16GB", 16384),
        ("16g", 16384),
        ("1.5GiB", 1536),
        ("512MiB", 512),
        ("1T", 1048576),
        ("1KB", 1),
    ],
)
def test_a_memory_size_is_read_as_people_write_it(written: object, mebibytes: int) -> None:
    assert parse_memory(written) == mebibytes


@pytest.mark.parametrize("written", [True, None, -1, "lots", "5XB", "16 G G", float("inf")])
def test_what_is_no_memory_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"expected a memory size|finite"):
        parse_memory(written)


def test_models_hold_plain_numbers() -> None:
    units = Units.model_validate({"duration": "1m", "walltime": "0.5s", "memory": "2G"})
    assert (units.duration, units.walltime, units.memory) == (60.0, 1, 2048)


def test_a_walltime_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="longer than zero"):
        Units.model_validate({"walltime": 0})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (45, "45s"),
        (5400, "1h 30m"),
        (3605, "1h"),
        (97200, "1d 3h"),
        (172805, "2d"),
        (59.7, "1m"),
    ],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "00:00:00"), (5400, "01:30:00"), (360000, "100:00:00"), (0.2, "00:00:01")]
)
def test_a_batch_scripts_walltime_is_never_shorter(seconds: float, words: str) -> None:
    assert format_hms(seconds) == words
