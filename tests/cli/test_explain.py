"""`survey explain` says in sentences who drives a study, why no more of it runs, why a trial was run again."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from little_study import content, write_study
from survey_command import Survey, command

from orchestrator.clock import SystemClock
from orchestrator.jobs.life import ABORTED
from orchestrator.model import Attempt, Outcome, Verdict
from orchestrator.search.requests import Stop, ask_to_stop
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger, new_tag
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.snapshot import publish


def ago(seconds: float = 0.0) -> float:
    """When that was; asked for in each test, since the suite runs for longer than a minute."""
    return time.time() - seconds


class Scene:
    """A study's folder as a driver might have left it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "runs/toy"
        self.root.mkdir(parents=True)
        write_study(self.root, trials=4)
        self.ledger = Ledger(self.root)
        self.trials: list[TrialRecord] = []
        self.events: list[Mapping[str, Any]] = []
        self.publish("running")

    def publish(self, state: str, message: str = "", **changes: Any) -> None:
        record = StudyRecord(
            name="toy",
            objectives=("loss",),
            directions=("minimize",),
            space={},
            sampler={"name": "random"},
            planned=4,
            parallel=2,
            site="mycluster",
            state=state,
            message=message,
            updated=ago(),
            root=str(self.root),
            trials=tuple(self.trials),
        )
        publish(self.root, dataclasses.replace(record, **changes))
        text = "".join(json.dumps(event) + "\n" for event in self.events)
        (self.root / "events.jsonl").write_text(text + '{"event": "torn', "utf-8")

    def event(self, name: str, **fields: Any) -> None:
        self.events.append({"time": ago(), "event": name, **fields})

    def attempt(self, number: int, **changes: Any) -> Attempt:
        """One more attempt of a trial; the ``verdict`` it ended with, if it has."""
        key = f"{number:05d}"
        planned = self.ledger.plan(key, new_tag(number), "1-x", {"x": 1}, ago(7200))
        self.event("planned", key=key, attempt=planned.number, tag=planned.tag)
        verdict, reason = changes.pop("verdict", None), changes.pop("reason", "")
        outcome = None if verdict is None else Outcome(key=key, verdict=verdict, reason=reason, ended=ago(600))
        attempt = dataclasses.replace(planned, outcome=outcome, **changes)
        self.ledger.save(attempt)
        return attempt

    def trial(self, number: int, state: str, **fields: Any) -> None:
        self.trials.append(TrialRecord(number=number, state=state, **fields))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def lease(scene: Scene) -> Iterator[Lease]:
    with Lease.acquire(scene.root, SystemClock()) as held:
        yield held


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_a_study_whose_slots_are_taken_says_by_what_and_what_comes_next(
    scene: Scene, lease: Lease, survey: Survey
) -> None:
    scene.attempt(0, job_id="71", submitted=ago(7200))
    scene.event("state", key="00000", state="queued", word="PENDING", message="(Priority)", stuck=False)
    scene.attempt(1, job_id="72", submitted=ago(300))
    scene.event("progress", key="00001", step=7, value=0.8125)
    scene.trial(0, "running", job_id="71")
    scene.trial(1, "running", job_id="72")
    scene.publish("running")
    said = survey("explain").out.splitlines()
    assert said[0] == "toy on mycluster:"
    assert said[1].startswith(f"It is driven by process {os.getpid()} of ")
    assert said[2] == "Of 4 trials 0 have ended (none)."
    assert said[3] == "Trial 0: submitted as job 71 2.0 h ago; queued: the scheduler says PENDING (Priority)."
    assert said[4].startswith("Trial 1: it runs as job 72, submitted 5 min ago; its latest report is step 7: 0.8125.")
    assert said[5] == "No new trials are begun: all 2 slots are taken."
    assert said[6].startswith("Next: each trial that ends makes room for a new one")


def test_a_job_that_may_never_start_is_told_in_the_schedulers_words(scene: Scene, lease: Lease, survey: Survey) -> None:
    scene.attempt(0, job_id="71", submitted=ago(60))
    scene.event("state", key="00000", state="held", word="PENDING", message="(BadConstraints)", stuck=True)
    scene.trial(0, "running", job_id="71")
    scene.event("waiting", message="the site's limit of queries a minute is used up by your studies")
    scene.publish("running")
    said = survey("explain").out
    assert "it may never start: the scheduler says PENDING (BadConstraints)." in said
    assert "1 slot is free: the site's limit of queries a minute is used up by your studies." in said


def test_a_driver_that_was_asked_to_drain_says_so(scene: Scene, lease: Lease, survey: Survey) -> None:
    scene.trial(0, "running")
    scene.attempt(0, job_id="71", submitted=ago())
    scene.event("started", trials=4)
    ask_to_stop(scene.root, Stop.DRAIN, lease.token, now=ago())
    scene.publish("running")
    assert " asked it to drain " in survey("explain").out
    scene.event("draining")
    scene.publish("running")
    said = survey("explain").out
    assert "No new trials are begun: the driver was asked to drain." in said
    assert "Next: the driver ends with the last of the 1 in flight" in said


def test_a_study_without_a_driver_says_how_it_ended_and_how_it_goes_on(scene: Scene, survey: Survey) -> None:
    with Lease.acquire(scene.root, SystemClock()):
        pass
    scene.attempt(0, job_id="71", submitted=ago(60))
    scene.attempt(1)
    scene.trial(0, "running", job_id="71")
    scene.trial(1, "running")
    scene.publish("running")
    said = survey("explain").out
    assert "No driver runs: the last one (process " in said
    assert "ended in order" in said
    assert f"the next driver looks for a job called {scene.ledger.attempts('00001')[0].tag}" in said
    assert f"`survey resume {scene.root}` finds the 2 in flight again, and begins 2 more" in said


def test_a_driver_that_was_killed_is_told_apart_from_one_that_ended(scene: Scene, survey: Survey) -> None:
    with Lease.acquire(scene.root, SystemClock()):
        pass
    shown = json.loads((scene.root / "driver.json").read_text("utf-8"))
    dead = {**shown, "boot_id": "an-earlier-boot", "released": None}
    (scene.root / "driver.json").write_text(json.dumps(dead), "utf-8")
    said = survey("explain").out
    assert "was killed, or its machine was restarted" in said
    assert "Nothing is lost." in said


def test_a_pause_is_told_with_its_words_and_whether_it_ends_by_itself(scene: Scene, survey: Survey) -> None:
    with Lease.acquire(scene.root, SystemClock()):
        scene.publish("paused", "the password is asked for: survey login --site mycluster")
        said = survey("explain").out
        assert "It is paused: the password is asked for" in said
        assert "Next: it goes on by itself as soon as that is over." in said
    assert f"Next: mend that; then `survey resume {scene.root}`" in survey("explain").out


def test_a_study_that_is_done_says_that_nothing_more_happens(scene: Scene, survey: Survey) -> None:
    scene.trial(0, "complete", values=(0.5,))
    scene.trial(1, "failed", verdict="failed", reason="exit code 7")
    scene.publish("done", planned=2)
    said = survey("explain").out
    assert "It is done: of 2 trials 2 have ended (1 complete, 1 failed)." in said
    assert "Nothing more happens" in said


def test_a_trial_tells_each_attempt_and_why_there_was_another(scene: Scene, lease: Lease, survey: Survey) -> None:
    scene.attempt(3, job_id="81", verdict=Verdict.NODE_FAILURE, reason="NODE_FAIL")
    scene.attempt(3, job_id="82", verdict=Verdict.CANCELLED, reason="aborted on request", notes=(ABORTED,))
    scene.attempt(3, job_id="83", suspect_since=ago(30))
    scene.trial(3, "running", job_id="83", retry_of=1)
    scene.publish("running")
    said = survey("explain", "3").out.splitlines()
    assert said[0] == "Trial 3 of toy:"
    assert "second try of trial 1" in said[1]
    assert said[2].startswith("Attempt 1: ended 10 min ago, job 81 as node-failure: NODE_FAIL.")
    assert said[3].strip() == "It was run again: further attempt 1 of 3 that `retry: node-failure` allows."
    assert said[5].strip() == "It was run again: it was stopped on request, which is no end of the trial."
    assert "job 83 is gone from the scheduler without a report since" in said[6]


def test_a_failed_trial_says_why_it_is_not_run_again(scene: Scene, survey: Survey) -> None:
    scene.attempt(2, job_id="81", verdict=Verdict.FAILED, reason="exit code 7")
    scene.trial(2, "failed", verdict="failed", reason="exit code 7")
    scene.publish("done")
    said = survey("explain", "2").out
    assert "ended 10 min ago, job 81 as failed: exit code 7." in said
    assert "It is not run again: `retry: failed` is 0." in said
    assert "`survey logs 2` has more" in said


def test_a_result_that_nobody_has_told_yet_is_told_by_the_next_driver(scene: Scene, survey: Survey) -> None:
    scene.attempt(0, job_id="71", verdict=Verdict.SUCCEEDED)
    scene.attempt(1, job_id="72", verdict=Verdict.LOST, reason="no result")
    scene.trial(0, "running", job_id="71")
    scene.trial(1, "running", job_id="72")
    scene.publish("interrupted")
    assert f"Next: `survey resume {scene.root}` writes its end down." in survey("explain", "0").out
    assert f"Next: `survey resume {scene.root}` runs it again." in survey("explain", "1").out


def test_explaining_changes_nothing_and_has_a_form_for_programs(scene: Scene, survey: Survey) -> None:
    scene.attempt(0, job_id="71", submitted=ago())
    scene.trial(0, "running", job_id="71")
    scene.publish("running")
    before = content(scene.root)
    said = json.loads(survey("explain", "0", "--json").out)
    assert (said["trial"], said["root"]) == (0, str(scene.root))
    assert said["sentences"][0].startswith("Attempt 1: submitted as job 71")
    assert survey("explain").code == 0
    assert content(scene.root) == before


def test_a_trial_that_is_not_there_is_a_mistake_that_names_those_that_are(scene: Scene, survey: Survey) -> None:
    scene.trial(0, "complete", values=(0.5,))
    scene.publish("running")
    asked = survey("explain", "9")
    assert asked.code == 2
    assert "toy has no trial 9" in asked.err
    assert "trials 0 to 0" in asked.err
