"""The local queue: jobs that outlive their submitter, GPUs that are never shared, ends that are recorded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_orders import AGENT, gone, number_in, record, wait_for, write_order

from orchestrator import localq

LOCALQ = Path(localq.__file__)
UNTIL_GO = "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done"


class Queue:
    """One spool, its GPUs and its locks, used by the command line alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.gpus = "0,1"

    def run(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(LOCALQ), verb, "--spool", str(self.spool), *words],
            env={**os.environ, "SURVEY_LOCKS": str(self.root / "locks"), "SURVEY_GPUS": self.gpus},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def submit(self, name: str, script: str, gpus: int = 0) -> str:
        folder = self.folder(name)
        folder.mkdir(exist_ok=True)
        (folder / "job.sh").write_text(script)
        done = self.run("submit", "--name", name, "--gpus", str(gpus), "--output-dir", str(folder), f"{folder}/job.sh")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def folder(self, name: str) -> Path:
        return self.root / name

    def record(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.spool / f"{name}.json").read_text())
        return data

    def states(self, *ids: str) -> dict[str, str]:
        lines = self.run("status", *ids).stdout.splitlines()
        assert lines[0] == "ID STATE EXIT SIGNAL NAME SUBMITTED STARTED ENDED REASON"
        return {line.split()[0]: line.split()[1] for line in lines[1:]}

    def wait(self, name: str, state: str) -> None:
        wait_for(lambda: self.record(name)["state"] == state, f"state {state} of {name}")

    def begun(self, name: str) -> None:
        """Wait until the script runs and its keeper has said so."""
        wait_for(lambda: number_in(self.folder(name) / "pid"), f"start of {name}")
        self.wait(name, "running")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue; what still runs in the end is ended."""
    queue = Queue(tmp_path)
    yield queue
    for path in sorted(queue.spool.glob("*.json")):
        data = json.loads(path.read_text())
        if data["state"] in {"queued", "running"} and localq._start(data["pid"]) == data["start"]:
            os.kill(data["pid"], signal.SIGTERM)
            wait_for(lambda pid=data["pid"]: gone(pid), "the end of a keeper")  # type: ignore[misc]


def test_a_job_runs_and_its_end_is_recorded(queue: Queue) -> None:
    job = queue.submit("t1", "echo out; echo err >&2; pwd; exit 3")
    assert re.fullmatch(r"local-\d+-\d+-[0-9a-f]{8}", job)
    queue.wait("t1", "ended")
    header, line = queue.run("status", job).stdout.splitlines()
    row = dict(zip(header.split(), line.split(), strict=True))
    assert (row["ID"], row["STATE"], row["EXIT"], row["SIGNAL"], row["NAME"]) == (job, "ended", "3", "-", "t1")
    assert float(row["SUBMITTED"]) <= float(row["STARTED"]) <= float(row["ENDED"])
    assert (queue.folder("t1") / "job.log").read_text() == f"out\nerr\n{queue.folder('t1')}\n"


def test_the_record_is_there_before_the_id_is_said(queue: Queue) -> None:
    job = queue.submit("t1", UNTIL_GO)
    assert queue.record("t1")["id"] == job
    assert queue.run("find", "t1", "t2").stdout.splitlines()[1].startswith(job)
    (queue.folder("t1") / "go").touch()


def test_a_job_outlives_the_kill_of_its_submitter(queue: Queue) -> None:
    folder = queue.folder("t1")
    folder.mkdir()
    (folder / "job.sh").write_text(f"{UNTIL_GO}; exit 7")
    words = [sys.executable, "-I", "-S", str(LOCALQ), "submit", "--spool", str(queue.spool), "--name", "t1"]
    words += ["--output-dir", str(folder), f"{folder}/job.sh"]
    # A driver that has submitted and then hangs, in a process group that is killed as a whole.
    driver = subprocess.Popen(["sh", "-c", '"$@"; exec sleep 1000', "driver", *words], start_new_session=True)
    queue.begun("t1")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    job = queue.record("t1")["id"]
    assert queue.states(job) == {job: "running"}
    (folder / "go").touch()
    queue.wait("t1", "ended")
    assert queue.record("t1")["exit_code"] == 7


def test_a_name_is_used_once_for_ever(queue: Queue) -> None:
    job = queue.submit("t1", "exit 0")
    queue.wait("t1", "ended")
    again = queue.run("submit", "--name", "t1", str(queue.folder("t1") / "job.sh"))
    assert again.returncode == localq.EXIT_THERE_ALREADY
    assert again.stdout == ""
    assert job in again.stderr
    assert os.listdir(queue.spool / "ids") == [job]


def test_of_submits_that_race_for_a_name_one_is_taken(queue: Queue) -> None:
    script = queue.root / "job.sh"
    script.write_text("echo run >> runs")
    words = [sys.executable, "-I", "-S", str(LOCALQ), "submit", "--spool", str(queue.spool), "--name", "t1"]
    words += ["--output-dir", str(queue.root), str(script)]
    submits = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    for process in submits:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in submits) == [0, 3, 3, 3, 3, 3]
    queue.wait("t1", "ended")
    assert (queue.root / "runs").read_text() == "run\n"


def test_a_job_sees_its_own_gpus_and_its_id(queue: Queue) -> None:
    show = 'echo "[$CUDA_VISIBLE_DEVICES] $SURVEY_LOCAL_JOB"'
    queue.gpus = "3,GPU-ab/c"
    two, none = queue.submit("t1", show, gpus=2), queue.submit("t2", show)
    queue.wait("t1", "ended")
    queue.wait("t2", "ended")
    assert (queue.folder("t1") / "job.log").read_text() == f"[3,GPU-ab/c] {two}\n"
    assert (queue.folder("t2") / "job.log").read_text() == f"[] {none}\n"


def test_a_gpu_is_one_job_s_until_that_job_ends(queue: Queue) -> None:
    queue.gpus = "0"
    first = queue.submit("t1", UNTIL_GO, gpus=1)
    queue.begun("t1")
    second = queue.submit("t2", UNTIL_GO, gpus=1)
    assert queue.states(first, second) == {first: "running", second: "queued"}
    (queue.folder("t1") / "go").touch()
    queue.wait("t1", "ended")
    queue.begun("t2")
    assert queue.record("t2")["started"] >= queue.record("t1")["ended"] - 0.5
    (queue.folder("t2") / "go").touch()
    queue.wait("t2", "ended")


def test_a_gpu_stays_with_a_job_whose_keeper_was_killed(queue: Queue) -> None:
    queue.gpus = "0"
    first = queue.submit("t1", UNTIL_GO, gpus=1)
    queue.begun("t1")
    os.kill(queue.record("t1")["pid"], signal.SIGKILL)
    wait_for(lambda: gone(queue.record("t1")["pid"]), "the keeper's end")
    second = queue.submit("t2", "exit 0", gpus=1)
    assert queue.states(first, second) == {first: "running", second: "queued"}
    assert queue.run("cancel", first).returncode == 0
    queue.wait("t2", "ended")
    assert queue.states(first) == {first: "vanished"}


def test_a_job_that_needs_many_gpus_gets_them_in_its_turn(queue: Queue) -> None:
    holder = queue.submit("t1", UNTIL_GO, gpus=1)
    queue.begun("t1")
    queue.submit("t2", UNTIL_GO, gpus=2)
    wait_for(lambda: _locked(queue, "gpu-1"), "the free GPU's reservation")
    small = queue.submit("t3", "exit 0", gpus=1)
    assert queue.states(holder, small) == {holder: "running", small: "queued"}
    (queue.folder("t1") / "go").touch()
    queue.begun("t2")
    assert queue.states(small) == {small: "queued"}
    (queue.folder("t2") / "go").touch()
    queue.wait("t3", "ended")


def _locked(queue: Queue, name: str) -> bool:
    path = queue.root / "locks" / f"{name}.lock"
    if not path.exists():
        return False
    lock = localq._try_lock(str(path))
    if lock is not None:
        localq._unlock([lock])
    return lock is None


def test_a_job_that_needs_more_gpus_than_there_are_ends_at_once(queue: Queue) -> None:
    job = queue.submit("t1", "touch ran", gpus=3)
    queue.wait("t1", "ended")
    _, line = queue.run("status", job).stdout.splitlines()
    assert line.split()[1:4] == ["ended", "1", "-"]
    assert line.endswith("the job needs 3 GPU(s), this machine offers 2")
    assert "needs 3 GPU(s)" in (queue.folder("t1") / "job.log").read_text()
    assert not (queue.folder("t1") / "ran").exists()


def test_locks_in_a_folder_of_others_are_not_trusted(queue: Queue) -> None:
    (queue.root / "locks").mkdir(mode=0o755)
    job = queue.submit("t1", "touch ran", gpus=1)
    queue.wait("t1", "ended")
    assert "not a private folder" in queue.run("status", job).stdout
    assert not (queue.folder("t1") / "ran").exists()


def test_a_cancelled_job_may_say_its_last_words(queue: Queue) -> None:
    job = queue.submit("t1", "trap 'echo saved; exit 9' TERM; echo $$ > pid; while :; do sleep 0.01; done")
    queue.begun("t1")
    assert queue.run("cancel", job).returncode == 0
    queue.wait("t1", "cancelled")
    assert (queue.folder("t1") / "job.log").read_text().endswith("saved\n")
    assert queue.record("t1")["exit_code"] == 9


def test_the_agent_of_a_cancelled_job_reports_before_it_ends(queue: Queue) -> None:
    attempt = write_order(queue.root / "attempt-1", command="trap '' TERM; echo $$ > pid; sleep 1000", kill_grace=0.2)
    job = queue.submit("t1", f"exec {sys.executable} -I -S {AGENT} run {attempt}")
    wait_for(lambda: number_in(attempt / "pid"), "the program's start")
    assert queue.run("cancel", job).returncode == 0
    queue.wait("t1", "cancelled")
    report = record(attempt / "exit.json")
    assert (report["cause"], report["signal"], report["job_id"]) == ("signalled", signal.SIGKILL, job)
    assert gone(number_in(attempt / "pid") or 0)


def test_a_program_does_not_outlive_its_killed_agent(queue: Queue) -> None:
    attempt = write_order(queue.root / "attempt-1", command="echo $$ > pid; exec sleep 1000")
    queue.submit("t1", f"exec {sys.executable} -I -S {AGENT} run {attempt}")
    wait_for(lambda: number_in(attempt / "pid"), "the program's start")
    os.kill(record(attempt / "claim")["pid"], signal.SIGKILL)
    queue.wait("t1", "ended")
    assert queue.record("t1")["signal"] == signal.SIGKILL
    assert gone(number_in(attempt / "pid") or 0)


def test_a_job_that_waits_is_cancelled_before_it_starts(queue: Queue) -> None:
    queue.gpus = "0"
    queue.submit("t1", UNTIL_GO, gpus=1)
    queue.begun("t1")
    job = queue.submit("t2", "touch ran", gpus=1)
    assert queue.run("cancel", job).returncode == 0
    queue.wait("t2", "cancelled")
    assert queue.record("t2").get("started") is None
    (queue.folder("t1") / "go").touch()
    queue.wait("t1", "ended")
    assert not (queue.folder("t2") / "ran").exists()


def test_cancelling_what_has_ended_or_never_was_does_no_harm(queue: Queue) -> None:
    job = queue.submit("t1", "exit 0")
    queue.wait("t1", "ended")
    done = queue.run("cancel", job, "local-1-2-aabbccdd", "../t1")
    assert done.returncode == 0
    assert "no job local-1-2-aabbccdd" in done.stderr
    assert queue.states(job) == {job: "ended"}


def test_a_pid_that_another_process_has_now_is_not_the_job_s(queue: Queue) -> None:
    job = queue.submit("t1", "exit 0")
    queue.wait("t1", "ended")
    with subprocess.Popen(["sleep", "1000"]) as other:
        # All three may have begun within one tick of the clock: the job's processes had begun a second earlier.
        earlier = queue.record("t1")["start"] - os.sysconf("SC_CLK_TCK")
        changed = {**queue.record("t1"), "state": "running", "pid": other.pid, "child": other.pid}
        changed |= {"start": earlier, "child_start": earlier}
        (queue.spool / "t1.json").write_text(json.dumps(changed))
        assert queue.states(job) == {job: "vanished"}
        assert queue.run("cancel", job).returncode == 0
        assert other.poll() is None
        other.kill()


def test_nothing_of_a_job_stays_when_its_script_has_ended(queue: Queue) -> None:
    queue.submit(
        "t1",
        "setsid sh -c \"trap '' TERM; echo \\$\\$ > pid; while :; do sleep 0.05; done\" & "
        "while [ ! -s pid ]; do sleep 0.01; done; exit 5",
    )
    queue.wait("t1", "ended")
    assert queue.record("t1")["exit_code"] == 5
    assert gone(number_in(queue.folder("t1") / "pid") or 0)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"boot": "another", "host": os.uname().nodename}, "rebooted"),
        ({"boot": "another", "host": "login2"}, "unknown"),
        ({"pid": 1, "start": 1}, "vanished"),
    ],
)
def test_a_job_without_a_living_keeper_is_judged_by_what_can_be_proved(
    queue: Queue, changes: dict[str, Any], state: str
) -> None:
    job = queue.submit("t1", "exit 0")
    queue.wait("t1", "ended")
    changed = {**queue.record("t1"), "state": "running", **changes}
    changed.pop("child")
    (queue.spool / "t1.json").write_text(json.dumps(changed))
    assert queue.states(job) == {job: state}
    assert queue.run("cancel", job).returncode == (localq.EXIT_REFUSED if state == "unknown" else 0)


def test_a_keeper_whose_spool_was_deleted_ends_with_its_job(queue: Queue) -> None:
    queue.submit("t1", UNTIL_GO)
    queue.begun("t1")
    keeper = queue.record("t1")["pid"]
    shutil.rmtree(queue.spool)
    (queue.folder("t1") / "go").touch()
    wait_for(lambda: gone(keeper), "the keeper's end")


def test_old_jobs_are_forgotten_and_living_ones_are_not(queue: Queue) -> None:
    old, living = queue.submit("t1", "exit 0"), queue.submit("t2", UNTIL_GO)
    queue.wait("t1", "ended")
    assert queue.run("prune", "--days", "1").stdout == "0\n"
    (queue.spool / "t1.json").write_text(json.dumps({**queue.record("t1"), "ended": 1.0}))
    assert queue.run("prune", "--days", "1").stdout == "1\n"
    assert set(queue.states(old, living)) == {living}
    assert os.listdir(queue.spool / "ids") == [living]
    (queue.folder("t2") / "go").touch()
    queue.wait("t2", "ended")


def test_the_spool_is_private(queue: Queue) -> None:
    queue.submit("t1", "exit 0")
    queue.wait("t1", "ended")
    assert queue.spool.stat().st_mode & 0o777 == 0o700
    assert (queue.spool / "t1.json").stat().st_mode & 0o777 == 0o600
    assert (queue.folder("t1") / "job.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "--name", "../t1", "job.sh"],
        ["submit", "--name", "t1", "no-such-script.sh"],
        ["submit", "--name", "t1", "--gpus", "-1", "job.sh"],
        ["submit", "--name", "t1", "--output-dir", "/no/such/folder", "job.sh"],
        ["submit", "--nodes", "2", "--name", "t1", "job.sh"],
        ["submit", "--name", "t1"],
        ["prune"],
        ["status", "--spool"],
        ["dance"],
    ],
)
def test_a_wrong_command_line_is_refused_with_words(queue: Queue, words: list[str]) -> None:
    (queue.root / "job.sh").write_text("exit 0")
    done = queue.run(words[0], *[str(queue.root / word) if word == "job.sh" else word for word in words[1:]])
    assert (done.returncode, done.stdout) == (localq.EXIT_USAGE, "")
    assert done.stderr.startswith("localq: ")


def test_a_spool_that_cannot_be_written_is_a_refusal_for_now(queue: Queue) -> None:
    queue.spool.write_text("not a folder")
    (queue.root / "job.sh").write_text("exit 0")
    done = queue.run("submit", "--name", "t1", str(queue.root / "job.sh"))
    assert done.returncode == localq.EXIT_FAILED
    assert done.stderr
