"""The agent runs a command and reports how it ended."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from agent_orders import carry_out, gone, number_in, record, start, wait_for, write_order

from orchestrator import agent
from orchestrator.config.site import BatchOptions, load_site
from orchestrator.jobs.collect import parse_report
from orchestrator.jobs.script import wrap_command
from orchestrator.model import Resources


def test_a_command_runs_in_its_folder_and_its_end_is_reported(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=["sh", "-c", "pwd; echo trouble >&2; exit 3"])
    code, _ = carry_out(attempt, environment={"SLURM_JOB_ID": "4711"})
    assert code == 3
    assert (attempt / "stdout").read_text() == f"{attempt}\n"
    assert (attempt / "stderr").read_text() == "trouble\n"
    report = parse_report(record(attempt / "exit.json"))
    assert (report.tag, report.exit_code, report.signal, report.cause) == ("t00007-k3j9x2q8", 3, None, "")
    assert (report.job_id, report.restarts, report.host) == ("4711", 0, os.uname().nodename)
    assert report.started <= report.ended
    assert report.max_rss is not None
    assert report.max_rss > 0
    assert "metrics" not in record(attempt / "exit.json")


def test_a_line_goes_through_the_shell(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="echo one && echo two | tr o 0")
    assert carry_out(attempt)[0] == 0
    assert (attempt / "stdout").read_text() == "one\ntw0\n"


def test_a_launcher_that_forgets_the_environment_starts_programs_that_have_it(tmp_path: Path) -> None:
    odd = 'it\'s "$HOME"\nand `more`'
    batch = BatchOptions(launcher="env -i")
    attempt = write_order(
        tmp_path / "a",
        command=wrap_command(batch, load_site("local"), ("/usr/bin/env", "-0"), Resources(nodes=2)),
        environment={"ODD": odd},
        launched=True,
    )
    assert carry_out(attempt, environment={"OF_THIS_NODE": "1"})[0] == 0
    seen = dict(line.split("=", 1) for line in (attempt / "stdout").read_text().rstrip("\0").split("\0"))
    assert (seen["ODD"], seen["SURVEY_TAG"], seen["PATH"]) == (odd, "t00007-k3j9x2q8", os.environ["PATH"])
    assert seen["SURVEY_RESULT"] == f"{attempt}/result.json"
    assert "OF_THIS_NODE" not in seen
    assert stat.S_IMODE((attempt / "environment.sh").stat().st_mode) == 0o600


def test_the_program_gets_its_folders_names_and_numbers(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "trials" / "00007" / "attempt-1",
        command="env",
        walltime=3600,
        workdir=str(tmp_path),
        environment={"OMP_NUM_THREADS": "4", "PYTHONPATH": "/mine", "SURVEY_TAG": "not-this"},
    )
    before = {"SURVEY_SEED": "1", "SURVEY_STOP": "/outer/stop", "PYTHONPATH": "/theirs"}
    assert carry_out(attempt, environment=before)[0] == 0
    lines = (attempt / "stdout").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert seen["SURVEY_DIR"] == str(attempt)
    assert seen["SURVEY_PARAMS"] == f"{attempt}/params.json"
    assert seen["SURVEY_RESULT"] == f"{attempt}/result.json"
    assert seen["SURVEY_PROGRESS"] == f"{attempt}/progress.jsonl"
    assert seen["SURVEY_STOP"] == f"{attempt}/stop"
    assert seen["SURVEY_CHECKPOINT"] == str(tmp_path / "trials" / "00007" / "checkpoint")
    assert seen["SURVEY_ARTIFACTS"] == f"{attempt}/artifacts"
    assert (seen["SURVEY_TAG"], seen["SURVEY_STUDY"]) == ("t00007-k3j9x2q8", "aneurysm")
    assert (seen["SURVEY_TRIAL"], seen["SURVEY_ATTEMPT"], seen["SURVEY_SEED"]) == ("7", "1", "123")
    assert (seen["SURVEY_RUN"], seen["SURVEY_RUNS"]) == ("2", "3")
    assert float(seen["SURVEY_DEADLINE"]) > record(attempt / "exit.json")["started"]
    assert seen["OMP_NUM_THREADS"] == "4"
    assert seen["PYTHONPATH"] == f"/mine:{tmp_path}/lib/1f3a9c"
    assert seen["PWD"] == str(tmp_path)
    assert Path(seen["SURVEY_CHECKPOINT"]).is_dir()
    assert Path(seen["SURVEY_ARTIFACTS"]).is_dir()


def test_an_inner_survey_does_not_see_the_outer_one(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="env", seed=None)
    outer = {"SURVEY_SEED": "1", "SURVEY_DEADLINE": "1", "SURVEY_RESULT": "/outer/result.json"}
    assert carry_out(attempt, environment=outer)[0] == 0
    said = (attempt / "stdout").read_text()
    assert "SURVEY_SEED" not in said
    assert "SURVEY_DEADLINE" not in said
    assert "/outer" not in said


def test_what_the_agent_and_the_program_write_is_private(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="echo x > made; mkdir made.d")
    assert carry_out(attempt)[0] == 0
    for name in ("claim", "exit.json", "stdout", "stderr", "made"):
        assert stat.S_IMODE((attempt / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((attempt / "made.d").stat().st_mode) == 0o700
    assert not [name for name in os.listdir(attempt) if name.startswith(".")]


@pytest.mark.parametrize(
    ("command", "code", "named"),
    [
        (["no-such-program", "--lr", "1"], 127, "no-such-program"),
        (["./not-executable"], 126, "not-executable"),
        ([], 126, "nothing"),
        (["nul\0byte"], 126, "nul"),
    ],
)
def test_a_command_that_cannot_start_is_named(tmp_path: Path, command: list[str], code: int, named: str) -> None:
    attempt = write_order(tmp_path / "a", command=command)
    (attempt / "not-executable").write_text("#!/bin/sh\n")
    assert carry_out(attempt)[0] == code
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("cannot-start", code)
    assert named in report["message"]


def test_a_missing_working_folder_is_named(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", workdir="/no/such/place")
    assert carry_out(attempt)[0] == 127
    assert "/no/such/place" in record(attempt / "exit.json")["message"]


def test_an_order_of_another_version_is_not_carried_out(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", version=2, command="touch ran")
    assert carry_out(attempt)[0] == 126
    assert "version 2" in record(attempt / "exit.json")["message"]
    assert not (attempt / "ran").exists()


def test_a_program_killed_by_a_signal_is_reported_with_the_signal(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=["sh", "-c", "kill -SEGV $$"])
    assert carry_out(attempt)[0] == 128 + 11
    report = record(attempt / "exit.json")
    assert (report["exit_code"], report["signal"], report["cause"]) == (None, 11, "")


def test_a_request_to_be_run_again_is_an_exit_code_like_any_other(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="exit 85")
    assert carry_out(attempt)[0] == 85
    assert record(attempt / "exit.json")["exit_code"] == 85


def test_nothing_of_the_group_outlives_the_command_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command="(trap '' TERM; sh -c 'echo $$ > deaf; while :; do sleep 1; done') & "
        "sh -c 'echo $$ > meek; exec sleep 1000' & "
        "while [ ! -s deaf ] || [ ! -s meek ]; do sleep 0.01; done",
    )
    assert carry_out(attempt)[0] == 0
    deaf, meek = number_in(attempt / "deaf"), number_in(attempt / "meek")
    assert deaf is not None
    assert meek is not None
    assert gone(deaf)
    assert gone(meek)
    assert record(attempt / "exit.json")["exit_code"] == 0


def test_a_folder_without_an_order_is_told_apart_from_one_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "ORDER_DELAYS", ())
    good = write_order(tmp_path / "good", command="exit 0")
    (tmp_path / "bad").mkdir()
    assert agent.run([str(tmp_path / "bad"), str(good)]) == agent.EXIT_NO_ORDER
    assert "bad/job.json" in capsys.readouterr().err
    assert (good / "exit.json").exists()
    assert os.listdir(tmp_path / "bad") == []


def test_a_report_waits_out_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = write_order(tmp_path / "a")
    full = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded")]
    whole = agent._replace

    def replace(path: str, content: bytes) -> None:
        if path.endswith("exit.json") and full:
            raise full.pop()
        whole(path, content)

    monkeypatch.setattr(agent, "_replace", replace)
    monkeypatch.setattr(agent, "WRITE_DELAYS", (0, 0, 0))
    assert agent.run([str(attempt)]) == 0
    assert record(attempt / "exit.json")["exit_code"] == 0


def test_a_report_that_finds_no_room_is_told_and_leaves_no_torn_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = write_order(tmp_path / "a")
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if "exit.json" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(agent, "WRITE_DELAYS", (0, 0))
    assert agent.run([str(attempt)]) == agent.EXIT_NO_ROOM == 75
    assert "No space left on device" in capsys.readouterr().err
    assert not [name for name in os.listdir(attempt) if "exit.json" in name]


def test_a_report_for_a_deleted_folder_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = write_order(tmp_path / "a", command=["rm", "-r", str(tmp_path / "a")])
    monkeypatch.setattr(agent, "WRITE_DELAYS", (1000,))
    assert agent.run([str(attempt)]) == agent.EXIT_NO_ROOM
    assert "cannot write" in capsys.readouterr().err


def test_a_kill_for_want_of_memory_is_told_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [3, 4]
    monkeypatch.setattr(agent, "_oom_kills", lambda: kills.pop(0) if len(kills) > 1 else kills[0])
    attempt = write_order(tmp_path / "a", command="kill -9 $$")
    other = write_order(tmp_path / "b", command="kill -9 $$")
    assert agent.run([str(attempt)]) == 128 + 9
    assert record(attempt / "exit.json")["cause"] == "out-of-memory"
    assert agent.run([str(other)]) == 128 + 9
    assert record(other / "exit.json")["cause"] == ""


@pytest.mark.parametrize(
    ("group", "source", "text"),
    [
        ("0::/slurm/job_1\n", "/sys/fs/cgroup/slurm/job_1/memory.events", "low 0\noom 7\noom_kill 2\n"),
        (
            "5:cpu:/x\n4:memory:/pbs/1\n0::/\n",
            "/sys/fs/cgroup/memory/pbs/1/memory.oom_control",
            "under_oom 0\noom_kill 2\n",
        ),
        ("nonsense\n", "/none", ""),
    ],
)
def test_the_kernel_s_count_of_kills_is_read_where_it_is(
    monkeypatch: pytest.MonkeyPatch, group: str, source: str, text: str
) -> None:
    files = {"/proc/self/cgroup": group.encode(), source: text.encode()}
    monkeypatch.setattr(agent, "_read", files.get)
    assert agent._oom_kills() == (2 if text else 0)


def test_several_attempts_run_side_by_side(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    meet = "touch ../{mine}.here; while [ ! -e ../{other}.here ]; do sleep 0.01; done; exit {code}"
    one = write_order(tmp_path / "one", tag="one", command=meet.format(mine=1, other=2, code=0))
    two = write_order(tmp_path / "two", tag="two", command=meet.format(mine=2, other=1, code=5))
    assert carry_out(one, two)[0] == 5
    assert record(one / "exit.json")["tag"] == record(one / "claim")["tag"] == "one"
    assert record(two / "exit.json")["exit_code"] == 5


def test_the_agent_run_in_process_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    import signal

    mask = os.umask(0o022)
    handlers = [signal.getsignal(number) for number in (*agent.ENDING, *agent.FORWARDED, signal.SIGCHLD)]
    assert agent.run([str(write_order(tmp_path / "a"))]) == 0
    assert [signal.getsignal(number) for number in (*agent.ENDING, *agent.FORWARDED, signal.SIGCHLD)] == handlers
    assert os.umask(mask) == 0o022


def test_the_command_line_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.main(["walk", "away"]) == 2
    assert "usage: agent.py run DIR..." in capsys.readouterr().err


def test_stdout_is_there_while_the_program_runs(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="echo begun; while [ ! -e go ]; do sleep 0.01; done")
    with start(attempt) as process:
        wait_for(lambda: (attempt / "stdout").exists() and (attempt / "stdout").read_text() == "begun\n", "stdout")
        assert json.loads((attempt / "claim").read_text())["pid"] == process.pid
        (attempt / "go").touch()
        process.communicate(timeout=60)
    assert process.returncode == 0
