"""A driver that nobody sits in front of: its terminal hangs up, its reader ends, or it was sent into the background."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import stat
import subprocess
import termios
from pathlib import Path

import pytest
from little_cluster import cluster, write_site
from little_study import SURVEY, end, environment, run, start, until, write_study
from terminal import CONTROL, QUESTION, on_a_terminal

from orchestrator.cli.run import drive
from orchestrator.store.lease import read_holder
from orchestrator.studies.reader import read_study


def gated(folder: Path) -> Path:
    """A study whose trials wait for the file that is returned."""
    gate = folder / "gate"
    write_study(folder, environment={"GATE": str(gate)})
    return gate


def in_flight(folder: Path) -> None:
    """Wait until both trials run."""
    until(lambda: len(list((folder / "runs").rglob("attempt-1/stderr"))) == 2, "the trials do not start")


def log_of(folder: Path) -> Path:
    return folder / "runs/toy/driver.log"


def has_ended(folder: Path) -> bool:
    holder, alive = read_holder(folder / "runs/toy", now=0.0)
    return holder is not None and not alive


def test_after_a_hangup_the_driver_goes_on_in_its_log_and_a_file_still_gets_its_result(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    with (tmp_path / "result.json").open("w") as result:
        driver = subprocess.Popen(
            [*SURVEY, "run", "study.yaml", "--json"],
            cwd=tmp_path,
            env=environment(),
            stdout=result,
            stderr=subprocess.PIPE,
            text=True,
        )
    in_flight(tmp_path)
    driver.send_signal(signal.SIGHUP)
    until(log_of(tmp_path).exists, "no log")
    gate.touch()
    assert end(driver).code == 0
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["study"]["state"] == "done"
    said = log_of(tmp_path).read_text("utf-8")
    assert f"process {driver.pid} goes on in {log_of(tmp_path)}" in said
    assert "[2/2]" in said
    assert stat.S_IMODE(log_of(tmp_path).stat().st_mode) == 0o600


def test_a_terminal_that_is_closed_leaves_the_driver_and_its_jobs_running(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    ours, theirs = pty.openpty()
    driver = subprocess.Popen(
        [*SURVEY, "run", "study.yaml"],
        cwd=tmp_path,
        env=environment(TERM="xterm-256color"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no threads here; the terminal is its own
    )
    os.close(theirs)
    in_flight(tmp_path)
    os.close(ours)
    until(log_of(tmp_path).exists, "no log")
    gate.touch()
    assert driver.wait(timeout=60) == 0
    said = log_of(tmp_path).read_text("utf-8")
    assert "toy: done, 2 complete" in said
    assert not CONTROL.search(said)


def test_a_reader_that_ends_is_no_end_of_the_driver(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    driver = start(tmp_path, "run", "study.yaml")
    in_flight(tmp_path)
    assert driver.stderr is not None
    assert driver.stdout is not None
    driver.stderr.close()
    gate.touch()
    assert driver.wait(timeout=60) == 0
    assert driver.stdout.read().startswith("toy: done, 2 complete")
    driver.stdout.close()
    said = log_of(tmp_path).read_text("utf-8").splitlines()
    assert sum(line.startswith("trial 0: loss") for line in said) == 1
    assert sum(line.startswith("trial 1: loss") for line in said) == 1


class Hearing:
    """A driver that does nothing but get a hangup."""

    draining = False
    stopped = False

    def drain(self) -> None: ...

    def leave(self) -> None: ...

    async def run(self) -> str:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.05)
        return "ended"


@pytest.mark.parametrize(("before", "heard"), [(signal.SIG_DFL, 1), (signal.SIG_IGN, 0)])
def test_a_hangup_is_heard_unless_nohup_has_it_ignored(tmp_path: Path, before: signal.Handlers, heard: int) -> None:
    hangups: list[None] = []
    restored = signal.signal(signal.SIGHUP, before)
    try:
        assert drive(Hearing(), tmp_path, on_hangup=lambda: hangups.append(None)) == ("ended", 0)
        assert len(hangups) == heard
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, restored)


def test_a_detached_driver_runs_in_a_session_of_its_own_and_is_told_how_to_look_and_to_stop(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    root = tmp_path / "runs/toy"
    begun = run(tmp_path, "run", "study.yaml", "--detach")
    assert begun.code == 0, begun.err
    holder, alive = read_holder(root, now=0.0)
    assert holder is not None
    assert alive
    assert f"driven by process {holder.pid} on {holder.host}\n" in begun.out
    assert f"output: {log_of(tmp_path)}" in begun.out
    assert f"survey status {root}" in begun.out
    assert f"survey stop {root}" in begun.out
    assert os.getsid(holder.pid) == holder.pid
    assert os.readlink(f"/proc/{holder.pid}/fd/0") == os.devnull

    # One that cannot begin fails before our eyes.
    second = run(tmp_path, "run", "study.yaml", "--detach")
    assert second.code == 5
    assert "has ended already" in second.err
    assert f"is driven by process {holder.pid}" in second.err

    os.kill(holder.pid, signal.SIGTERM)
    until(lambda: has_ended(tmp_path), "the driver does not end")
    resumed = run(tmp_path, "resume", "--detach", "--json")
    assert resumed.code == 0, resumed.err
    said = json.loads(resumed.out)
    assert said["driver"]["under_way"] in {True, False}  # a busy machine may need longer
    assert said["driver"]["log"] == str(log_of(tmp_path))
    assert said["root"] == str(root)
    gate.touch()
    until(lambda: has_ended(tmp_path), "the driver does not end")
    assert read_study(root).state == "done"
    # Its last word comes after the lease is given back.
    until(lambda: "toy: done, 2 complete" in log_of(tmp_path).read_text("utf-8"), "the driver does not say so")
    words = log_of(tmp_path).read_text("utf-8")
    assert "[2/2]" in words
    assert not CONTROL.search(words)


def test_the_cost_is_asked_about_before_it_detaches(tmp_path: Path) -> None:
    write_study(tmp_path, resources={"gpus": 1})
    with cluster(tmp_path) as (_, path):
        site = str(write_site(tmp_path))
        code, _, seen = on_a_terminal(
            tmp_path, "run", "study.yaml", "--site", site, "--detach", answer="n\n", PATH=path
        )
    assert code == 130
    assert QUESTION in seen
    assert not (tmp_path / "runs").exists()
