"""The agent keeps the walltime and passes signals on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from agent_orders import gone, number_in, record, start, wait_for, write_order

DEAF = "trap '' TERM INT; echo $$ > pid; while :; do sleep 0.05; done"
OBEDIENT = "echo $$ > pid; while [ ! -e stop ]; do sleep 0.01; done; cat stop"
POLITE = "trap 'echo saved; exit 9' TERM; echo $$ > pid; while :; do sleep 0.01; done"


def _begun(attempt: Path) -> int:
    wait_for(lambda: number_in(attempt / "pid"), "the program's start")
    return number_in(attempt / "pid") or 0


def test_a_program_is_asked_to_stop_before_its_time_is_over(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=OBEDIENT, walltime=4, margin=3.9, kill_grace=0.2)
    with start(attempt) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert (attempt / "stdout").read_text() == "walltime\n"
    assert record(attempt / "exit.json")["cause"] == ""


def test_a_warning_signal_is_sent_only_where_the_order_asks_for_it(tmp_path: Path) -> None:
    listen = "trap 'echo warned; exit 0' USR2; echo $$ > pid; while :; do sleep 0.01; done"
    times = {"walltime": 2, "margin": 1.5, "kill_grace": 0.1}
    warned = write_order(tmp_path / "a", command=listen, warn_signal="SIGUSR2", **times)
    silent = write_order(tmp_path / "b", command=listen, **times)
    with start(warned) as one, start(silent) as two:
        one.communicate(timeout=60)
        two.communicate(timeout=60)
    assert (warned / "stdout").read_text() == "warned\n"
    assert record(warned / "exit.json")["cause"] == ""
    assert (silent / "stdout").read_text() == ""
    assert record(silent / "exit.json")["cause"] == "timeout"


def test_a_program_that_dies_of_the_warning_signal_met_its_walltime(tmp_path: Path) -> None:
    times = {"walltime": 1, "margin": 0.9, "kill_grace": 0.1}
    bare = write_order(tmp_path / "a", command=["sleep", "60"], warn_signal="SIGUSR1", **times)
    shell = write_order(tmp_path / "b", command="(sleep 60); exit $?", warn_signal="SIGUSR1", **times)
    with start(bare) as one, start(shell) as two:
        one.communicate(timeout=60)
        two.communicate(timeout=60)
    for attempt in (bare, shell):
        report = record(attempt / "exit.json")
        assert report["cause"] == "timeout"
        assert "no handler for SIGUSR1" in report["message"]


def test_an_order_that_asks_for_a_warning_by_another_signal_is_refused(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command="touch ran", warn_signal="SIGKILL")
    with start(attempt) as process:
        process.communicate(timeout=60)
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("cannot-start", 126)
    assert "SIGKILL" in report["message"]
    assert not (attempt / "ran").exists()


def test_the_scheduler_s_end_of_the_job_warns_a_program_whose_order_has_no_walltime(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=OBEDIENT, walltime=None, margin=60, kill_grace=0.1)
    with start(attempt, environment={"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": f"{time.time() + 3:.0f}"}) as process:
        process.communicate(timeout=60)
    assert (attempt / "stdout").read_text() == "walltime\n"
    assert record(attempt / "exit.json")["cause"] == ""


SAVE = "mkdir -p ../checkpoint/step-1 && echo state > ../checkpoint/step-1/state"


def test_the_report_tells_when_a_checkpoint_was_written(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "attempt-1", command=SAVE)
    with start(attempt) as process:
        process.communicate(timeout=60)
    assert record(attempt / "exit.json")["checkpoint"] == (tmp_path / "checkpoint/step-1/state").stat().st_mtime


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "rm ../checkpoint/newer",
        "mkdir ../checkpoint/.half && echo x > ../checkpoint/.half/state && echo x > ../checkpoint/.half-written",
    ],
)
def test_a_checkpoint_of_an_earlier_attempt_a_removed_and_a_half_written_one_are_no_news(
    tmp_path: Path, command: str
) -> None:
    attempt = write_order(tmp_path / "attempt-2", command=command)
    (tmp_path / "checkpoint").mkdir()
    for number, name in enumerate(("older", "newer")):
        (tmp_path / "checkpoint" / name).touch()
        os.utime(tmp_path / "checkpoint" / name, (1e9 + number, 1e9 + number))
    with start(attempt) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert record(attempt / "exit.json")["checkpoint"] is None


def test_a_program_killed_at_its_walltime_has_its_checkpoint_told(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "attempt-1", command=f"{SAVE}; {DEAF}", walltime=1, margin=0.5, kill_grace=0.1)
    with start(attempt) as process:
        process.communicate(timeout=60)
    report = record(attempt / "exit.json")
    assert (report["cause"], report["signal"]) == ("timeout", 9)
    assert report["checkpoint"] is not None


def test_a_program_whose_time_is_over_may_save_its_state(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=POLITE, walltime=2, margin=0.2, kill_grace=10)
    with start(attempt) as process:
        process.communicate(timeout=60)
    assert process.returncode == 9
    assert (attempt / "stdout").read_text() == "saved\n"
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("timeout", 9)
    assert "2 s" in report["message"]


def test_a_program_that_will_not_end_is_killed_before_the_walltime_is_over(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=DEAF, walltime=1.5, margin=0.5, kill_grace=0.1)
    with start(attempt) as process:
        process.communicate(timeout=60)
    assert process.returncode == 128 + 9
    report = record(attempt / "exit.json")
    assert (report["cause"], report["signal"]) == ("timeout", 9)
    assert gone(number_in(attempt / "pid") or 0)


def test_the_scheduler_s_own_end_of_the_job_counts_where_it_comes_first(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=POLITE, walltime=86400, margin=1, kill_grace=0.1)
    with start(attempt, environment={"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": f"{time.time() + 3:.0f}"}) as process:
        process.communicate(timeout=60)
    assert record(attempt / "exit.json")["cause"] == "timeout"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_ends_the_job_reaches_the_program_and_is_reported(tmp_path: Path, number: signal.Signals) -> None:
    attempt = write_order(tmp_path / "a", command="echo $$ > pid; exec sleep 1000")
    with start(attempt) as process:
        program = _begun(attempt)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    report = record(attempt / "exit.json")
    assert (report["cause"], report["signal"]) == ("signalled", number)
    assert number.name in report["message"]
    assert gone(program)


def test_a_whole_group_ends_with_the_job_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    attempt = write_order(
        tmp_path / "a",
        command=f"trap '' TERM; sh -c '{DEAF.replace(chr(39), '').replace('pid', 'child')}' & {DEAF}",
        kill_grace=0.2,
    )
    with start(attempt) as process:
        program = _begun(attempt)
        wait_for(lambda: number_in(attempt / "child"), "the grandchild's start")
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + 9
    assert record(attempt / "exit.json")["cause"] == "signalled"
    assert gone(program)
    assert gone(number_in(attempt / "child") or 0)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_other_signals_are_passed_on_and_end_nothing(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    attempt = write_order(
        tmp_path / "a", command=f"trap 'echo {name}; exit 4' {name}; echo $$ > pid; while :; do sleep 0.01; done"
    )
    with start(attempt) as process:
        _begun(attempt)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 4
    assert (attempt / "stdout").read_text() == f"{name}\n"
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("", 4)
    assert (attempt / "stop").exists() == (number == signal.SIGXCPU)


def test_a_signal_that_comes_before_the_program_starts_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from orchestrator import agent

    attempt = write_order(tmp_path / "a", command="touch ran")
    take = agent._take

    def signalled(directory: str, tag: str) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return take(directory, tag)

    monkeypatch.setattr(agent, "_take", signalled)
    assert agent.run([str(attempt)]) == 128 + signal.SIGTERM
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("signalled", None)
    assert "before the command was started" in report["message"]
    assert not (attempt / "ran").exists()


def test_a_signal_that_comes_while_the_program_is_being_started_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from orchestrator import agent

    attempt = write_order(tmp_path / "a", command="exec sleep 1000")
    spawn = agent._Attempt._spawn

    def signalled(self: agent._Attempt, argv: list[str]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        spawn(self, argv)

    monkeypatch.setattr(agent._Attempt, "_spawn", signalled)
    assert agent.run([str(attempt)]) == 128 + signal.SIGTERM
    report = record(attempt / "exit.json")
    assert (report["cause"], report["signal"]) == ("signalled", signal.SIGTERM)


def test_a_signal_that_reaches_the_program_before_the_agent_is_one_from_outside_all_the_same(tmp_path: Path) -> None:
    directory = write_order(tmp_path / "a", command=["sh", "-c", 'echo $$ > "$SURVEY_DIR/pid"; exec sleep 60'])
    process = start(directory)
    wait_for(lambda: (directory / "pid").exists() and (directory / "pid").read_text().strip(), "the program")
    pid = int((directory / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the program's end")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    report = record(directory / "exit.json")
    assert (report["cause"], report["signal"]) == ("signalled", signal.SIGTERM)
