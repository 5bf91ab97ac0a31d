"""Whole studies on real servers that restart, go away and cut connections; nothing is lost, nothing run twice."""

from __future__ import annotations

import signal
import time

import pytest
from database_servers import CANARY, Server
from database_study import MakeStudy, wait_for

pytestmark = pytest.mark.system


def test_a_study_runs_to_its_end_and_no_file_of_it_holds_the_password(server: Server, make_study: MakeStudy) -> None:
    study = make_study(trials=4)
    assert study.run() == 0, study.said
    study.assert_nothing_lost_nothing_twice(4)
    files = [path for path in study.root.rglob("*") if path.is_file()]
    assert {"driver.log", "study.yaml", "snapshot.json", "events.jsonl", "provenance.json"} <= {
        path.name for path in files
    }
    words = [word.encode() for word in (CANARY, CANARY.replace("%2F", "/"))]
    assert [path for path in files if any(word in path.read_bytes() for word in words)] == []
    assert study.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="restarted", marks=pytest.mark.slow), pytest.param(signal.SIGKILL, id="killed")],
)
def test_a_server_that_is_started_again_in_mid_study_is_no_loss(
    server: Server, make_study: MakeStudy, number: signal.Signals
) -> None:
    study = make_study()
    driver = study.driver()
    for executions in (2, 5):
        study.wait_for_executions(executions)
        server.stop(number)
        server.start()
    assert driver.wait(timeout=120) == 0, study.said
    study.assert_nothing_lost_nothing_twice(8)


def test_connections_that_are_cut_again_and_again_are_made_again(server: Server, make_study: MakeStudy) -> None:
    study = make_study(trials=10)
    driver = study.driver()
    study.wait_for_executions(1)
    cut, seen = 0, -1
    while cut < 20 and driver.poll() is None:
        # No faster than the study gets on: a server that never answers is the next test's.
        if (happened := study.happened()) != seen:
            seen, cut = happened, cut + bool(server.drop_sessions())
        time.sleep(0.02)
    assert driver.wait(timeout=120) == 0, study.said
    assert cut > 5
    study.assert_nothing_lost_nothing_twice(10)


def test_a_server_that_is_away_for_a_while_is_waited_for_aloud(server: Server, make_study: MakeStudy) -> None:
    study = make_study()
    driver = study.driver()
    study.wait_for_executions(2)
    server.stop()
    gone = time.monotonic()
    wait_for("a word on the server", lambda: "waiting for it" in study.said)
    wait_for("readers to see it", lambda: study.shown()["state"] == "paused")
    assert "cannot be reached" in study.shown()["message"]
    time.sleep(max(0.0, 10 - (time.monotonic() - gone)))
    assert driver.poll() is None, study.said
    server.start()
    assert driver.wait(timeout=120) == 0, study.said
    assert "cannot be reached" in study.said
    assert "the database server is back after" in study.said
    assert CANARY not in study.said
    study.assert_nothing_lost_nothing_twice(8)


@pytest.mark.slow
def test_a_driver_ended_while_the_server_is_away_leaves_a_study_that_goes_on(
    server: Server, make_study: MakeStudy
) -> None:
    study = make_study()
    driver = study.driver()
    study.wait_for_executions(2)
    server.stop()
    wait_for("a word on the server", lambda: "waiting for it" in study.said)
    driver.terminate()
    assert driver.wait(timeout=60) == 143, study.said
    # A start without a server is told at once: somebody sits there.
    assert study.run() == 4, study.said
    assert "see that the server is up" in study.said
    server.start()
    assert study.run() == 0, study.said
    study.assert_nothing_lost_nothing_twice(8)


def test_a_second_driver_is_refused_and_told_who_has_the_study(server: Server, make_study: MakeStudy) -> None:
    study = make_study(trials=2, held=True)
    first = study.driver()
    study.wait_for_executions(1)
    who = f"process {first.pid} of "
    assert study.run() == 5, study.said
    assert f"is driven by {who}" in study.said
    # From another folder no lease is in the way: the server's lock is.
    elsewhere = make_study(database=study.database)
    elsewhere.file.write_text(study.file.read_text())
    assert elsewhere.run() == 5, elsewhere.said
    assert f"is driven by {who}" in elsewhere.said
    assert "of the server" in elsewhere.said
    study.release()
    assert first.wait(timeout=120) == 0, study.said
    study.assert_nothing_lost_nothing_twice(2)


@pytest.mark.slow
def test_a_password_that_is_changed_in_mid_study_pauses_it(server: Server, make_study: MakeStudy) -> None:
    study = make_study()
    driver = study.driver()
    study.wait_for_executions(2)
    try:
        server.new_password("another")
        server.drop_sessions()
        assert driver.wait(timeout=60) == 4, study.said
        assert "cannot be used" in study.said
        assert CANARY not in study.said
        assert study.run("another") == 0, study.said
    finally:
        server.new_password(CANARY.replace("%2F", "/"))
    study.assert_nothing_lost_nothing_twice(8)
