from __future__ import annotations

import base64
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from study_records import from_values, study, trial
from test_html import Page

from orchestrator.reports.html import render_report, write_report
from orchestrator.reports.picture import best_picture
from orchestrator.store.record import RunRecord, StudyRecord

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def png(*further: bytes) -> bytes:
    """A red image of one pixel, with further chunks behind its header."""
    header = chunk(b"IHDR", (1).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    return SIGNATURE + header + b"".join(further) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")


def left(folder: Path, content: bytes) -> str:
    """The folder of an attempt that left an overview."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "overview.png").write_bytes(content)
    return str(folder)


def shown(uri: str) -> bytes:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(data)


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """Three trials, each with a picture; the middle one is best."""
    folders = [left(tmp_path / str(number), png(chunk(b"tIME", bytes(7)))) for number in range(3)]
    return study([trial(n, value, directory=folders[n]) for n, value in enumerate((0.2, 0.9, 0.5))])


def test_the_report_shows_the_picture_of_the_best_trial_and_its_policy_permits_it(record: StudyRecord) -> None:
    page = Page(render_report(record))
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert shown(image["src"] or "") == png()
    assert "What trial 1 came to" in page.text
    policy = next(each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy")
    allowed = next(part.split() for part in (policy or "").split(";") if part.split()[:1] == ["img-src"])
    assert "data:" in allowed
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"][:3] == [
        "summary", "picture", "history",
    ]  # fmt: skip


def test_a_report_may_do_without_the_picture(record: StudyRecord, tmp_path: Path) -> None:
    text = write_report(record, tmp_path / "report.html", picture=False).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "verdicts only" in text


def test_texts_in_the_picture_that_may_name_a_patient_stay_out(tmp_path: Path) -> None:
    content = png(chunk(b"tEXt", b"Title\0Tanaka"), chunk(b"eXIf", b"Tanaka")) + b"Tanaka behind the end"
    found = best_picture(study([trial(0, 0.5, directory=left(tmp_path / "a", content))]))
    assert found is not None
    assert shown(found.uri) == png()


def test_of_several_objectives_the_first_on_the_front_is_shown(record: StudyRecord) -> None:
    values = [(0.2, 9.0), (0.1, 1.0), (0.5, 3.0)]
    trials = tuple(replace(each, values=pair) for each, pair in zip(record.trials, values, strict=True))
    found = best_picture(
        replace(record, trials=trials, objectives=("pauc", "dice"), directions=("maximize", "maximize"))
    )
    assert found is not None
    assert found.number == 2


def test_of_several_runs_the_first_that_left_a_picture_is_shown(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    folders = [str(tmp_path / "run-1"), left(tmp_path / "run-2", png()), left(tmp_path / "run-3", b"")]
    runs = tuple(RunRecord(run=number, directory=folder) for number, folder in enumerate(folders, start=1))
    found = best_picture(study([trial(0, 0.5, runs=runs)]))
    assert found is not None
    assert shown(found.uri) == png()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg onload=alert(1)>",
        SIGNATURE,
        png()[:-3],
        png().replace(b"IDAT", b"IDAX"),
        SIGNATURE + chunk(b"IEND", b""),
        SIGNATURE + b"\xff" * 40,
    ],
)
def test_what_is_no_whole_picture_is_not_shown_and_is_no_error(tmp_path: Path, content: bytes) -> None:
    record = study([trial(0, 0.5, directory=left(tmp_path / "a", content))])
    assert best_picture(record) is None
    assert "<img" not in render_report(record)


def test_without_a_file_or_a_best_trial_there_is_no_picture(tmp_path: Path) -> None:
    assert best_picture(study([trial(0, 0.5, directory=str(tmp_path / "gone"))])) is None
    assert best_picture(from_values([0.5])) is None
    assert best_picture(study([trial(0, None, directory=left(tmp_path / "a", png()))])) is None
    assert best_picture(study(state="new")) is None


def test_a_pipe_in_the_place_of_the_picture_holds_nobody_up(tmp_path: Path) -> None:
    folder = Path(left(tmp_path / "a", b""))
    (folder / "artifacts" / "overview.png").unlink()
    os.mkfifo(folder / "artifacts" / "overview.png")
    assert best_picture(study([trial(0, 0.5, directory=str(folder))])) is None


def test_a_picture_that_is_too_large_is_left_out_with_a_word(record: StudyRecord, tmp_path: Path) -> None:
    found = best_picture(record, most=20)
    assert found is not None
    assert found.uri == ""
    with (tmp_path / "1" / "artifacts" / "overview.png").open("r+b") as stream:
        stream.truncate(5 * 2**20)
    page = Page(render_report(record))
    assert "Trial 1: overview.png has 5.0 MiB, more than the 4 MiB that are shown." in page.text
    assert "img" not in [tag for tag, _ in page.tags]
