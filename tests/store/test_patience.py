"""A server that is away is waited for, aloud; what it may have done before it went is looked up, not done again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from sqlalchemy.exc import PendingRollbackError

from orchestrator.errors import HeldByAnother
from orchestrator.store import patience
from orchestrator.store.patience import Patience
from orchestrator.store.studydb import StudyDatabase
from orchestrator.store.trouble import ServerAway, explained


class OperationalError(Exception):
    """What the drivers of all servers call it."""


def away() -> StorageInternalError:
    error = StorageInternalError("during the commit")
    error.__cause__ = OperationalError("server closed the connection unexpectedly")
    return error


def test_a_transaction_that_is_gone_on_with_after_a_cut_is_a_server_that_is_away() -> None:
    error = StorageInternalError("during the commit")
    error.__cause__ = PendingRollbackError("Can't reconnect until invalid transaction is rolled back. Rollback fully.")
    with pytest.raises(ServerAway, match="cannot be reached"), explained("postgresql://here/trials"):
        raise error


class Server:
    """Stands for a server that is away for some writes, each before or after it has done its part."""

    def __init__(self, study: StudyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script: list[str] = []
        self.real: Any = study._real
        for name in ("create_new_trial", "finish_trial", "set_trial_user_attr", "set_trial_intermediate_value"):
            monkeypatch.setattr(self.real, name, self.around(getattr(self.real, name)))
        monkeypatch.setattr(self.real, "get_all_trials", self.around(self.real.get_all_trials, reading=True))

    def around(self, call: Callable[..., Any], *, reading: bool = False) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if self.script and (self.script[0] == "read") is reading:
                when = self.script.pop(0)
                if when == "after":
                    call(*arguments, **named)
                raise away()
            return call(*arguments, **named)

        return called


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def study(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyDatabase]:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(patience, "_LAST_PAUSE", 0.001)
    settings: dict[str, Any] = {"name": "s", "directions": ["minimize"], "definition": {}}
    with StudyDatabase.open(tmp_path, on_wait=lambda words, _away: said.append(words), **settings) as opened:
        yield opened


def ask(study: StudyDatabase) -> tuple[int, dict[str, Any]]:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return {"x": trial.suggest_float("x", 0, 1)}

    return study.ask(RandomSampler(seed=study.next_number), suggest)


SCRIPTS = [["before"], ["after"], ["before", "before", "after"], ["before", "read", "after", "read", "read"]]


@pytest.mark.parametrize("script", SCRIPTS, ids="-".join)
def test_each_step_is_done_once_whatever_became_of_the_first_try(
    study: StudyDatabase, script: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = [ask(study)[1], ask(study)[1]]
    server = Server(study, monkeypatch)
    steps: list[Callable[[], Any]] = [
        lambda: ask(study),
        lambda: study.note(0, "job", {"job_id": "1"}),
        lambda: study.report(0, 1, 0.5),
        lambda: study.tell(0, "complete", [0.25], {"outcome": {"reason": "r"}}),
        lambda: study.enqueue({"x": 0.75}),
        lambda: ask(study),
    ]
    answers = []
    for step in steps:
        if step is not steps[4]:  # an enqueued trial may be there twice: it costs no budget
            server.script = list(script)
        answers.append(step())
        assert server.script == []
    study.storage.reload()
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "RUNNING", "RUNNING", "RUNNING"]
    first = study.trials()[0]
    assert (first.values, first.intermediate_values) == ([0.25], {1: 0.5})
    assert first.user_attrs["job"] == {"job_id": "1"}
    assert answers[0] == (2, answers[0][1])
    assert answers[-1] == (3, {"x": 0.75})
    assert [trial.params for trial in study.trials()[:2]] == undisturbed
    # The trial is the one that the seed and the number give, however often the write was tried.
    expected = RandomSampler(seed=2).sample_independent(
        optuna.create_study(), study.trials()[2], "x", optuna.distributions.FloatDistribution(0, 1)
    )
    assert answers[0][1] == {"x": expected}


def test_a_cut_that_mends_at_once_is_no_news_and_a_longer_one_is_told_with_its_end(
    study: StudyDatabase, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(study)
    server = Server(study, monkeypatch)
    server.script = ["before"]
    study.note(0, "phase", 1)
    assert said == []
    server.script = ["before"] * 4
    study.note(0, "phase", 2)
    away, back = said
    assert "cannot be reached: server closed the connection" in away
    assert "waiting for it" in away
    assert "is back after" in back


def test_without_a_listener_the_wait_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tries = [1, 2, 3]

    def step() -> str:
        if tries.pop() > 1:
            raise ServerAway("the server is away")
        return "done"

    with caplog.at_level(logging.WARNING):
        assert Patience().outlast(step) == "done"
    assert [record.getMessage().partition(";")[0] for record in caplog.records][:1] == ["the server is away"]


def test_a_wait_ends_after_its_longest_time_with_the_servers_words() -> None:
    def step() -> None:
        raise ServerAway("the server is away")

    with pytest.raises(ServerAway, match="is away"):
        Patience(lambda _words, _away: None, longest=-1.0).outlast(step)


def test_what_is_known_can_be_read_while_a_server_is_waited_for_and_the_wait_can_be_ended(
    study: StudyDatabase, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(study)
    server = Server(study, monkeypatch)
    server.script = ["before"] * 1_000_000
    ended: list[BaseException] = []

    def write() -> None:
        try:
            study.note(0, "phase", 1)
        except ServerAway as error:
            ended.append(error)

    waiting = threading.Thread(target=write)
    waiting.start()
    while not said:
        assert waiting.is_alive()
    assert [trial.state for trial in study.record()] == ["running"]
    study.stop_waiting()
    waiting.join(timeout=60)
    assert len(ended) == 1


def test_a_driver_that_lost_its_lease_while_it_waited_does_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[HeldByAnother] = []

    def guard() -> None:
        if lost:
            raise lost[0]

    with StudyDatabase.open(tmp_path, name="s", directions=["minimize"], definition={}, guard=guard) as study:
        ask(study)
        server = Server(study, monkeypatch)
        server.script = ["before"]
        monkeypatch.setattr(study._mirror, "set_trial_user_attr", losing(study._mirror.set_trial_user_attr, lost))
        with pytest.raises(HeldByAnother, match="taken over"):
            study.note(0, "phase", 1)
        lost.clear()
        assert "phase" not in study.attributes(0)


def losing(call: Callable[..., Any], lost: list[HeldByAnother]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        lost.append(HeldByAnother("the lease was taken over"))
        return call(*arguments)

    return called
