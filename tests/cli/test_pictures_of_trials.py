"""What `survey best` and `survey report` make of the picture that a trial leaves."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from little_study import PROGRAM, write_study
from survey_command import Survey, command

# A red image of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_the_picture_that_the_best_trial_left_is_named_and_shown(survey: Survey, tmp_path: Path) -> None:
    draw = f'echo {PNG} | base64 -d > "$SURVEY_ARTIFACTS/overview.png"; '
    write_study(tmp_path, command=draw + PROGRAM)
    assert survey("run", "study.yaml").code == 0
    picture = Path(survey("best").out.splitlines()[-1].strip())
    assert picture.name == "overview.png"
    assert picture.read_bytes() == base64.b64decode(PNG)
    page = Path(survey("report").out.strip())
    assert f'src="data:image/png;base64,{PNG}"' in page.read_text(encoding="utf-8")
    assert survey("report", "--no-picture").code == 0
    assert "data:image/png" not in page.read_text(encoding="utf-8").partition("<script")[0]
