"""A database that was lost is made again from the attempt files, trial by trial."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from orchestrator.clock import SystemClock
from orchestrator.errors import HeldByAnother, Paused, SurveyError
from orchestrator.model import Attempt, Outcome, Verdict
from orchestrator.store import replacing
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import Ledger, new_tag
from orchestrator.store.rebuild import Rebuilt, rebuild
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.snapshot import publish
from orchestrator.store.studydb import StudyDatabase, read_trials
from orchestrator.store.trials import Ending

if TYPE_CHECKING:
    import optuna

NOW = 1_800_000_000.0
SETTINGS: dict[str, Any] = {"name": "toy", "directions": ["minimize"], "definition": {"space": "x, kind"}}
FILES = {None: "study.db", "journal:study.log": "study.log", "sqlite:///other.db": "other.db"}


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    found: dict[str, Any] = {"x": trial.suggest_float("x", 1e-6, 1.0, log=True)}
    found["kind"] = trial.suggest_categorical("kind", ["a", None, 3])
    if found["kind"] == "a":
        found["depth"] = trial.suggest_int("depth", 1, 9)
    return {**found, "fixed": "ü"}


def ended(runs: Mapping[str, Sequence[Attempt]], _seen: bool = True) -> Ending | None:
    (attempts,) = runs.values()
    outcome = attempts[-1].outcome
    if outcome is None or outcome.verdict is Verdict.NODE_FAILURE:
        return None
    attributes: dict[str, Any] = {
        "outcome": {"verdict": str(outcome.verdict), "reason": outcome.reason, "ended": outcome.ended},
        "metrics": dict(outcome.metrics),
        "info": dict(outcome.info),
    }
    if outcome.verdict is Verdict.SUCCEEDED:
        return Ending(state="complete", values=[outcome.metrics["loss"]], attributes=attributes)
    return Ending(state="pruned" if outcome.verdict is Verdict.STOPPED else "failed", attributes=attributes)


class Lost:
    """A study with trials of every kind, whose database is then lost."""

    def __init__(self, root: Path, url: str | None) -> None:
        self.root, self.url = root, url
        self.path = root / FILES[url]
        self.ledger = Ledger(root)
        with self.open() as study:
            for verdict in (Verdict.SUCCEEDED, Verdict.FAILED, Verdict.STOPPED, Verdict.NODE_FAILURE, None):
                number, params = self.ask(study)
                attempt = self.attempt(number, params, submitted=NOW + number)
                study.note(number, "job", {"job_id": attempt.job_id, "attempt": 1, "submitted": attempt.submitted})
                study.report(number, 3, 0.5)
                if verdict is None:
                    continue
                outcome = Outcome(
                    key=attempt.key,
                    verdict=verdict,
                    reason="" if verdict is Verdict.SUCCEEDED else "for a reason",
                    metrics={"loss": 0.1 + 0.2} if verdict is Verdict.SUCCEEDED else {},
                    info={"fold": [1, 2]},
                    ended=NOW + 100,
                )
                attempt = dataclasses.replace(attempt, outcome=outcome)
                self.ledger.save(attempt)
                if (ending := ended({attempt.key: [attempt]})) is not None:
                    study.tell(number, ending.state, ending.values, ending.attributes)
            self.ask(study)  # asked for, and not planned yet
            self.publish(study)
            self.before = study.trials()

    def open(self) -> StudyDatabase:
        return StudyDatabase.open(self.root, url=self.url, now=lambda: NOW, **SETTINGS)

    def ask(self, study: StudyDatabase) -> tuple[int, dict[str, Any]]:
        return study.ask(RandomSampler(seed=study.next_number), suggest)

    def attempt(self, number: int, params: dict[str, Any], submitted: float) -> Attempt:
        attempt = self.ledger.plan(f"{number:05d}", new_tag(number), "1-x", params, NOW)
        attempt = dataclasses.replace(attempt, job_id=f"7{number}", submitted=submitted)
        self.ledger.save(attempt)
        return attempt

    def publish(self, study: StudyDatabase) -> None:
        record = StudyRecord(
            name="toy",
            objectives=("loss",),
            directions=("minimize",),
            space={},
            sampler={},
            planned=9,
            parallel=1,
            site="local",
            state="running",
            trials=study.record(),
        )
        publish(self.root, record)

    def rebuild(self) -> Rebuilt:
        return rebuild(self.root, url=self.url, suggest=suggest, ended=ended, **SETTINGS)


@pytest.fixture(params=FILES, ids=["default", "journal", "named"])
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> Lost:
    made = Lost(tmp_path / "toy", request.param)
    made.path.write_bytes(b"rubbish" * 1000)
    return made


def plain(trials: Sequence[optuna.trial.FrozenTrial]) -> list[tuple[Any, ...]]:
    """All of the trials but the moment of their last write."""
    return [
        (
            each.number,
            each.state,
            each.values,
            each.params,
            each.distributions,
            each.user_attrs,
            each.system_attrs,
            each.intermediate_values,
            each.datetime_start,
        )
        for each in trials
    ]


def test_trials_values_states_and_attributes_are_what_they_were(lost: Lost) -> None:
    made = lost.rebuild()
    assert made.trials == {"complete": 1, "failed": 1, "pruned": 1, "running": 3}
    assert made.unknown == ()
    for _ in range(2):
        with lost.open() as study:
            assert plain(study.trials()) == plain(lost.before)


def test_the_old_database_is_kept_aside_as_it_was(lost: Lost) -> None:
    made = lost.rebuild()
    assert Path(made.kept).read_bytes() == b"rubbish" * 1000
    assert Path(made.kept).name.startswith(f"{lost.path.name}.damaged-")
    assert made.place == str(lost.path)
    assert not [name for name in os.listdir(lost.root) if "rebuilt" in name]


def test_a_rollback_journal_of_the_old_file_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    lost = Lost(tmp_path / "toy", None)
    (lost.root / "study.db-journal").write_bytes(b"hot")
    made = lost.rebuild()
    assert Path(f"{made.kept}-journal").read_bytes() == b"hot"
    assert not (lost.root / "study.db-journal").exists()


def test_the_study_goes_on_with_what_was_in_flight_and_the_next_number(lost: Lost) -> None:
    lost.rebuild()
    with lost.open() as study:
        assert [number for number, _ in study.unfinished()] == [3, 4, 5]
        assert lost.ask(study)[0] == 6


def test_without_a_snapshot_the_ledger_is_enough_for_what_was_submitted(lost: Lost) -> None:
    (lost.root / "snapshot.json").unlink()
    made = lost.rebuild()
    assert made.trials.total() == 5  # the one that was never planned is asked for again
    with lost.open() as study:
        for before, after in zip(lost.before, study.trials(), strict=False):
            # What a trial has reported, which is all that a pruned one has, only the snapshot knew.
            values = None if before.state == TrialState.PRUNED else before.values
            assert (after.state, after.values, after.params) == (before.state, values, before.params)
            assert after.distributions == before.distributions
            assert after.user_attrs.get("outcome") == before.user_attrs.get("outcome")
        study.unfinished()
        # The same seed and number give the same trial.
        assert lost.ask(study)[1] == {**lost.before[5].params, "fixed": "ü"}


def test_a_trial_that_nobody_knows_of_is_asked_for_again_under_its_number(lost: Lost) -> None:
    (lost.root / "snapshot.json").unlink()
    (lost.root / "ledger" / "00001" / "attempt-1.json").unlink()
    assert lost.rebuild().unknown == (1,)
    with lost.open() as study:
        study.unfinished()
        assert study.next_number == 1
        assert lost.ask(study)[0] == 1
        assert study.trials()[1].params == lost.before[1].params
        assert lost.ask(study)[0] == 5


def test_whose_place_of_the_budget_a_trial_takes_is_kept(tmp_path: Path) -> None:
    lost = Lost(tmp_path / "toy", None)
    with lost.open() as study:
        study.unfinished()
        study.enqueue({"x": 0.5, "kind": None}, retry_of=1)
        lost.ask(study)
        study.enqueue({"x": 0.25, "kind": None}, retry_of=2)
        lost.publish(study)
        lost.before = study.trials()
    lost.path.write_bytes(b"rubbish" * 1000)
    lost.rebuild()
    with lost.open() as study:
        assert [trial.retry_of for trial in study.record()] == [None] * 6 + [1, 2]
        *asked, waiting = study.trials()
        assert [each[:5] for each in plain(asked)] == [each[:5] for each in plain(lost.before[:-1])]
        assert (waiting.state, waiting.system_attrs) == (lost.before[-1].state, lost.before[-1].system_attrs)
        study.unfinished()
        number, params = lost.ask(study)
        assert (number, params["x"], params["kind"]) == (7, 0.25, None)


def test_trials_whose_attempt_files_were_removed_keep_their_end_from_the_snapshot(lost: Lost) -> None:
    (lost.root / "ledger" / "00000" / "attempt-1.json").unlink()
    assert lost.rebuild().trials["complete"] == 1
    first = read_trials(lost.root, name="toy", url=lost.url)[0]
    assert (first.values, first.metrics, first.info) == ((0.1 + 0.2,), {"loss": 0.1 + 0.2}, {"fold": [1, 2]})


def test_a_live_driver_is_not_disturbed(lost: Lost) -> None:
    with Lease.acquire(lost.root, SystemClock()), pytest.raises(HeldByAnother):
        lost.rebuild()
    assert lost.path.read_bytes() == b"rubbish" * 1000


def test_a_rebuild_that_was_cut_off_is_done_again(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "sync_directory", full)
        with pytest.raises(Paused, match="No space"):
            lost.rebuild()
    lost.rebuild()
    with lost.open() as study:
        assert plain(study.trials()) == plain(lost.before)


def test_parameters_that_do_not_fit_the_study_are_refused_by_number(lost: Lost) -> None:
    path = lost.root / "ledger" / "00002" / "attempt-1.json"
    path.write_text(path.read_text().replace('"x":', '"y":'))
    with pytest.raises(SurveyError, match="trial 2 has parameters that do not fit"):
        lost.rebuild()


def test_a_database_that_is_older_than_the_ledger_is_refused(tmp_path: Path) -> None:
    lost = Lost(tmp_path / "toy", None)
    lost.path.unlink()
    with pytest.raises(Paused, match="lacks the trials 0, 1, 2, 3, 4") as caught:
        lost.open()
    assert "--rebuild" in caught.value.hint
    lost.rebuild()
    lost.open().close()


def test_a_rebuilt_record_reads_as_the_old_one(lost: Lost) -> None:
    lost.rebuild()
    with lost.open() as study:
        records = study.record()
    assert [trial.verdict for trial in records] == ["succeeded", "failed", "stopped", None, None, None]
    assert all(isinstance(trial, TrialRecord) and trial.created == NOW for trial in records)
