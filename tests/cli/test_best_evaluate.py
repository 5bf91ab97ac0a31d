"""`survey best --evaluate`: chosen on validation cases, reported on test cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from little_study import write_study
from survey_command import Survey, command

# Reports what it is given, and needs the model that the trial has left.
TEST = (
    'grep -q model "$SURVEY_EVALUATED/artifacts/model.txt" || exit 4; [ -z "$BROKEN" ] || [ ! -e "$BROKEN" ] || exit 3; '
    '[ "$SURVEY_SPLIT" = test ] && echo "{\\"metrics\\": {\\"accuracy\\": $SURVEY_RUN.5}}" > "$SURVEY_RESULT"'
)


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_the_best_are_evaluated_and_shown_with_what_they_came_to(survey: Survey, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    write_study(tmp_path, trials=3)
    assert survey("run", "study.yaml").code == 0
    nothing = survey("best", "--evaluate")
    assert nothing.code == 2
    assert "does not say how its best trials are evaluated" in nothing.err

    how = {"command": TEST, "metrics": ["accuracy"], "best": 2, "repeats": 3, "environment": {"BROKEN": str(broken)}}
    write_study(tmp_path, trials=3, evaluate=how)
    broken.touch()
    failed = survey("best", "study.yaml", "--evaluate")
    assert failed.code == 3
    assert "6 of 6 runs have no result, the first one is run 1 of trial" in failed.err
    broken.unlink()

    done = survey("best", "study.yaml", "--evaluate")
    assert done.code == 0, done.err
    assert [line.partition(": ")[2].partition("  [")[0] for line in done.err.splitlines() if ", run " in line] != []
    header, first, second = done.out.splitlines()
    assert header.split() == ["trial", "chosen", "by", "loss", "on", "the", "test", "cases"]
    assert first.endswith("accuracy 2.5 ± 1 (3 runs)")
    assert second.endswith("accuracy 2.5 ± 1 (3 runs)")
    best = survey("best")
    assert "  on the test cases: accuracy 2.5 ± 1 (3 runs)" in best.out

    again = survey("best", "study.yaml", "--evaluate", "--json")
    assert again.code == 0
    assert "run 1" not in again.err, "what has a result is not run again"
    found = json.loads(again.out)["evaluation"]
    assert [len(trial["runs"]) for trial in found["trials"]] == [3, 3]
    assert len({run["seed"] for trial in found["trials"] for run in trial["runs"]}) == 3
    page = Path(survey("report").out.strip()).read_text(encoding="utf-8")
    assert "On the test cases" in page
    assert "accuracy, mean" in page
    assert survey("status").out.startswith("toy on local: done")
    assert survey("doctor", "runs/toy").code == 0


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"repeats": 0}, "evaluate.repeats"),
        ({"metric": ["a"]}, "metric"),
        ({"metrics": []}, "evaluate.metrics"),
        ({"command": []}, "evaluate.command"),
    ],
)
def test_a_mistake_in_it_is_told_with_its_key(
    survey: Survey, tmp_path: Path, how: dict[str, object], words: str
) -> None:
    write_study(tmp_path, evaluate=how)
    checked = survey("check", "study.yaml")
    assert checked.code == 2
    assert words in checked.err
