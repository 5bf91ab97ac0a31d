"""A driver that nobody sits in front of: its terminal hangs up, its reader ends, or it was sent into the background."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import stat
import subprocess
import termios
from pathlib import Path

from little_cluster import cluster, write_site
from little_study import SURVEY, end, environment, run, start, until, write_study
from terminal import CONTROL, QUESTION, on_a_terminal

from orchestrator.search.reader import read_study
from orchestrator.store.lease import read_holder


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


def test_a_driver_under_nohup_keeps_its_output_where_it_is(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    driver = subprocess.Popen(
        [*SURVEY, "run", "study.yaml"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509  what nohup does
    )
    in_flight(tmp_path)
    driver.send_signal(signal.SIGHUP)
    gate.touch()
    ended = end(driver)
    assert ended.code == 0
    assert ended.out.startswith("toy: done, 2 complete")
    assert not log_of(tmp_path).exists()


def test_a_detached_driver_runs_in_a_session_of_its_own_and_is_told_how_to_look_and_to_stop(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    begun = run(tmp_path, "run", "study.yaml", "--detach")
    assert begun.code == 0, begun.err
    root = tmp_path / "runs/toy"
    holder, alive = read_holder(root, now=0.0)
    assert holder is not None
    assert alive
    assert f"driven by process {holder.pid} on {holder.host}\n" in begun.out
    assert f"output: {log_of(tmp_path)}" in begun.out
    assert f"survey status {root}" in begun.out
    assert f"survey stop {root}" in begun.out
    assert os.getsid(holder.pid) == holder.pid
    assert os.readlink(f"/proc/{holder.pid}/fd/0") == os.devnull
    gate.touch()
    until(lambda: has_ended(tmp_path), "the driver does not end")
    assert read_study(root).state == "done"
    said = log_of(tmp_path).read_text("utf-8")
    assert "[2/2]" in said
    assert "toy: done, 2 complete" in said
    assert not CONTROL.search(said)


def test_resume_detaches_too_and_says_so_in_json(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    driver = start(tmp_path, "run", "study.yaml")
    in_flight(tmp_path)
    driver.send_signal(signal.SIGTERM)
    assert end(driver).code == 143
    begun = run(tmp_path, "resume", "--detach", "--json")
    assert begun.code == 0, begun.err
    said = json.loads(begun.out)
    assert said["driver"]["under_way"] is True
    assert said["root"] == str(tmp_path / "runs/toy")
    gate.touch()
    until(lambda: has_ended(tmp_path), "the driver does not end")
    assert read_study(tmp_path / "runs/toy").state == "done"


def test_a_detached_driver_that_cannot_begin_fails_before_our_eyes(tmp_path: Path) -> None:
    gate = gated(tmp_path)
    driver = start(tmp_path, "run", "study.yaml")
    in_flight(tmp_path)
    second = run(tmp_path, "run", "study.yaml", "--detach")
    assert second.code == 5
    assert "has ended already" in second.err
    assert f"is driven by process {driver.pid}" in second.err
    gate.touch()
    assert end(driver).code == 0


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
