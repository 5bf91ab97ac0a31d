"""Looking at attempts: what is whole is seen, what is torn is not there yet."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_orders import AGENT, carry_out, gone, number_in, wait_for, write_order

from orchestrator import agent


def _look(attempt: Path, **wanted: Any) -> dict[str, Any]:
    reply = agent.look({"attempts": {str(attempt): wanted}, "query": None})
    seen: dict[str, Any] = reply["attempts"][str(attempt)]
    return seen


def test_an_attempt_that_is_not_there_is_seen_as_nothing(tmp_path: Path) -> None:
    assert _look(tmp_path / "none", progress=7) == {
        "exists": False,
        "claim": None,
        "exit": None,
        "result": None,
        "progress": "",
        "offset": 7,
    }


def test_a_finished_attempt_is_seen_whole(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command='echo \'{"step": 1, "value": 2}\' > progress.jsonl; echo \'{"metrics": {}}\' > result.json',
    )
    assert carry_out(attempt)[0] == 0
    seen = _look(attempt)
    assert seen["exists"]
    assert seen["claim"]["by"] == "agent"
    assert seen["exit"]["exit_code"] == 0
    assert json.loads(seen["result"]) == {"metrics": {}}
    assert (seen["progress"], seen["offset"]) == ('{"step": 1, "value": 2}\n', 24)
    assert "error" not in seen


@pytest.mark.parametrize("name", ["claim", "exit"])
@pytest.mark.parametrize("torn", ["", '{"tag": "t0', "[1, 2]", '{"tag": "\\ud8'])
def test_a_torn_record_is_not_there_yet(tmp_path: Path, name: str, torn: str) -> None:
    (tmp_path / ("exit.json" if name == "exit" else name)).write_text(torn)
    assert _look(tmp_path)[name] is None


def test_a_result_is_read_when_the_end_is_known_or_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert _look(tmp_path)["result"] is None
    assert _look(tmp_path, result=True)["result"] == "{}"
    (tmp_path / "exit.json").write_text('{"tag": "t"}')
    assert _look(tmp_path)["result"] == "{}"


def test_a_result_that_is_too_long_is_told_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "RESULT_LIMIT", 10)
    (tmp_path / "result.json").write_text("x" * 10)
    assert _look(tmp_path, result=True)["result"] == "x" * 10
    (tmp_path / "result.json").write_text("x" * 25)
    assert _look(tmp_path, result=True)["result"] == {"too_long": 25}


def test_progress_comes_in_whole_lines_each_once(tmp_path: Path) -> None:
    progress = tmp_path / "progress.jsonl"
    progress.write_text('{"step": 1}\n{"st')
    first = _look(tmp_path, progress=0)
    assert first["progress"] == '{"step": 1}\n'
    with progress.open("a") as stream:
        stream.write('ep": 2}\n')
    second = _look(tmp_path, progress=first["offset"])
    assert second["progress"] == '{"step": 2}\n'
    third = _look(tmp_path, progress=second["offset"])
    assert (third["progress"], third["offset"]) == ("", second["offset"])


def test_long_progress_comes_in_parts_and_a_line_without_an_end_is_stepped_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "PROGRESS_LIMIT", 16)
    (tmp_path / "progress.jsonl").write_text('{"step": 1}\n{"step": 2}\n' + "x" * 32 + '\n{"step": 3}\n')
    offset, lines = 0, ""
    for _ in range(8):
        seen = _look(tmp_path, progress=offset)
        lines, offset = lines + seen["progress"], seen["offset"]
    assert [line for line in lines.splitlines() if line.startswith("{")] == [f'{{"step": {n}}}' for n in (1, 2, 3)]
    assert offset == (tmp_path / "progress.jsonl").stat().st_size


def test_progress_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"step": 9}\n')
    offset = _look(tmp_path, progress=500)["offset"]
    assert _look(tmp_path, progress=offset)["progress"] == '{"step": 9}\n'


def test_a_stale_handle_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claim").write_text('{"by": "agent"}')
    open_, stale = os.open, ["claim", str(tmp_path)]

    def open_once_stale(path: str, *arguments: Any, **options: Any) -> int:
        if path in stale:
            stale.remove(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_once_stale)
    assert _look(tmp_path)["claim"] == {"by": "agent"}
    assert stale == []


def test_an_attempt_that_cannot_be_read_whole_is_an_error_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exit.json").write_text('{"tag": "t"}')
    (tmp_path / "result.json").write_text("{}")
    open_ = os.open

    def fail(path: str, *arguments: Any, **options: Any) -> int:
        if path == "result.json":
            raise OSError(errno.EIO, "Input/output error")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    seen = _look(tmp_path)
    assert "Input/output error" in seen["error"]
    assert seen["exit"] is None


def test_nothing_new_costs_a_few_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claim").write_text('{"by": "agent"}')
    (tmp_path / "progress.jsonl").write_text('{"step": 1}\n')
    opened = []
    open_ = os.open

    def count(path: str, *arguments: Any, **options: Any) -> int:
        opened.append(path)
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    _look(tmp_path, progress=12)
    assert opened == [str(tmp_path), "exit.json", "claim", "progress.jsonl"]


def test_one_bad_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    good = write_order(tmp_path / "good")
    reply = agent.look({"attempts": {str(tmp_path / "file"): {}, str(good): {}}, "query": None})
    assert reply["attempts"][str(tmp_path / "file")]["error"]
    assert reply["attempts"][str(good)]["exists"]


def test_a_query_is_answered_beside_the_files() -> None:
    reply = agent.look({"attempts": {}, "query": {"argv": ["sh", "-c", "cat; echo bad >&2; exit 3"], "stdin": "in"}})
    assert reply["query"] == {"returncode": 3, "stdout": "in", "stderr": "bad\n"}
    assert reply["host"] == os.uname().nodename


def test_a_query_that_is_no_program_is_127() -> None:
    answer = agent.look({"attempts": {}, "query": {"argv": ["no-such-program"]}})["query"]
    assert answer["returncode"] == 127
    assert "no-such-program" in answer["stderr"]


def test_a_query_that_hangs_has_no_return_code_and_leaves_no_process(tmp_path: Path) -> None:
    script = f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & wait"
    answer = agent.look({"attempts": {}, "query": {"argv": ["sh", "-c", script], "timeout": 0.5}})["query"]
    assert answer["returncode"] is None
    assert "0.5 s" in answer["stderr"]
    wait_for(lambda: gone(number_in(tmp_path / "pid") or 0), "the end of the query's child")


def test_looking_works_through_stdin_and_stdout(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "ä ö")
    said = subprocess.run(
        [sys.executable, "-I", "-S", str(AGENT), "look"],
        input=json.dumps({"attempts": {str(attempt): {"progress": 3}}, "query": None}),
        capture_output=True,
        text=True,
        check=True,
    )
    reply = json.loads(said.stdout)
    assert reply["attempts"][str(attempt)]["exists"]
    assert reply["attempts"][str(attempt)]["offset"] == 3
