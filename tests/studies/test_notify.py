"""Somebody is told when a study pauses or ends; a study is none the worse for a notifier that fails."""

from __future__ import annotations

import email
import email.policy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.notify import Notify, notify_file, users_notify
from orchestrator.config.study import Study, compare
from orchestrator.errors import ConfigError, HeldByAnother, Paused, SurveyError, TooManyFailures
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.studies.notify import Notifier

STUDY: dict[str, Any] = {
    "name": "toy",
    "objective": {"metric": "loss", "direction": "minimize"},
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "trials": 2,
    "command": ["train"],
}


def record(state: str, message: str = "") -> StudyRecord:
    return StudyRecord(
        name="toy",
        objectives=("loss",),
        directions=("minimize",),
        space={},
        sampler={},
        planned=2,
        parallel=1,
        site="local",
        state=state,
        message=message,
        trials=(TrialRecord(number=0, state="complete", values=(0.25,)), TrialRecord(number=1, state="failed")),
    )


class Heard:
    """A command that writes down what it is told, and a notifier that runs it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "toy"
        self.root.mkdir()
        self.out = folder / "heard"
        program = folder / "notify.sh"
        program.write_text(
            '#!/bin/sh\n{ echo "<$SURVEY_STUDY|$SURVEY_STATE|$SURVEY_MESSAGE>"; cat; echo "-- $*"; } >> "$HEARD"\n',
            encoding="utf-8",
        )
        program.chmod(0o700)
        self.command = str(program)
        self.trouble: list[str] = []
        self.time = 1000.0
        os.environ["HEARD"] = str(self.out)

    def notifier(self, *words: str, **changes: Any) -> Notifier:
        how = Notify(command=(self.command, *words))
        return Notifier(how, self.root, on_trouble=self.trouble.append, now=lambda: self.time, **changes)

    @property
    def text(self) -> str:
        return self.out.read_text("utf-8") if self.out.exists() else ""


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setenv("HEARD", "")
    return Heard(tmp_path)


def test_a_study_that_is_done_is_told_once_with_its_best(heard: Heard) -> None:
    notifier = heard.notifier()
    notifier.finished(record("done"), record("interrupted"), terminated=False)
    assert "<toy|done|>\nsurvey: toy is done\n" in heard.text
    assert "1 trials complete, 1 failed, 2 planned\n" in heard.text
    assert "best: trial 0, loss = 0.25\n" in heard.text
    assert str(heard.root) in heard.text
    before = heard.text
    notifier.finished(record("done"), record("done"), terminated=False)
    assert heard.text == before
    assert not heard.trouble


def test_what_is_said_of_a_study_is_no_shell_and_no_option(heard: Heard) -> None:
    words = "$(touch /tmp/never) `id`; rm -rf \"x\" 'y' \0 \n-oProxyCommand=x"
    heard.notifier("$HOME", "a b; c").tell("paused", words, hint="mend it")
    assert f"<toy|paused|{words.replace(chr(0), '')}>" in heard.text
    assert "-- $HOME a b; c\n" in heard.text
    assert not heard.trouble


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Paused("no space", hint="free some"), "<toy|paused|no space>"),
        (TooManyFailures("2 of 2 trials failed"), "<toy|done|2 of 2 trials failed>"),
        (SurveyError("the disk is gone"), "<toy|ended|the disk is gone>"),
        (ValueError("odd"), "<toy|ended|ValueError: odd>"),
        (HeldByAnother("another has it"), ""),
    ],
)
def test_what_ends_a_driver_is_told_and_raised_all_the_same(heard: Heard, failure: Exception, said: str) -> None:
    notifier = heard.notifier()
    notifier.hear({"event": "started"})
    with pytest.raises(type(failure)), notifier.watching():
        raise failure
    assert heard.text.startswith(said)
    assert bool(heard.text) == bool(said)


def test_an_error_before_the_start_is_for_the_one_who_sits_there(heard: Heard) -> None:
    notifier = heard.notifier()
    with pytest.raises(SurveyError), notifier.watching():
        raise SurveyError("no such queue")
    assert heard.text == ""


def test_a_driver_that_waits_for_a_login_tells_so_once_until_it_is_over(heard: Heard) -> None:
    notifier = heard.notifier(again=0.0)
    needed: Mapping[str, Any] = {"event": "waiting", "message": "type: survey login", "login": True}
    with notifier.watching():
        for event in (needed, needed, {"event": "waiting", "message": "full", "tag": "t1"}):
            notifier.hear(event)
    assert heard.text.count("<toy|paused|type: survey login>") == 1
    with notifier.watching():
        notifier.hear({**needed, "login": False})
        notifier.hear(needed)
    assert heard.text.count("<toy|paused|type: survey login>") == 2


def test_the_same_is_not_told_again_soon_be_it_by_another_driver(heard: Heard) -> None:
    heard.notifier().tell("paused", "no space")
    heard.time += 3000.0
    heard.notifier().tell("paused", "no space")
    assert heard.text.count("<toy|") == 1
    heard.notifier().tell("paused", "no quota")
    heard.time += 4000.0
    heard.notifier().tell("paused", "no quota")
    assert heard.text.count("<toy|") == 3


def test_sigterm_is_told_and_an_interrupt_by_hand_is_not(heard: Heard) -> None:
    heard.notifier().finished(record("interrupted"), None, terminated=False)
    assert heard.text == ""
    heard.notifier().finished(record("interrupted"), None, terminated=True)
    assert "<toy|interrupted|SIGTERM ended the driver; jobs in flight run on>" in heard.text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/nowhere/at-all",), "No such file"),
        (("/bin/sh", "-c", "echo no luck >&2; exit 3"), "/bin/sh ended with code 3: no luck"),
        (("/bin/sh", "-c", "exec sleep 60"), "timed out"),
        (("/bin/true",), ""),
    ],
)
def test_a_notifier_that_fails_is_told_of_and_nothing_else_happens(
    tmp_path: Path, command: tuple[str, ...], words: str
) -> None:
    trouble: list[str] = []
    notifier = Notifier(Notify(command=command), tmp_path, on_trouble=trouble.append, patience=0.5)
    notifier.tell("paused", "x" * 1_000_000)
    assert len(trouble) == bool(words)
    assert words in "".join(trouble)


def test_a_mail_goes_by_the_machines_sendmail_with_a_header_for_each_thing(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    (place / "sendmail").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/argv\ncat > {tmp_path}/mail\n', "utf-8")
    (place / "sendmail").chmod(0o700)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    notifier = Notifier(Notify(mail="me@example.org"), heard.root, on_trouble=heard.trouble.append)
    notifier.tell("paused", "plein: déjà\nBcc: somebody@else.org")
    assert not heard.trouble
    assert (tmp_path / "argv").read_text() == "-i -t\n"
    mail = email.message_from_bytes((tmp_path / "mail").read_bytes(), policy=email.policy.default)
    assert (mail["To"], mail["Subject"], mail["Bcc"]) == ("me@example.org", "survey: toy is paused", None)
    assert "plein: déjà" in mail.get_content()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"command": ["x"], "mail": "me@example.org"},
        {"command": []},
        {"mail": "-oQ/tmp"},
        {"mail": "a@b.org, c@d.org"},
        {"mail": "me@example.org\nBcc: x@y.org"},
        {"shell": "x"},
    ],
)
def test_what_is_no_way_to_tell_somebody_is_a_mistake_with_a_place(tmp_path: Path, data: dict[str, Any]) -> None:
    import yaml

    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "notify": data}), encoding="utf-8")
    with pytest.raises(ConfigError, match="notify"):
        Study.load(path)


@pytest.mark.usefixtures("clean_environment")
def test_a_user_says_it_for_all_studies_and_a_study_for_itself() -> None:
    assert users_notify() is None
    notify_file().parent.mkdir(parents=True)
    notify_file().write_text("mail: me@example.org\n", encoding="utf-8")
    assert users_notify() == Notify(mail="me@example.org")
    assert Study(**STUDY).notify is None
    assert Study(**STUDY, notify=False).notify is False
    notify_file().write_text("mall: me@example.org\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mall"):
        users_notify()


def test_who_is_told_may_change_between_runs(tmp_path: Path) -> None:
    before, after = Study(**STUDY), Study(**STUDY, notify=Notify(command=(sys.executable, "tell.py")))
    assert compare(before, after)[0] == []
    path = tmp_path / "study.yaml"
    path.write_text(after.to_yaml(), encoding="utf-8")
    assert Study.load(path) == after
