"""On a terminal, in a pipe, in a shell that completes: where the words go and what moves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from little_study import SURVEY, environment, run, write_study
from terminal import CONTROL, on_a_terminal


def test_a_terminal_gets_a_live_table_that_leaves_one_line(tmp_path: Path) -> None:
    write_study(
        tmp_path, trials=3, command="sleep 0.6; " + f'echo \'{"{"}"metrics": {{"loss": 1}}}}\' > $SURVEY_RESULT'
    )
    code, out, seen = on_a_terminal(tmp_path, "run", "study.yaml")
    assert code == 0
    assert out.startswith("toy: done, 3 complete")
    for word in ("trial", "job", "state", "latest", "local-", "0/3 trials", "2/3 trials"):
        assert word in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1
    # After the cursor is back nothing is left of the table but what it came to.
    left = CONTROL.sub("", seen.split("\x1b[?25h")[1]).strip()
    assert re.fullmatch(r"3/3 trials, best loss 1 \(trial [012]\)", left)


def test_the_terminal_is_whole_after_an_error(tmp_path: Path) -> None:
    write_study(tmp_path, trials=1, command="exit 3")
    code, out, seen = on_a_terminal(tmp_path, "run", "study.yaml")
    assert code == 3
    assert out.startswith("toy: done, 1 failed")
    after = CONTROL.sub("", seen.split("\x1b[?25h")[1])
    assert after.split("\r\n")[0].strip() == "1/1 trials, 1 failed"
    assert "Error: 1 of 1 trials failed" in after


@pytest.mark.parametrize(("more", "words"), [({"TERM": "dumb"}, ()), ({}, ("-q",))])
def test_nothing_moves_on_a_dumb_terminal_or_when_quiet(
    tmp_path: Path, more: dict[str, str], words: tuple[str, ...]
) -> None:
    write_study(tmp_path, trials=1)
    code, _, seen = on_a_terminal(tmp_path, *words, "run", "study.yaml", **more)
    assert code == 0
    assert "\x1b" not in seen
    assert ("[1/1]" in seen) == (not words)


def test_colour_is_for_those_who_want_it(tmp_path: Path) -> None:
    _, _, seen = on_a_terminal(tmp_path, "status")
    assert "\x1b[" in seen
    for words, more in ((("status",), {"NO_COLOR": "1"}), (("--no-color", "status"), {})):
        code, _, seen = on_a_terminal(tmp_path, *words, **more)
        assert code == 2
        assert seen.startswith("Error: no study below runs")
        assert "\x1b" not in seen
    assert "\x1b" not in run(tmp_path, "status").err
    assert "\x1b[" in run(tmp_path, "status", FORCE_COLOR="1").err


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    # More than a pipe holds, so that the command is still writing when its reader leaves.
    wide = {f"p{index}": {"type": "categorical", "choices": ["x" * 3000]} for index in range(40)}
    write_study(tmp_path, trials=1, space=wide, command="""echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT" """)
    assert run(tmp_path, "run", "study.yaml").code == 0
    for verb in ("export", "export --json", "best", "status --json"):
        line = f'{" ".join(SURVEY)} {verb} | head -c 10; echo " ${{PIPESTATUS[0]}}"'
        done = subprocess.run(
            ["/bin/bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_completes(tmp_path: Path, shell: str) -> None:
    ran = run(tmp_path, _SURVEY_COMPLETE=f"source_{shell}")
    assert ran.code == 0, ran.err
    assert f"_SURVEY_COMPLETE=complete_{shell}" in ran.out
    assert "survey" in ran.out


def test_bash_is_known_from_inside_it_and_completes_a_verb(tmp_path: Path) -> None:
    line = f"{' '.join(SURVEY)} --show-completion; true"
    done = subprocess.run(
        ["/bin/bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert "_SURVEY_COMPLETE=complete_bash" in done.stdout, done.stderr
    ran = run(tmp_path, _SURVEY_COMPLETE="complete_bash", COMP_WORDS="survey sta", COMP_CWORD="1")
    assert ran.out.split() == ["status"]


def test_a_bug_in_a_verb_shows_its_traceback_with_debug_only(tmp_path: Path) -> None:
    write_study(tmp_path, sampler="nonsense")
    assert "Traceback" not in run(tmp_path, "check", "study.yaml").err
    assert "Traceback" in run(tmp_path, "--debug", "check", "study.yaml").err
