"""One attempt of several is ended by the driver's file, and those beside it go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_orders import carry_out, record, start, wait_for, write_order

from orchestrator import agent

UNTIL_GO = "echo on > began; while [ ! -e go ]; do sleep 0.05; done"


def _order(directory: Path, command: str) -> Path:
    return write_order(directory, command=command, workdir=str(directory), tag=f"t00007-{directory.name}")


def test_an_attempt_that_is_cancelled_ends_and_the_one_beside_it_does_not(tmp_path: Path) -> None:
    one, other = (_order(tmp_path / name, UNTIL_GO) for name in ("one", "other"))
    with start(one, other) as process:
        wait_for(lambda: (one / "began").exists() and (other / "began").exists(), "the start of both")
        (one / "cancel").write_text("cancel\n")
        wait_for((one / "exit.json").exists, "the end of the cancelled attempt")
        assert not (other / "exit.json").exists()
        (other / "go").touch()
        process.communicate(timeout=60)
    report = record(one / "exit.json")
    assert (report["cause"], report["message"], report["signal"]) == ("signalled", agent.CANCELLED, 15)
    assert (record(other / "exit.json")["exit_code"], record(other / "exit.json")["cause"]) == (0, "")


def test_an_attempt_that_was_cancelled_before_its_job_began_is_not_started(tmp_path: Path) -> None:
    one, other = (_order(tmp_path / name, "touch ran") for name in ("one", "other"))
    (one / "cancel").write_text("cancel\n")
    code, _ = carry_out(one, other)
    assert code == 0
    assert not (one / "ran").exists()
    assert (other / "ran").exists()
    assert (record(one / "exit.json")["cause"], record(one / "exit.json")["exit_code"]) == ("signalled", None)


def test_a_program_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo on > began; while :; do sleep 0.05; done"
    one = write_order(tmp_path / "one", command=deaf, workdir=str(tmp_path / "one"), kill_grace=0.2)
    other = _order(tmp_path / "other", "true")
    with start(one, other) as process:
        wait_for((one / "began").exists, "the start")
        (one / "cancel").write_text("cancel\n")
        process.communicate(timeout=60)
    assert (record(one / "exit.json")["cause"], record(one / "exit.json")["signal"]) == ("signalled", 9)


@pytest.mark.parametrize(
    ("environment", "job_id"),
    [
        ({"SLURM_JOB_ID": "41", "SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "3"}, "36_3"),
        ({"SLURM_JOB_ID": "41"}, "41"),
        ({"PBS_JOBID": "16[1].server"}, "16[1].server"),
        ({"PJM_JOBID": "12345", "PJM_BULKNUM": "1"}, "12345[1]"),
        ({"JOB_ID": "2", "SGE_TASK_ID": "1"}, "2.1"),
    ],
)
def test_an_element_of_an_array_claims_under_the_id_that_lists_show(
    tmp_path: Path, environment: dict[str, str], job_id: str
) -> None:
    attempt = _order(tmp_path / "a", "true")
    carry_out(attempt, environment=environment)
    assert record(attempt / "claim")["job_id"] == job_id
