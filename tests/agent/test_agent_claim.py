"""One attempt is run by one agent: claims, restarts, revocations."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_orders import AGENT, carry_out, record, start, write_order

from orchestrator import agent

APPEND = "echo run >> runs"


def _runs(attempt: Path) -> int:
    path = attempt / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _claim(attempt: Path, **changes: Any) -> None:
    mine = agent._claimant("t00007-k3j9x2q8", "agent")
    (attempt / "claim").write_text(json.dumps({**mine, **changes}))


def _dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_of_agents_that_race_for_an_attempt_one_runs_it(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    agents = [start(attempt, environment={"SLURM_JOB_ID": str(number)}) for number in range(6)]
    said = [process.communicate(timeout=60)[1] for process in agents]
    assert [process.returncode for process in agents] == [0] * 6
    assert _runs(attempt) == 1
    assert sum("not run: claimed by agent" in words for words in said) == 5


def test_a_claim_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = write_order(tmp_path / "a")
    link, seen = os.link, []

    def look_first(source: str, target: str) -> None:
        seen.append((Path(target).exists(), json.loads(Path(source).read_text())["tag"]))
        link(source, target)

    monkeypatch.setattr(os, "link", look_first)
    assert agent.run([str(attempt)]) == 0
    assert seen == [(False, "t00007-k3j9x2q8")]
    assert set(record(attempt / "claim")) == {"tag", "by", "job_id", "restarts", "host", "boot", "pid", "time"}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_has_claims_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    attempt = write_order(tmp_path / "a", command=APPEND)
    assert agent.run([str(attempt)]) == 0
    assert agent.run([str(attempt)]) == 0
    assert _runs(attempt) == 1
    assert not agent.revoke(str(attempt), "t00007-k3j9x2q8")


def test_a_link_that_was_made_though_the_server_denies_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def answer_lost(source: str, target: str) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", answer_lost)
    attempt = write_order(tmp_path / "a", command=APPEND)
    assert agent.run([str(attempt)]) == 0
    assert _runs(attempt) == 1


def test_a_torn_claim_is_someone_s(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    (attempt / "claim").write_text('{"tag": "t000')
    code, said = carry_out(attempt)
    assert code == 0
    assert "not run" in said
    assert _runs(attempt) == 0
    assert not agent.revoke(str(attempt), "t00007-k3j9x2q8")


def test_a_job_that_its_scheduler_started_again_goes_on(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=f"{APPEND}; [ $(wc -l < runs) = 2 ] || kill -TERM $PPID; sleep 0.5")
    slurm = {"SLURM_JOB_ID": "4711"}
    assert carry_out(attempt, environment=slurm)[0] == 128 + 15
    assert record(attempt / "exit.json")["cause"] == "signalled"
    assert carry_out(attempt, environment=slurm)[0] == 0
    assert _runs(attempt) == 1
    assert carry_out(attempt, environment={**slurm, "SLURM_RESTART_COUNT": "1"})[0] == 0
    assert _runs(attempt) == 2
    report = record(attempt / "exit.json")
    assert (report["restarts"], report["exit_code"]) == (1, 0)
    lines = (attempt / "restarts.jsonl").read_text().splitlines()
    assert [json.loads(line)["claim"]["restarts"] for line in lines] == [1]
    assert json.loads(lines[0])["exit"]["cause"] == "signalled"
    assert record(attempt / "claim")["restarts"] == 1


def test_of_two_starters_of_one_restart_one_goes_on(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    _claim(attempt, job_id="4711", pid=_dead_pid())
    again = {"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "2"}
    agents = [start(attempt, environment=again) for _ in range(4)]
    for process in agents:
        process.communicate(timeout=60)
    assert _runs(attempt) == 1
    assert len((attempt / "restarts.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PBS_JOBID": "12.server"},
        {"PJM_JOBID": "12.server"},
        {"JOB_ID": "12.server", "SGE_TASK_ID": "undefined"},
    ],
)
def test_where_restarts_are_not_counted_the_claimant_must_be_dead(tmp_path: Path, environment: dict[str, str]) -> None:
    living = write_order(tmp_path / "living", command=APPEND)
    _claim(living, job_id="12.server", pid=os.getpid())
    dead = write_order(tmp_path / "dead", command=APPEND)
    _claim(dead, job_id="12.server", pid=_dead_pid())
    elsewhere = write_order(tmp_path / "elsewhere", command=APPEND)
    _claim(elsewhere, job_id="12.server", pid=os.getpid(), host="another")
    for attempt in (living, dead, elsewhere):
        assert carry_out(attempt, environment=environment)[0] == 0
    assert [_runs(attempt) for attempt in (living, dead, elsewhere)] == [0, 1, 1]
    assert record(dead / "exit.json")["restarts"] == 1


@pytest.mark.parametrize(
    ("environment", "job_id"),
    [
        ({"SLURM_JOB_ID": "7", "SURVEY_LOCAL_JOB": "local-1-2-aabbccdd"}, "local-1-2-aabbccdd"),
        ({"PJM_JOBID": "7", "PJM_BULKNUM": "3"}, "7[3]"),
        ({"JOB_ID": "7", "SGE_TASK_ID": "3"}, "7.3"),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, "7"),
        ({"PBS_JOBID": "7[3].server"}, "7[3].server"),
        ({}, ""),
    ],
)
def test_a_claim_names_the_innermost_job(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job_id: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert agent._claimant("t", "agent")["job_id"] == job_id
    assert agent._claimant("t", "driver")["job_id"] == ""


def test_a_job_without_an_id_never_continues_another(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    _claim(attempt, job_id="", pid=_dead_pid())
    assert carry_out(attempt)[0] == 0
    assert _runs(attempt) == 0


def test_an_attempt_that_has_ended_is_not_run_again_by_a_restart(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    assert carry_out(attempt, environment={"SLURM_JOB_ID": "4711"})[0] == 0
    code, said = carry_out(attempt, environment={"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "1"})
    assert code == 0
    assert "has ended already" in said
    assert _runs(attempt) == 1
    assert record(attempt / "exit.json")["restarts"] == 0


@pytest.mark.parametrize(("asked", "kept"), [("walltime\n", False), ("stopped by the pruner", True)])
def test_a_restart_forgets_the_last_walltime_but_not_the_driver_s_wish(tmp_path: Path, asked: str, kept: bool) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    _claim(attempt, job_id="4711", pid=_dead_pid())
    (attempt / "stop").write_text(asked)
    assert carry_out(attempt, environment={"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "1"})[0] == 0
    assert (attempt / "stop").exists() is kept


def test_a_revoked_attempt_is_never_run(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=APPEND)
    assert agent.revoke(str(attempt), "t00007-k3j9x2q8")
    assert agent.revoke(str(attempt), "t00007-k3j9x2q8")
    code, said = carry_out(attempt)
    assert code == 0
    assert "claimed by driver" in said
    assert _runs(attempt) == 0


def test_a_claimed_attempt_cannot_be_revoked(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a")
    assert carry_out(attempt)[0] == 0
    assert not agent.revoke(str(attempt), "t00007-k3j9x2q8")
    assert record(attempt / "claim")["by"] == "agent"


def test_an_attempt_whose_folder_is_not_there_can_be_revoked_all_the_same(tmp_path: Path) -> None:
    attempt = tmp_path / "deep" / "a"
    said = subprocess.run(
        [sys.executable, "-I", "-S", str(AGENT), "revoke", str(attempt), "t1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "true\n"
    assert record(attempt / "claim")["by"] == "driver"
    write_order(attempt, tag="t1", command=APPEND)
    assert carry_out(attempt)[0] == 0
    assert _runs(attempt) == 0


def test_an_agent_that_races_with_a_revocation_either_runs_or_does_not(tmp_path: Path) -> None:
    for number in range(3):
        attempt = write_order(tmp_path / str(number), command=APPEND)
        with start(attempt) as process:
            revoked = agent.revoke(str(attempt), "t00007-k3j9x2q8")
            process.communicate(timeout=60)
        assert _runs(attempt) == (0 if revoked else 1)
